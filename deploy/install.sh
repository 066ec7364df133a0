#!/bin/sh
# Installs shoal on a real machine: /opt/shoal (environment, documents), /usr/local/bin/shoal, the systemd units. `make install`
# builds the wheel and calls this. Starts and enables nothing: docs/install.md says how a controller or an agent begins.
# Done again it upgrades: containers and the cluster's data are elsewhere and stay as they are.
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/opt/shoal}

[ "$(id -u)" = 0 ] || { echo "install: needs root" >&2; exit 1; }
set -- dist/shoal-*.whl
wheel=$1
[ -f "$wheel" ] || { echo "install: no dist/shoal-*.whl: run make wheel" >&2; exit 1; }

python3 -m venv "$prefix"
UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
export UV_LINK_MODE UV_PYTHON_DOWNLOADS
[ ! -s /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=1
.venv/bin/uv pip install -q --python "$prefix/bin/python" --require-hashes --compile-bytecode -r requirements.lock
.venv/bin/uv pip install -q --python "$prefix/bin/python" --no-deps --reinstall --compile-bytecode "$wheel"
mkdir -p "$prefix/doc" /etc/shoal
cp -R README.md CHANGELOG.md LICENSE docs/. "$prefix/doc/"
chmod 700 /etc/shoal
ln -sf "$prefix/bin/shoal" /usr/local/bin/shoal
if [ -d /etc/systemd/system ]; then
    for unit in deploy/systemd/*.service; do
        sed "s|/opt/shoal/|$prefix/|g" "$unit" >"/etc/systemd/system/$(basename "$unit")"
    done
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
echo "installed: $("$prefix/bin/shoal" version 2>/dev/null || echo "$wheel") in $prefix; next: $prefix/doc/install.md"
