#!/bin/sh
# Installs Debian packages without starting, restarting or enabling any service.
#   deploy/install-stopped.sh PACKAGE...     (or ./file.deb)
#
# Rules:
# - Nothing of the machine's is changed for it, so nothing has to be put back, even after SIGKILL: maintainer scripts reach
#   services through four programs of init-system-helpers, by name; deploy/stopped/ holds stand-ins for them and goes first
#   on the PATH of dpkg. The machine's policy-rc.d is neither read nor written.
# - A service that is new stays off: not started now, not enabled for the next boot, and Debian's own book-keeping knows
#   it, so that a later upgrade of the package leaves it off too.
# - A service that was there keeps its state and is not restarted.
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l LC_ALL=C.UTF-8
stopped=$(cd "$(dirname "$0")/stopped" && pwd)

die() { echo "install-stopped: $*" >&2; exit 1; }
apt() {
    apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        -o DPkg::Path="$stopped:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}

# The packages this run would newly install, on one line: "Inst NAME (..." is new, "Inst NAME [OLD] (..." an upgrade.
new_packages() {
    plan=$(apt -s install "$@") || return 1
    printf '%s\n' "$plan" | awk '$1 == "Inst" && $3 !~ /^\[/ { sub(/:.*/, "", $2); printf "%s ", $2 }'
}

# Says nothing when all is well, and all that apt said when not.
attempt() {
    SHOAL_NEW_PACKAGES=$(new_packages "$@" 2>/dev/null) || return 1
    export SHOAL_NEW_PACKAGES
    said=$(apt install "$@" 2>&1) || { printf '%s\n' "$said" >&2; return 1; }
}

[ $# -gt 0 ] || die "no package named"
[ "$(id -u)" = 0 ] || die "needs root, to install: $*"
command -v apt-get >/dev/null || die "no apt-get here; install with this machine's own package manager: $*"
"$stopped/invoke-rc.d" || die "cannot run $stopped/invoke-rc.d: is this folder on a file system mounted noexec?"
# Old or absent package lists show as an unknown package or a failed download: fetch them and try once more.
attempt "$@" || { apt update >/dev/null && attempt "$@"; } || die "apt-get could not install: $*"
