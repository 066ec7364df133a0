"""A light agent's connection: gRPC over mutual TLS as the agent's library speaks it, by hand. That library takes more of the
processors for a message than the controller under test; tests/contract holds the controller against it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from controller.dispatch.hpack import literal
from controller.dispatch.http2 import PREFACE, Connection, Http2Error, Stream, frame
from controller.dispatch.tls_link import Link, Links
from model.pki_names import CONTROLLER_SERVER_NAME

_HEADERS, _END_HEADERS, _WINDOW_FIRST = 1, 4, 65_535
_POST_HTTPS: Final = b"\x83\x87"
_REST: Final = literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")


def context_of(ca: str, certificate: str) -> ssl.SSLContext:
    """`certificate`: a file with the node's certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2"])
    return context


class _Client(Connection):
    """The other side of the connection, with one call on it."""

    __slots__ = ("call",)

    def __init__(self, path: str, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._greeted, self._last = True, 1
        self.call = self.streams[1] = Stream(1, path, _WINDOW_FIRST)
        self.call.answered = True
        block = _POST_HTTPS + literal(b":path", path.encode()) + literal(b":authority", CONTROLLER_SERVER_NAME.encode()) + _REST
        self.out = [PREFACE, *self.out, frame(_HEADERS, _END_HEADERS, 1, block)]


class Line(Link):
    """`heard(message)` for each message that comes; `shaking` when hands are shaken or never will be; `over` when it has ended,
    whoever ended it."""

    __slots__ = ("_heard", "_http2", "over", "shaking")

    def __init__(self, wrapped: ssl.SSLSocket, links: Links, path: str, heard: Callable[[bytes], None]) -> None:
        self._http2 = _Client(path, 64 << 20)
        self._heard = heard
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        self.shaking: asyncio.Future[None] = loop.create_future()
        super().__init__(wrapped, links)
        self.readable()

    def say(self, message: bytes) -> None:
        self._http2.send(self._http2.call, message)
        self._flush()

    def opened(self) -> None:
        self.shaking.set_result(None)
        self._flush()

    def received(self, data: bytes) -> None:
        call = self._http2.call
        try:
            self._http2.receive(data)
            while (message := self._http2.next(call)) is not None:
                self._heard(message)
        except Http2Error:
            self.close()
        if call.ended or call.broken:
            self.close()
        self._flush()

    def lost(self) -> None:
        for future in (self.shaking, self.over):
            if not future.done():
                future.set_result(None)

    def _flush(self) -> None:
        if self._http2.out and self.shaken:
            self.send(b"".join(self._http2.out))
            self._http2.out.clear()


async def dial(address: str, context: ssl.SSLContext, links: Links, path: str, heard: Callable[[bytes], None]) -> Line:
    """Raises OSError."""
    host, _, port = address.rpartition(":")
    plain = socket.socket()
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
        wrapped = context.wrap_socket(plain, server_hostname=CONTROLLER_SERVER_NAME, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    return Line(wrapped, links, path, heard)
