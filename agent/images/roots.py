"""Is this container root safe to hand to the OCI runtime?

Rules: what the runtime mounts over must be real directories: a /dev that is a link made runc 1.1.5 write to the host,
and a working directory below /proc (`/proc/self/fd/9`) opened the host through crun 1.8.1. Paths are resolved inside the
root as the container would see them, by reading links here, never by following them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from agent.images.trees import BENEATH, open_regular, openat2
from model.errors import ImageError

_KERNEL_DIRECTORIES = ("/proc", "/sys", "/dev")
_LINKS_MAX = 40


def check_root(target: Path, mount_targets: Iterable[str] = (), working_dir: str = "/") -> tuple[str, ...]:
    """Where each of `mount_targets` really lies inside the root `target`, in order: give these to the runtime.

    Raises ImageError: a kernel directory that is no real directory, a mount onto or below /proc or /sys or onto the root
    itself, a working directory below /proc.
    """
    for path in _KERNEL_DIRECTORIES:
        kind = _kind(target, path)
        if kind is not None and not stat.S_ISDIR(kind):
            raise ImageError(f"image refused: its {path} is not a directory (a {_word(kind)})")
    if not working_dir.startswith("/"):
        raise ImageError(f"working directory {working_dir!r} is not absolute")
    if _is_below(resolve_in_root(target, working_dir), "/proc"):
        raise ImageError(f"working directory {working_dir!r} is refused: it lies below /proc")
    return tuple(_mount_target(target, path) for path in mount_targets)


def resolve_in_root(root: Path, path: str) -> str:
    """`path` without links, as a process whose root is `root` would find it; what does not exist is kept as written."""
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    done: list[str] = []
    links = 0
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            link = _read_link(root_fd, "/".join([*done, part]), path)
            if link is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise ImageError(f"path {path!r} in the image: too many links")
            if link.startswith("/"):
                done = []
            todo += [piece for piece in reversed(link.split("/")) if piece not in ("", ".")]
    finally:
        os.close(root_fd)
    return "/" + "/".join(done)


def read_in_root(root: Path, path: str, bytes_max: int = 1 << 20) -> bytes | None:
    """The start of a regular file inside a root (`/etc/passwd`), or None when there is none."""
    found = resolve_in_root(root, path)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = open_regular(root_fd, found.lstrip("/"), BENEATH)
    except OSError:
        return None
    finally:
        os.close(root_fd)
    try:
        return os.pread(fd, bytes_max, 0)
    finally:
        os.close(fd)


def _mount_target(root: Path, path: str) -> str:
    if not path.startswith("/"):
        raise ImageError(f"mount target {path!r} is not absolute")
    found = resolve_in_root(root, path)
    if found == "/" or _is_below(found, "/proc") or _is_below(found, "/sys"):
        raise ImageError(f"mount target {path!r} is refused: it lies at {found}")
    return found


def _read_link(root_fd: int, path: str, shown: str) -> str | None:
    """The link's text, or None for everything else, missing things included."""
    try:
        fd = openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW, BENEATH)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "a part of it is a file" if error.errno == errno.ENOTDIR else error.strerror
        raise ImageError(f"path {shown!r} in the image: {reason}") from None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _kind(root: Path, path: str) -> int | None:
    try:
        return os.lstat(root / path.lstrip("/")).st_mode
    except FileNotFoundError:
        return None


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _word(mode: int) -> str:
    return "link" if stat.S_ISLNK(mode) else "file" if stat.S_ISREG(mode) else "special file"
