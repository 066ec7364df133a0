"""The bytes in and out of a process, with back-pressure: nothing is read before somebody asks, writing waits.

Rules: descriptors are non-blocking and belong to the Streams object, which closes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from typing import Final, Literal

from agent.runtime.spawn import readable, writable

_READ_BYTES: Final = 65536
_ENDED: Final = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN)
Name = Literal["stdout", "stderr"]


class Streams:
    """`outputs`: descriptor -> name. `stdin` -1: none. With a terminal one descriptor is both, and `terminal` is true."""

    def __init__(self, outputs: Mapping[int, Name], stdin: int = -1, *, terminal: bool = False) -> None:
        self._outputs = dict(outputs)
        self._stdin = stdin
        self._terminal = terminal
        for fd in {*self._outputs, stdin} - {-1}:
            os.set_blocking(fd, False)

    async def read(self) -> AsyncIterator[tuple[Name, bytes]]:
        """Until all outputs have ended."""
        while self._outputs:
            for fd, name in list(self._outputs.items()):
                try:
                    data = os.read(fd, _READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:  # EIO: the last user of the terminal is gone
                    if error.errno not in _ENDED:
                        raise
                    data = b""
                if data:
                    yield name, data
                    break
                self._end_output(fd)
            else:
                if self._outputs:
                    await readable(*self._outputs)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin >= 0:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await writable(self._stdin)
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
                return

    async def close_stdin(self) -> None:
        """On a terminal the end of input is a character."""
        if self._terminal:
            await self.write(b"\x04")
        elif self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal and self._stdin >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        for fd in {*self._outputs, self._stdin} - {-1}:
            os.close(fd)
        self._outputs, self._stdin = {}, -1

    def _end_output(self, fd: int) -> None:
        self._outputs.pop(fd, None)
        if fd != self._stdin:
            os.close(fd)
