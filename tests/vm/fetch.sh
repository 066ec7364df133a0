#!/bin/sh
# Fills the cache directory $1 with an emulator, a kernel with its modules, and kmod, all from Debian packages.
#
# Rules:
# - Nothing is installed on this machine: packages are fetched and unpacked into the cache.
# - Killed half-way the next run completes it: the stamp is written last. A filled cache costs nothing.
set -eu
cache=$1
stamp=$cache/stamp
wanted="qemu-system-x86 linux-image-amd64 kmod 1"
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0
say() { echo "vm: $*"; }

say "fetching an emulator and a kernel into $cache (once, about 120 MB)"
rm -rf "$cache"
mkdir -p "$cache/debs/partial" "$cache/host" "$cache/guest"
cd "$cache/debs"
apt-get -qq update
apt-get -qq -y install --download-only --no-install-recommends -o Dir::Cache::archives="$cache/debs" -o APT::Sandbox::User=root \
    qemu-system-x86 >/dev/null
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p')
for package in "$kernel" kmod seabios qemu-system-x86 qemu-system-common qemu-system-data; do
    ls "$package"_*.deb >/dev/null 2>&1 || apt-get -qq -o APT::Sandbox::User=root download "$package"
done
for deb in *.deb; do
    case $deb in
    linux-image-* | kmod_*) dpkg -x "$deb" "$cache/guest" ;;
    *) dpkg -x "$deb" "$cache/host" ;;
    esac
done
cd "$cache"
rm -rf debs
ln -s "$(ls guest/boot/vmlinuz-*)" vmlinuz
ln -s kmod guest/bin/depmod
guest/bin/depmod -b guest "$(ls guest/lib/modules)"
echo "$wanted" >"$stamp"
