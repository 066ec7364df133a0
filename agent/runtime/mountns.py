"""The agent's own view of the mounts, so that crun works on a machine with a hybrid cgroup tree.

Rules: called once, at the start, before any thread exists (grpc makes some). Only /sys/fs/cgroup becomes private: all other
mounts are shared with where the agent was started, so that the next agent sees the roots and namespaces this one mounted.
Directories that hold such mounts are made shared mount points of their own where their file system is not shared already.
Nothing happens on machines with pure cgroup v1 or v2.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model.errors import RuntimeFailed

_CGROUP: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = _CGROUP / "unified"
_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_mounts(shared: Sequence[Path] = ()) -> bool:
    """Hide the hybrid tree's cgroup2 from this process and its children; False when there is nothing to hide.

    `shared`: directories (made when missing) below which this agent mounts things that must outlive it.
    """
    if (_CGROUP / "cgroup.controllers").exists() or not _UNIFIED.is_dir():
        return False
    for directory in shared:
        directory.mkdir(parents=True, exist_ok=True)
        _share(directory)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(b"none", _CGROUP, None, _MS_REC | _MS_PRIVATE, None)
    if (_UNIFIED / "cgroup.procs").exists():
        _check(_libc.umount2(os.fsencode(_UNIFIED), 0), f"unmount {_UNIFIED}")
    # crun makes plain directories here for its `0::` line: they must land in a file system of our own.
    _mount(b"none", _UNIFIED, b"tmpfs", 0, b"mode=755,size=1m")
    return True


def become_subreaper() -> None:
    """Orphans of killed monitors become children of this process, which then learns their exit codes."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def _share(directory: Path) -> None:
    """Make it a shared mount point unless it stands on a shared mount already."""
    if _propagation(directory).startswith("shared:"):
        return
    path = directory.resolve()
    if not os.path.ismount(path):
        _mount(os.fsencode(path), path, None, _MS_BIND, None)
    _mount(b"none", path, None, _MS_SHARED, None)


def _propagation(directory: Path) -> str:
    """The propagation of the mount that `directory` is on, as mountinfo writes it; empty for a private one."""
    path, found = str(directory.resolve()), ("", "")
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split()
        point = fields[4].encode("latin-1", "surrogateescape").decode("unicode_escape") if "\\" in fields[4] else fields[4]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = point, next((field for field in fields[6:] if field.startswith("shared:")), "")
    return found[1]


def _mount(source: bytes, target: Path, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _check(_libc.mount(source, os.fsencode(target), kind, flags, data), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise RuntimeFailed(f"cannot set up the agent's mounts: {what}: {os.strerror(ctypes.get_errno())} (is it root?)")
