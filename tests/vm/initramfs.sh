#!/bin/sh
# Writes the first file system of the machine, $2, from the cache $1: busybox, `init.sh` and the modules that reach this
# machine's files (9p over virtio) and lay a memory file system over them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$1 image=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/modules"
cp "$(command -v busybox)" "$work/bin/busybox"
cp "$here/init.sh" "$work/init"
chmod 755 "$work/init"
version=$(ls "$cache/guest/lib/modules")
number=10
# Each module after those it needs, by the list of depmod.
for name in virtio_pci 9pnet_virtio 9p overlay; do
    for path in $(sed -n "s|^\(.*/$name\.ko\): *\(.*\)|\1 \2|p" "$cache/guest/lib/modules/$version/modules.dep" |
        awk '{ for (i = NF; i > 0; i--) print $i }'); do
        ls "$work/modules" | grep -q -- "-${path##*/}$" && continue
        cp "$cache/guest/lib/modules/$version/$path" "$work/modules/$number-${path##*/}"
        number=$((number + 1))
    done
done
(cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$image"
