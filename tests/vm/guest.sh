#!/bin/sh
# Runs inside the emulated machine: the tests of `$vm_dir/tests`, or those named in vm_tests=, then power off.
# Its last line, `vm: exit CODE`, is what run.sh reads.
for word in $(cat /proc/cmdline); do
    case $word in vm_*=*) export "$word" ;; esac
done
export SHOAL_TEST_PATIENCE=6 SHOAL_TEST_NODES=1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount --make-rshared / # as systemd does
busybox ip link set lo up
hostname vm
ulimit -n 20000
cd "$vm_dir/../.."
echo "vm: kernel $(uname -r), init $(cat /proc/1/comm), $(stat -f -c %T /sys/fs/cgroup), own $(cat /proc/self/cgroup), $(cat /sys/fs/cgroup/cgroup.controllers)"
tests=$(echo "$vm_tests" | tr ',' ' ')
# shellcheck disable=SC2086  # one word a test
.venv/bin/python -m pytest -p no:cacheprovider -v --color=no --timeout=600 --durations=8 $tests </dev/null
code=$?
left=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -name 'shoal*' ! -name 'shoal-vm*')
[ -z "$left" ] || { echo "vm: cgroups left: $left"; code=1; }
busybox dmesg | grep "\] Out of memory" && echo "vm: the machine itself ran out of memory"
echo "vm: exit $code"
sleep 0.2 # the serial line drains
busybox poweroff -f
