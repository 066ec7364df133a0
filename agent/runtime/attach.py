"""Attaching to a container's own stdin and outputs through conmon's socket.

Rules: conmon sends packets whose first byte names the stream and takes raw bytes for stdin. Several may attach; everyone
sees the outputs from then on. Letting go never touches the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from agent.runtime.bundle import Paths, State
from agent.runtime.monitor import Process
from agent.runtime.spawn import readable
from agent.runtime.streams import Name
from model.errors import Unavailable

_PACKET_BYTES: Final = 8192 + 1
_CHUNK_BYTES: Final = 8192
_STREAMS: Final[dict[int, Name]] = {2: "stdout", 3: "stderr"}
_RESIZE: Final = 1


class AttachSession:
    """See agent.runtime.port.Session."""

    def __init__(
        self, connection: socket.socket, control: str, process: Process | None, ended: Callable[[], Awaitable[int]]
    ) -> None:
        self._connection, self._control, self._process, self._ended = connection, control, process, ended

    async def output(self) -> AsyncIterator[tuple[Name, bytes]]:
        while self._connection.fileno() >= 0:
            try:
                packet = self._connection.recv(_PACKET_BYTES)
            except BlockingIOError:
                await readable(self._connection.fileno())
                continue
            except ConnectionError:
                return
            if not packet:
                return
            name = _STREAMS.get(packet[0])
            if name is not None and len(packet) > 1:
                yield name, packet[1:]

    async def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), _CHUNK_BYTES):
            with contextlib.suppress(OSError):
                await loop.sock_sendall(self._connection, data[start : start + _CHUNK_BYTES])

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, f"{_RESIZE} {rows} {columns}\n".encode())
            finally:
                os.close(fd)

    async def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.signal(number)

    async def wait(self) -> int:
        return await self._ended()

    async def close(self) -> None:
        self._connection.close()


async def begin(paths: Paths, state: State, process: Process | None, ended: Callable[[], Awaitable[int]]) -> AttachSession:
    """Connect. Raises Unavailable when the container's conmon is gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    handle = os.open(paths.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{handle}/attach")
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise Unavailable(f"cannot attach to {state.name}: its monitor does not answer ({error.strerror})") from None
    finally:
        os.close(handle)
    return AttachSession(connection, str(paths.directory / "ctl"), process, ended)
