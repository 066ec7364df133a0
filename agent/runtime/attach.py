"""Attaching to a container's own stdin and outputs through conmon's socket.

Rules: conmon sends packets whose first byte names the stream and takes raw bytes for stdin. What it sends begins when it
accepts, and nothing says where in the output that is: so outputs are read from the log, whole and once, and from the socket
only where no log is kept. Several may attach. Letting go never ends a container, but ends the input of one without terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final

from agent.plan.container import LogLine
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
    """See agent.runtime.port.Session. `written`: what the container writes by its log; None: it keeps none."""

    def __init__(
        self,
        connection: socket.socket,
        control: str,
        process: Process | None,
        ended: Callable[[], Awaitable[int]],
        written: AsyncGenerator[LogLine, None] | None,
    ) -> None:
        self._connection, self._control, self._process, self._ended = connection, control, process, ended
        self._written = written
        if written is not None:
            asyncio.get_running_loop().add_reader(connection.fileno(), self._discard)

    async def output(self) -> AsyncIterator[tuple[Name, bytes]]:
        if self._written is not None:
            async for line in self._written:
                yield ("stderr" if line.stream == "stderr" else "stdout"), line.line
            return
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

    def _discard(self) -> None:
        """conmon lets go of whoever does not read."""
        try:
            while self._connection.recv(_PACKET_BYTES):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        asyncio.get_running_loop().remove_reader(self._connection.fileno())

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
        if self._written is not None:
            await self._written.aclose()
        if self._connection.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()


async def begin(
    paths: Paths,
    state: State,
    process: Process | None,
    ended: Callable[[], Awaitable[int]],
    written: AsyncGenerator[LogLine, None] | None,
) -> AttachSession:
    """Connect. Raises Unavailable when the container's conmon is gone."""
    handle = os.open(paths.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)  # before: a conmon that accepts nobody must not stop the agent
        connection.connect(f"/proc/self/fd/{handle}/attach")
    except OSError as error:
        connection.close()
        raise Unavailable(f"cannot attach to {state.name}: its monitor does not answer ({error.strerror})") from None
    finally:
        os.close(handle)
    return AttachSession(connection, str(paths.directory / "ctl"), process, ended, written)
