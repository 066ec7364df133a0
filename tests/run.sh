#!/bin/sh
# Runs the suites one after the other, the quick ones first, and stops at the first that fails: pytest's closing lines are
# then the last ones, with the counts and the failures. Without root the suites that need it are named and left out.
# Contract, root and end-to-end tests mostly wait: the simulation takes what they leave of the cores, with the least weight.
set -eu
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest

$pytest -n 2 tests/unit tests/properties tests/scenarios
if [ "$(id -u)" != 0 ]; then
    echo "not root: left out are tests/root and tests/e2e (namespaces, cgroups and containers need it)"
    $pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not root and not e2e" tests/contract
    exec $pytest -n 2 tests/sim
fi

told=$(mktemp)
nice -n 19 $pytest tests/sim >"$told" 2>&1 &
simulation=$!
trap 'kill "$simulation" 2>/dev/null || true; rm -f "$told"' EXIT
trap 'exit 130' INT TERM
$pytest -n 3 --dist loadfile --no-loadscope-reorder tests/contract tests/root
$pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 8 tests/e2e
failed=0
wait "$simulation" || failed=$?
cat "$told"
exit "$failed"
