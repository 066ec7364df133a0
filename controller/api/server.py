"""uvicorn on the controller's loop: HTTPS, client certificates asked for but not demanded, the peer handed to the handlers.

Rules: TLS 1.2 at least; a certificate that is shown must be of the cluster's CA. The head of a request has a size limit and
must come in time, so that strangers who say nothing do not use up the connections.
Signals, logging and the loop belong to the controller, not to uvicorn.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from cryptography import x509
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controller.certificates import read_peer
from controller.pki import Pki

HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_S: Final = 15.0
CONNECTIONS_MAX: Final = 2_000


class PeerProtocol(HttpToolsProtocol):
    """Puts the client's certificate into the scope's state (also that of a websocket, which takes the state over)."""

    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    head_s = HEAD_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app_state = {**self.app_state, "peer": read_peer(x509.load_der_x509_certificate(der)) if der else None}
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.head_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def tls_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki.path("controller.pem"), pki.path("controller.key"))
    context.load_verify_locations(cadata=pki.authority.pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = (
        0  # nobody resumes; a client that reads them in one thread and writes in another may lose what it writes
    )
    return context


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiServer:
    """`serve()` as a task, until `stop()`. The listening socket is the caller's."""

    def __init__(self, app: ASGIApp, pki: Pki, listener: socket.socket, head_s: float = HEAD_S) -> None:
        protocol = type("TimedProtocol", (PeerProtocol,), {"head_s": head_s})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="websockets-sansio",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            limit_concurrency=CONNECTIONS_MAX,
            ws_max_size=1024 * 1024,
            ws_per_message_deflate=False,
            proxy_headers=False,
        )
        config.load()
        config.ssl = tls_context(pki)
        self._server = _Server(config)
        self._listener = listener

    async def serve(self) -> None:
        """Until `stop()`."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True
