"""Sessions over gRPC and mutual TLS: the server the agents dial, and one session's stream over it.

Rules: identity is what the certificate says that TLS has verified. Nothing is decided here.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc
from cryptography import x509
from grpc import aio

from controller.certificates import Peer, read_peer
from controller.dispatch.server import Dispatch
from controller.dispatch.stream import Refusal
from controller.pki import Pki
from model.errors import ShoalError
from protos import node_pb2 as pb

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CODES: Final = {
    Refusal.BAD_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.NOT_AUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Refusal.NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
Context = aio.ServicerContext[pb.FromNode, pb.ToNode | bytes]


class DispatchServer:
    """`await start(address)`, `await stop()`."""

    def __init__(self, dispatch: Dispatch, pki: Pki) -> None:
        self._dispatch = dispatch
        self._server = aio.server(options=OPTIONS)
        self._credentials = grpc.ssl_server_credentials(
            [(pki.controller.key, pki.controller.certificate)], pki.authority.pem, require_client_auth=True
        )

    async def start(self, address: str) -> int:
        """Listens; the port. Raises ShoalError when the address cannot be had."""
        handler = grpc.stream_stream_rpc_method_handler(self._session, pb.FromNode.FromString, _encoded)
        service = grpc.method_handlers_generic_handler("shoal.node.v1.Dispatch", {"Session": handler})
        self._server.add_generic_rpc_handlers((service,))
        try:
            port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise ShoalError(f"--dispatch {address}: it cannot be had: choose another address") from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        self._dispatch.shut()
        await self._server.stop(1.0)

    async def _session(self, _: Any, context: Context) -> None:
        await self._dispatch.session(_Stream(context))


class _Stream:
    """See controller.dispatch.stream.NodeStream."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.write = context.write

    async def identify(self) -> Peer | None:
        pem = next(iter(self._context.auth_context().get("x509_pem_cert", ())), b"")
        try:
            return read_peer(x509.load_pem_x509_certificate(pem))
        except ValueError:
            return None

    async def read(self) -> pb.FromNode | None:
        message: object = await self._context.read()
        return message if isinstance(message, pb.FromNode) else None

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        await self._context.abort(_CODES[why], text)

    def where(self) -> str:
        return str(self._context.peer())


def _encoded(message: pb.ToNode | bytes) -> bytes:
    """What many sessions are told alike comes encoded."""
    return message if isinstance(message, bytes) else message.SerializeToString()
