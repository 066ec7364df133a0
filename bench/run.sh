#!/bin/sh
# Every measurement of this folder, one after the other, or the ones named: sh bench/run.sh start
set -eu
cd "$(dirname "$0")/.."
# shellcheck disable=SC2046,SC2012  # our own file names, without blanks
[ $# -gt 0 ] || set -- $(ls bench | sed -n 's/^\([a-z]\w*\)\.py$/\1/p')
for name; do
    echo "== $name"
    .venv/bin/python -m "bench.$name"
done
