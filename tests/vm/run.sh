#!/bin/sh
# Runs tests in an emulated machine with cgroup v2, for machines that have v1: its files are this machine's, read-only.
#   tests/vm/run.sh [--systemd] [PYTEST WORD...]      without words: the runtime's, the agent's and the lab's tests
#
# Rules:
# - Nothing of this machine is changed but the cache, SHOAL_VM_CACHE; whatever the tests write is gone with the machine.
# - Everything is emulated, some ten times slower (a quarter of an hour for all), because virtualization in a virtual machine often hangs;
#   SHOAL_VM_ACCEL=kvm uses it. The tests' deadlines are stretched by SHOAL_TEST_PATIENCE.
# - With --systemd it is the first process, owns the tree of cgroups, and the tests are a service of it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${SHOAL_VM_CACHE:-/var/cache/shoal/vm}
init=none
[ "${1:-}" != --systemd ] || { init=systemd; shift; }
tests=${*:-tests/root/test_runtime_containers.py tests/root/test_runtime_recover.py tests/root/test_runtime_sessions.py
    tests/root/test_cgroup_counters.py tests/root/test_agent_daemon.py tests/e2e/test_e2e_limits.py}
[ "$(id -u)" = 0 ] || { echo "vm: needs root: the tests read files that only root may read" >&2; exit 1; }
sh "$here/fetch.sh" "$cache"
cd "$here/../.."
.venv/bin/python -m deploy.images.build /var/cache/shoal/images >/dev/null # the machine has no network

work=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
sh "$here/initramfs.sh" "$cache" "$work/initramfs"
words=$(echo "$tests" | tr -s ' \n' ',')
libraries=$cache/host/usr/lib/$(uname -m)-linux-gnu:$cache/host/lib/$(uname -m)-linux-gnu
: >"$work/console"
LD_LIBRARY_PATH=$libraries setpriv --pdeathsig KILL "$cache/host/usr/bin/qemu-system-x86_64" \
    -L "$cache/host/usr/share/seabios" -L "$cache/host/usr/share/qemu" \
    -accel "${SHOAL_VM_ACCEL:-tcg}" -cpu max -smp 2 -m 3G -no-reboot -display none -nodefaults -serial file:"$work/console" \
    -kernel "$cache/vmlinuz" -initrd "$work/initramfs" \
    -append "console=ttyS0 quiet loglevel=2 panic=-1 vm_dir=$here vm_cache=$cache vm_init=$init vm_tests=$words" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap &
qemu=$!
tail -f --pid="$qemu" "$work/console" &
shown=$!
wait "$qemu" || true
qemu=
wait "$shown" || true
tr -d '\r' <"$work/console" | grep -q '^vm: exit 0$'
