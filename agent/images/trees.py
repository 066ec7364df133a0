"""Deleting directories that strangers filled.

Rules: no path is followed by name twice: every step is openat2 from a directory that is already open. Deleting never
crosses a mount point, bind mounts of the same device included, and needs few descriptors however deep the tree is.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import struct
from pathlib import Path

from model.errors import ImageError

_SYS_OPENAT2 = 437
BENEATH = 0x08 | 0x04
"""RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS."""
NO_XDEV = 0x01
"""RESOLVENO_XDEV: no mount point is crossed."""
_OPEN_MAX = 64
_TRIES = 100
_counter = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def openat2(directory_fd: int, path: str, flags: int, resolve: int) -> int:
    """The system call of that name; raises OSError."""
    how = ctypes.create_string_buffer(struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve), 24)
    while True:
        fd: int = _libc.syscall(_SYS_OPENAT2, directory_fd, ctypes.c_char_p(os.fsencode(path)), how, 24)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):
            raise OSError(number, os.strerror(number), path)


def open_regular(directory_fd: int, path: str, resolve: int) -> int:
    """A regular file, to be read; raises OSError for everything else. Only looked at before it is opened: opening a device
    (which a container may make) does something already, a watchdog's restarts the machine."""
    seen = openat2(directory_fd, path, os.O_PATH, resolve)
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(seen)


def remove_tree(path: Path) -> None:
    """Delete a directory with all it holds; a missing one is fine.

    Raises ImageError, having deleted only part of it, when something is mounted below.
    """
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, path.name)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EBUSY):
            raise ImageError(f"{path}: something is still mounted below it ({error.filename}): not deleted") from None
        raise
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """`way` is the way down: (open directory, its name, directories in it still to be removed)."""
    way, tries = [_Level(parent, name)], _TRIES
    try:
        while way:
            level = way[-1]
            if not level.left:
                way.pop().close()
                above = way[-1].fd if way else parent
                try:
                    os.rmdir(level.name, dir_fd=above)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not tries:
                        raise
                    tries -= 1  # somebody wrote there meanwhile, such as a monitor that notes an end
                    way.append(_Level(above, level.name))
            elif len(way) < _OPEN_MAX:
                way.append(_Level(level.fd, level.left.pop()))
            else:  # a stranger's tree may be 100,000 deep: bring the rest up to the top
                deep, up = level.left.pop(), f".shoal-deep-{next(_counter)}"
                os.rename(deep, up, src_dir_fd=level.fd, dst_dir_fd=way[0].fd)
                way[0].left.append(up)
    finally:
        for level in way:
            level.close()


class _Level:
    """A directory on the way down; opening it unlinks everything in it but directories that are not empty."""

    def __init__(self, parent: int, name: str) -> None:
        self.name = name
        self.left: list[str] = []
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        self.fd = openat2(parent, name, flags, BENEATH | NO_XDEV)
        try:
            self._unlink_files()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)

    def _unlink_files(self) -> None:
        with os.scandir(self.fd) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=self.fd)
                    continue
                try:
                    os.rmdir(entry.name, dir_fd=self.fd)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    self.left.append(entry.name)
