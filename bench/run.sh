#!/bin/sh
# Every measurement of this folder in interleaved rounds, written to docs/benchmarks.md; or the ones named, printed:
# sh bench/run.sh start
set -eu
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m bench.table --rounds "${ROUNDS:-1}" "$@"
fi
exec .venv/bin/python -m bench.table --rounds "${ROUNDS:-3}" --out docs/benchmarks.md
