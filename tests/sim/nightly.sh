#!/bin/sh
# What is too long for every change: 100,000 faults from seeds nobody has seen (or from SEED on), every order of the small model with
# two faults, and 5,000 nodes for ten virtual minutes. Two runs at a time, one for each core.
set -eu
cd "$(dirname "$0")/../.."
seed=${1:-$(date +%Y%m%d)000}
echo "seeds from $seed on"
.venv/bin/python -m shoal sim --seed "$seed" --runs 500 --nodes 6 --minutes 5 --faults 100 &
half=$!
.venv/bin/python -m shoal sim --seed "$((seed + 500))" --runs 400 --nodes 6 --minutes 5 --faults 100 || failed=1
.venv/bin/python -m shoal sim --seed "$((seed + 900))" --runs 100 --nodes 20 --minutes 10 --faults 100 || failed=1
wait "$half" || failed=1
.venv/bin/python -m shoal sim --seed "$seed" --nodes 5000 --minutes 10 --faults 100 --whole || failed=1
.venv/bin/python -m sim.small --faults 2 || failed=1
exit "${failed:-0}"
