#!/bin/sh
# Runs the suites one after the other, the quick ones first, and stops at the first that fails: pytest's closing lines are
# then the last ones, with the counts and the failures. Without root the suites that need it are named and left out.
set -eu
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest

$pytest -n 2 tests/unit tests/properties tests/scenarios tests/sim
if [ "$(id -u)" = 0 ]; then
    $pytest -n 2 --dist loadfile tests/contract tests/root
    $pytest tests/e2e
else
    echo "not root: left out are tests/root and tests/e2e (namespaces, cgroups and containers need it)"
    $pytest -n 2 --dist loadfile -m "not root and not e2e" tests/contract
fi
