#!/bin/sh
# Installs Debian packages without starting, restarting or enabling any service.
#   deploy/install-stopped.sh PACKAGE...     (or ./file.deb)
#
# Rules:
# - Nothing has to be put back, even after SIGKILL. Maintainer scripts reach services through four programs of
#   init-system-helpers. Those are covered by bind mounts in a mount namespace of our own; the machine's files, its
#   policy-rc.d among them, are never written, and the covers are gone with the last process of this script.
# - A service that is new stays off: not started now, not enabled for the next boot, and Debian's own book-keeping knows
#   it, so that a later upgrade of the package leaves it off too.
# - A service that was there keeps its state and is not restarted.
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l LC_ALL=C.UTF-8

die() { echo "install-stopped: $*" >&2; exit 1; }
apt() { apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o APT::Get::Assume-Yes=true --no-install-recommends "$@"; }

# The packages this run would newly install, on one line: "Inst NAME (..." is new, "Inst NAME [OLD] (..." an upgrade.
new_packages() {
    plan=$(apt -s install "$@") || return 1
    printf '%s\n' "$plan" | awk '$1 == "Inst" && $3 !~ /^\[/ { sub(/:.*/, "", $2); printf "%s ", $2 }'
}

# cover NAME: put the program on standard input over NAME; the real one stays reachable as $real/NAME.
cover() {
    target=$(readlink -f "$(command -v "$1")") || return 0
    [ -f "$target" ] || return 0
    cp -p "$target" "$real/$1"
    cat >"$covers/$1"
    chmod 755 "$covers/$1"
    mount --bind "$covers/$1" "$target"
}

# Runs in the private mount namespace: $1 is an empty folder, the rest are packages.
inside() {
    mount -t tmpfs -o mode=755 tmpfs "$1"
    covers=$1/covers real=$1/real
    shift
    mkdir "$covers" "$real"
    new=$(new_packages "$@") || exit 1

    cover invoke-rc.d <<'COVER'
#!/bin/sh
exit 0
COVER
    cover deb-systemd-invoke <<'COVER'
#!/bin/sh
exit 0
COVER
    # A new package's script asks "was it enabled?" and enables unless the answer is no; then it records the state.
    cover deb-systemd-helper <<COVER
#!/bin/sh
case " $new" in *" \${DPKG_MAINTSCRIPT_PACKAGE:-} "*)
    for word; do
        shift
        case \$word in
        was-enabled) exit 1 ;;
        enable) word=update-state ;;
        esac
        set -- "\$@" "\$word"
    done ;;
esac
exec "$real/deb-systemd-helper" "\$@"
COVER
    cover update-rc.d <<COVER
#!/bin/sh
case " $new" in *" \${DPKG_MAINTSCRIPT_PACKAGE:-} "*)
    [ "\${2:-}" != defaults ] || set -- "\$1" defaults-disabled ;;
esac
exec "$real/update-rc.d" "\$@"
COVER
    apt install "$@"
}

main() {
    [ $# -gt 0 ] || die "no package named"
    [ "$(id -u)" = 0 ] || die "needs root, to install: $*"
    command -v apt-get >/dev/null || die "no apt-get here; install with this machine's own package manager: $*"
    isolated=yes
    if ! unshare --mount --propagation private true 2>/dev/null; then
        isolated=no # fine where there is no init system: nothing starts or enables a service there
        [ ! -d /run/systemd/system ] && [ ! -e /sbin/init ] ||
            die "may not make a mount namespace, so the services would start; as an administrator, install: $*"
    fi
    # Old or absent package lists show as an unknown package now, or as a failed download later: fetch them and try again.
    new_packages "$@" >/dev/null 2>&1 || apt update >/dev/null || die "apt-get update failed: is a package mirror reachable?"
    attempt "$@" || { apt update >/dev/null && attempt "$@"; } || die "apt-get could not install: $*"
}

# Installs once. Says nothing when all is well, and all that apt said when not.
attempt() {
    folder=$(mktemp -d)
    said=$(mktemp)
    status=0
    case $isolated in
    yes) unshare --mount --propagation private sh "$0" --inside "$folder" "$@" >"$said" 2>&1 || status=$? ;;
    no) apt install "$@" >"$said" 2>&1 || status=$? ;;
    esac
    [ $status = 0 ] || cat "$said" >&2
    rm -f "$said"
    rmdir "$folder"
    return $status
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
else
    main "$@"
fi
