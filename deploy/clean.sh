#!/bin/sh
# Takes away what a checkout made on this machine: labs first, then environments and caches. Packages stay.
set -u
cd "$(dirname "$0")/.." || exit
if [ -x .venv/bin/shoal ] && [ "$(id -u)" = 0 ]; then
    .venv/bin/shoal lab down --all || echo "clean: a lab may be left; look with: .venv/bin/shoal lab status" >&2
fi
find . -path ./.git -prune -o -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
rm -rf .venv .venv-protos .venv.lock .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
