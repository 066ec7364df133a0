#!/bin/busybox sh
# The first process of the emulated machine: its root is the host's, read-only, under a memory file system.
# Words of the kernel's command line: vm_dir= this folder, vm_cache= the cache, vm_init= systemd or none.
b=/bin/busybox
$b mkdir -p /proc /dev /lower /memory /root
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for word in $($b cat /proc/cmdline); do
    case $word in vm_*=*) export "$word" ;; esac
done
for module in /modules/*; do $b insmod "$module" || echo "vm: no $module"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /lower
$b mount -t tmpfs -o size=90% memory /memory
$b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work overlay /root
$b mkdir -p /root/lib/modules
$b mount --bind "/root$vm_cache/guest/lib/modules" /root/lib/modules
$b cp "/root$vm_cache/guest/bin/kmod" /root/sbin/modprobe
for place in /run /tmp /var/tmp /var/lib/shoal; do # an overlay takes no other overlay's upper folder
    $b mkdir -p "/root$place"
    $b mount -t tmpfs -o mode=1777 memory "/root$place"
done
$b mount --move /proc /root/proc
$b mount --move /dev /root/dev
$b mount -t sysfs sys /root/sys
if [ "$vm_init" = systemd ]; then
    $b mkdir -p /root/run/systemd/system
    $b sed "s|@DIR@|$vm_dir|" "/root$vm_dir/shoal-vm.service" >/root/run/systemd/system/shoal-vm.service
    exec $b switch_root /root /lib/systemd/systemd --unit=shoal-vm.service
fi
$b mkdir -p /root/dev/pts /root/dev/shm /root/dev/mqueue
$b mount -t devpts -o mode=620,ptmxmode=666 devpts /root/dev/pts
$b mount -t tmpfs -o mode=1777 shm /root/dev/shm
$b mount -t mqueue mqueue /root/dev/mqueue
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
exec $b switch_root /root /usr/bin/catatonit -- sh "$vm_dir/guest.sh"
