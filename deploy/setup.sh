#!/bin/sh
# Makes a checkout ready: Debian packages, .venv filled from the hash-pinned lock, `.venv/bin/shoal`.
#   deploy/setup.sh            all of it; under a second when nothing is to do
#   deploy/setup.sh missing    print the Debian packages that are missing
#
# Rules:
# - Done twice it does nothing the second time, and killed half-way the next run completes it: the stamp is written last.
# - What is installed from PyPI is what requirements-dev.lock names, by hash; no index is named here.
# - Without root it goes on after saying which packages are missing: much of the project needs none of them.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
venv=$root/.venv
stamp=$venv/.shoal-stamp

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# The path of a python that is new enough and for which $1 (python code) runs; not that of a shim before it.
python_that() {
    for name in python3 python3.13 python3.12 python3.11; do
        path=$(command -v "$name") || continue
        case $path in "$venv"/*) continue ;; esac
        code="import os, sys; assert sys.version_info >= (3, 11); $1; print(os.path.realpath(sys.executable))"
        "$path" -c "$code" 2>/dev/null && return
    done
    return 1
}

wanted() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' deploy/debian-packages.txt; }

missing() {
    if command -v dpkg-query >/dev/null; then
        # shellcheck disable=SC2016  # dpkg-query expands it
        here=$(wanted | xargs dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p') || true
    else
        here=
    fi
    {
        wanted
        [ -x "$venv/bin/python" ] || python_that "import venv, ensurepip" >/dev/null || echo python3-venv
    } | grep -vxF -e "$here" || true
}

# Images for the demo are made of Debian packages, so apt must know some, also where nothing is missing.
lists() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    for list in /var/lib/apt/lists/*_Packages*; do
        [ ! -e "$list" ] || return 0
    done
    say "fetching the lists of Debian packages"
    apt-get -q update >/dev/null || say "apt-get update failed: building the demo images will too"
}

packages() {
    absent=$(missing | tr '\n' ' ')
    [ -n "$absent" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "not root, so these Debian packages stay missing and what needs them will not run: $absent"
        return 0
    fi
    say "installing Debian packages, services left off: $absent"
    # shellcheck disable=SC2086  # one word a package
    sh deploy/install-stopped.sh $absent
}

# Everything .venv depends on, as one line: where it stands, its python, and the contents of lock and project file.
wanted_stamp() {
    printf '%s %s %s\n' "$root" "$1" "$(cat requirements-dev.lock pyproject.toml deploy/setup.sh | sha256sum)"
}

environment() {
    if [ -x "$venv/bin/shoal" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_stamp "$(readlink -f "$venv/bin/python")")" ]; then
        return 0
    fi
    python=$(python_that "import venv, ensurepip") || die "needs Python 3.11 or newer with venv; on Debian: apt-get install python3-venv"
    say "filling .venv ($("$python" -V))"
    case $(cat "$stamp" 2>/dev/null) in
    "$root $python "*) rm -f "$stamp" ;;
    *) rm -rf "$venv" ;; # of another checkout, another python, or never finished
    esac
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    bootstrap_uv
    export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
    # Trust what the machine trusts (a company's own authority, say); uv's built-in list is for machines that have none.
    [ ! -s /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=1
    "$venv/bin/uv" pip sync -q --python "$venv/bin/python" --require-hashes --compile-bytecode requirements-dev.lock
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation --reinstall -e .
    "$venv/bin/python" -m compileall -q protos model scheduler controller agent cli lab sim shoal || true
    wanted_stamp "$(readlink -f "$venv/bin/python")" >"$stamp"
}

# uv itself comes from the same lock, by pip, which every venv has.
bootstrap_uv() {
    pinned=$(awk '/^uv==/ { on = 1 } on { print } on && !/\\$/ { exit }' requirements-dev.lock)
    want=$(printf '%s\n' "$pinned" | sed -n 's/^uv==\([^ ]*\).*/uv \1/p')
    case $("$venv/bin/uv" --version 2>/dev/null) in "$want" | "$want "*) return 0 ;; esac
    list=$(mktemp)
    printf '%s\n' "$pinned" >"$list"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r "$list" || { rm -f "$list"; die "pip could not fetch uv"; }
    rm -f "$list"
}

case ${1:-all} in
missing) missing ;;
all)
    exec 9>"$root/.venv.lock"
    flock 9 # two runs in one checkout wait for each other
    packages
    lists
    environment
    ;;
*) die "unknown word: $1 (there is: missing)" ;;
esac
