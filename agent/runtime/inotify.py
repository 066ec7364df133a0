"""Watching directories through inotify, by ctypes: one descriptor for the whole agent.

Rules: a watch costs nothing while nothing happens. Callbacks run on the event loop with the name of the file that changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

MODIFY: Final = 0x002
MOVED_TO: Final = 0x080
CREATE: Final = 0x100
_CLOEXEC_NONBLOCK: Final = 0x80000 | 0x800
_HEAD: Final = struct.Struct("iIII")
_READ_BYTES: Final = 65536
_libc = ctypes.CDLL(None, use_errno=True)

Callback = Callable[[str], None]


class Inotify:
    """Made on a running event loop. `close` ends all watches."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(_CLOEXEC_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify (fs.inotify.max_user_instances)")
        self._callbacks: dict[int, Callback] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ready)

    def watch(self, directory: Path, mask: int, callback: Callback) -> int:
        """Begin, or change the mask and callback of, the watch of a directory. Raises OSError."""
        number: int = _libc.inotify_add_watch(self._fd, os.fsencode(directory), mask)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
        self._callbacks[number] = callback
        return number

    def unwatch(self, number: int) -> None:
        if self._callbacks.pop(number, None) is not None:
            _libc.inotify_rm_watch(self._fd, number)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._callbacks = {}

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, _READ_BYTES)
            offset = 0
            while offset < len(data):
                number, _, _, length = _HEAD.unpack_from(data, offset)
                name = data[offset + _HEAD.size : offset + _HEAD.size + length].rstrip(b"\0")
                offset += _HEAD.size + length
                callback = self._callbacks.get(number)
                if callback is not None:
                    callback(os.fsdecode(name))
