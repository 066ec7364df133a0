"""Sessions over gRPC and mutual TLS: the server the agents dial, and one session's stream over it.

Rules: identity is what the certificate says that TLS has verified. Nothing is decided here. gRPC's own server takes 93 kB for
each connection and a tenth of a millisecond for each message (decision 11): this one speaks as much of gRPC as a session needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Final, NoReturn

from cryptography import x509

from controller.certificates import Peer, read_peer
from controller.dispatch.http2 import Connection, Http2Error, Stream
from controller.dispatch.server import Dispatch
from controller.dispatch.stream import Refusal
from controller.dispatch.tls_link import Link, Links, Listener, context_of, taken_in
from controller.pki import Pki
from protos import node_pb2 as pb

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
STOP_S: Final = 1.0
PATH: Final = "/shoal.node.v1.Dispatch/Session"
_OK, _UNIMPLEMENTED, _INTERNAL = 0, 12, 13
_CODES: Final = {
    Refusal.BAD_MESSAGE: 3,
    Refusal.NOT_ALLOWED: 7,
    Refusal.UNAVAILABLE: 14,
    Refusal.NOT_AUTHENTICATED: 16,
}
"""As gRPC numbers them."""


class DispatchServer:
    """`start(listener)`, `await stop()`."""

    def __init__(self, dispatch: Dispatch, pki: Pki) -> None:
        self.dispatch = dispatch
        self._context = context_of(pki)
        self._links = Links()
        dispatch.read_until = self._links.read_until
        self._listener: Listener | None = None
        self._wires: set[_Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    def start(self, listener: socket.socket) -> int:
        """Takes connections from now on, once; the port. The socket listens already; `stop` closes it."""
        self._listener = Listener(listener, self._links, self._take)
        port: int = listener.getsockname()[1]
        return port

    async def stop(self) -> None:
        """Everybody is told where to go. Doing it twice is doing it once."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        self.dispatch.shut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in list(self._wires):
            wire.leave()
        if self._wires:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._empty.wait()
        for wire in list(self._wires):
            wire.close()
        self._links.close()

    def _take(self, plain: socket.socket) -> None:
        self._wires.add(_Wire(taken_in(plain, self._context), self._links, self))

    def serve(self, call: _Call) -> asyncio.Task[None]:
        """The session, for as long as it lasts."""
        task = asyncio.ensure_future(self._serve(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def gone(self, wire: _Wire) -> None:
        self._wires.discard(wire)
        if not self._wires:
            self._empty.set()

    async def _serve(self, call: _Call) -> None:
        try:
            if call.path != PATH:
                raise _Refused(_UNIMPLEMENTED, f"there is no {call.path[:80]} here")
            await self.dispatch.session(call)
            call.finish(_OK)
        except _Refused as error:
            call.finish(error.code, str(error))
        except ConnectionError:
            pass  # the other side is gone: nobody is left to be told
        except Exception as error:
            log.exception("a session of %s has failed", call.where())
            call.finish(_INTERNAL, type(error).__name__)
        finally:
            call.over()


class _Refused(Exception):
    """Ends a session with the reason. `code`: gRPC's number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Wire(Link):
    """One connection; its streams are calls."""

    __slots__ = ("_calls", "_http2", "_server")

    def __init__(self, wrapped: ssl.SSLSocket, links: Links, server: DispatchServer) -> None:
        self._server = server
        self._http2 = Connection(MESSAGE_BYTES_MAX)
        self._calls: dict[int, _Call] = {}
        super().__init__(wrapped, links)

    def opened(self) -> None:
        self.flush()

    def received(self, data: bytes) -> None:
        try:
            touched = self._http2.receive(data)
        except Http2Error as error:
            log.warning("%s is cut off: %s", self.where(), error)
            self.flush()
            self.close()
            return
        for stream in touched:
            call = self._calls.get(stream.number)
            if call is None:
                call = self._calls[stream.number] = _Call(self, stream)
                call.task = self._server.serve(call)
            call.look()
        self.flush()

    def drained(self) -> None:
        for call in list(self._calls.values()):
            call.look()

    def lost(self) -> None:
        for call in list(self._calls.values()):
            call.stream.broken = True
            call.look()
        self._server.gone(self)

    def next(self, stream: Stream) -> bytes | None:
        message = self._http2.next(stream)
        self.flush()
        return message

    def write(self, stream: Stream, message: bytes) -> None:
        self._http2.send(stream, message)
        self.flush()

    def finish(self, stream: Stream, code: int, text: str) -> None:
        self._http2.finish(stream, code, text)
        self.flush()

    def forget(self, stream: Stream) -> None:
        self._calls.pop(stream.number, None)

    def leave(self) -> None:
        self._http2.leave()
        self.flush()
        self.end()

    def flush(self) -> None:
        out = self._http2.out
        if out:
            self.send(b"".join(out))
            out.clear()


class _Call:
    """One session's stream; see controller.dispatch.stream.NodeStream."""

    __slots__ = ("_reading", "_wire", "_writing", "stream", "task")

    def __init__(self, wire: _Wire, stream: Stream) -> None:
        self._wire = wire
        self.stream = stream
        self.task: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    @property
    def path(self) -> str:
        return self.stream.path

    def look(self) -> None:
        """Something is new: whoever waits for it goes on."""
        stream = self.stream
        if stream.broken:
            if self.task is not None:
                self.task.cancel()
            return
        if self._reading is not None and (stream.messages or stream.ended):
            _wake(self._reading)
            self._reading = None
        if self._writing is not None and self._wire.quiet and not stream.unsent:
            _wake(self._writing)
            self._writing = None

    async def identify(self) -> Peer | None:
        try:
            return read_peer(x509.load_der_x509_certificate(self._wire.certificate()))
        except ValueError:
            return None

    async def read(self) -> pb.FromNode | None:
        while True:
            data = self._wire.next(self.stream)
            if data is not None:
                return pb.FromNode.FromString(data)
            if self.stream.ended:
                return None
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading

    async def write(self, message: pb.ToNode | bytes) -> None:
        stream, wire = self.stream, self._wire
        if stream.broken:
            raise ConnectionResetError("the node is gone")
        wire.write(stream, message if isinstance(message, bytes) else message.SerializeToString())
        if stream.unsent or not wire.quiet:
            self._writing = asyncio.get_running_loop().create_future()
            await self._writing

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        raise _Refused(_CODES[why], text)

    def finish(self, code: int, text: str = "") -> None:
        self._wire.finish(self.stream, code, text)

    def over(self) -> None:
        """Nobody looks at it any more."""
        self._wire.forget(self.stream)

    def where(self) -> str:
        return self._wire.where()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
