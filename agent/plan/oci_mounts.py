"""`mounts` of an OCI config: kernel file systems, /etc files, the spec's mounts, in the order they are to be made.

Rules: pure. A mount of the spec replaces a default with the same target. Parents come before children. Bind mounts are private
unless said otherwise, so that nothing mounted in a container shows up on the node.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, Final

from agent.plan.container import ContainerOrder, HostMount
from model.errors import RuntimeFailed

if TYPE_CHECKING:
    from agent.plan.oci import BundlePlace, HostFacts, RootFacts

_SHM_BYTES: Final = 64 << 20
_PROPAGATIONS: Final = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_TMPFS_OPTIONS: Final = ("nosuid", "nodev", "noexec")

Row = dict[str, Any]


def mounts(order: ContainerOrder, facts: HostFacts, place: BundlePlace, root: RootFacts) -> list[Row]:
    targets = root.mount_targets or tuple(mount.target for mount in order.mounts)
    own = [_own(mount, posixpath.normpath(target)) for mount, target in zip(order.mounts, targets, strict=True)]
    taken = {row["destination"] for row in own}
    kernel = [row for row in _kernel(order, facts) if row["destination"] not in taken]
    files = [row for row in _files(order, facts, place) if row["destination"] not in taken]
    # Stable: what is written first stays first among equals.
    return [*kernel, *sorted([*files, *own], key=lambda row: len(row["destination"].split("/")))]


def _kernel(order: ContainerOrder, facts: HostFacts) -> list[Row]:
    spec = order.spec
    read_only = [] if spec.privileged else ["ro"]
    found = [
        _row("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _row("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _row("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ]
    if spec.ipc_mode == "host":
        found.append(_bind("/dev/shm", "/dev/shm"))
    else:
        size = spec.shm_size_bytes or _SHM_BYTES
        found.append(_row("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={size}"))
    found.append(_row("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"))
    if order.netns == "host":  # sysfs belongs to a network namespace: a fresh one of the node's is refused by the kernel
        found.append(_row("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "rslave", *read_only))
    else:
        found.append(_row("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", *read_only))
    found.append(_row("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", *read_only))
    return found


def _files(order: ContainerOrder, facts: HostFacts, place: BundlePlace) -> list[Row]:
    found = [
        _bind(place.hosts, "/etc/hosts"),
        _bind(place.hostname, "/etc/hostname"),
        _bind(place.resolv_conf, "/etc/resolv.conf"),
    ]
    if order.spec.init and facts.init:
        found.append(_row("/dev/init", "bind", facts.init, "bind", "rprivate", "ro"))
    return found


def _own(mount: HostMount, target: str) -> Row:
    if not target.startswith("/") or target == "/":
        raise RuntimeFailed(f"mount target {mount.target!r}: expected an absolute path other than /", permanent=True)
    if not mount.source:
        return _tmpfs(mount, target)
    propagation = mount.propagation or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise RuntimeFailed(f"mount {mount.target}: unknown propagation {propagation!r}", permanent=True)
    return _row(target, "bind", mount.source, "rbind", propagation, *(("ro",) if mount.read_only else ("rw",)))


def _tmpfs(mount: HostMount, target: str) -> Row:
    options = [*_TMPFS_OPTIONS, f"mode={0o1777 if mount.tmpfs_mode is None else mount.tmpfs_mode:o}"]
    if mount.tmpfs_size_bytes:
        options.append(f"size={mount.tmpfs_size_bytes}")
    if mount.read_only:
        options.append("ro")
    return _row(target, "tmpfs", "tmpfs", *options)


def _bind(source: str, target: str) -> Row:
    return _row(target, "bind", source, "rbind", "rprivate")


def _row(target: str, kind: str, source: str, *options: str) -> Row:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}
