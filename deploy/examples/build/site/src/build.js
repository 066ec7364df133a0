const fs = require('fs')
const escape = require('escape-html')

fs.mkdirSync('build')
fs.writeFileSync('build/index.html', `<h1>${escape('made by <node>, served by <nginx>')}</h1>\n`)
