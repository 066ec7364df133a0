"""Parts of volumes, held fast before the OCI runtime mounts them.

Rules: a container that writes to a volume may turn a directory of it into a link while another container that mounts that
directory is being made; the runtime, which takes a path, would follow it to the host. So the directory is opened by the kernel
beneath the volume, and what was opened is bind-mounted in the bundle: the runtime gets that path, which nobody can change.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.images.overlay import unmount
from agent.images.trees import openat2
from agent.plan.container import HostMount
from model.errors import RuntimeFailed

_BENEATH: Final = 0x08 | 0x02
"""RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS: links that stay inside are fine."""
_MS_BIND, _MS_REC = 0x1000, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)


def pinned(mounts: tuple[HostMount, ...], folder: Path) -> tuple[HostMount, ...]:
    """The same mounts, those of a part of a volume with a source below `folder`. Raises RuntimeFailed."""
    return tuple(
        replace(mount, source=_pin(mount, folder / str(number)), subpath="") if mount.subpath else mount
        for number, mount in enumerate(mounts)
    )


def release(folder: Path) -> None:
    """Take the mounts away; what they stood on goes with the bundle."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            unmount(path)


def _pin(mount: HostMount, point: Path) -> str:
    point.mkdir(parents=True, mode=0o700)
    volume = os.open(mount.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = openat2(volume, mount.subpath.strip("/"), os.O_PATH | os.O_DIRECTORY, _BENEATH)
    except OSError as error:
        raise RuntimeFailed(
            f"cannot start: subpath {mount.subpath!r} of the volume on {mount.target}: {error.strerror}", permanent=True
        ) from None
    finally:
        os.close(volume)
    try:
        if _libc.mount(f"/proc/self/fd/{part}".encode(), os.fsencode(point), None, _MS_BIND | _MS_REC, None) != 0:
            raise RuntimeFailed(f"cannot start: subpath {mount.subpath!r}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(part)
    return str(point)
