#!/bin/sh
# Makes the Python code beside every protos/*.proto: messages, gRPC stubs and their types. The result is committed.
#   protos/generate.sh           write it here
#   protos/generate.sh --check   write it to a temporary folder and compare; exit 1 when what is committed is stale
# The generators live in an environment of their own (.venv-protos): grpcio-tools pins an older protobuf than we run.
# A generator of protobuf 6 makes code that protobuf 7 runs. They are pinned, for another version may write other code.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
venv=$root/.venv-protos
lock=$root/requirements-protos.lock

if ! cmp -s "$lock" "$venv/made"; then
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=python3
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock"
    cp "$lock" "$venv/made"
fi

out=$root
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT INT TERM
fi

# Run from the root, with protos/x.proto as the name: the code then imports `from protos import x_pb2`.
PATH=$venv/bin:$PATH "$venv/bin/python" -m grpc_tools.protoc -I . \
    --python_out="$out" --grpc_python_out="$out" \
    --mypy_out="$out" --mypy_grpc_out="$out" \
    protos/*.proto

[ "$out" != "$root" ] || exit 0
stale=0
for made in "$out"/protos/*_pb2*; do
    cmp -s "$made" "$root/protos/$(basename "$made")" || { echo "stale: protos/$(basename "$made"): run protos/generate.sh" >&2; stale=1; }
done
exit $stale
