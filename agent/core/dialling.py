"""A session's stream over gRPC and mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
from grpc import aio

from agent.core.stream import ControllerStream, Dial, StreamBroken
from agent.core.tls import NodePki
from model.pki_names import CONTROLLER_SERVER_NAME
from protos import node_pb2 as pb
from protos import node_pb2_grpc

MESSAGE_BYTES_MAX: Final = 64 << 20
_OPTIONS: Final = (
    ("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def dialling(pki: NodePki) -> Dial:
    """A channel for each stream: what is broken is never tried again over an old connection."""
    credentials = pki.client()

    @asynccontextmanager
    async def dial(address: str) -> AsyncIterator[ControllerStream]:
        async with aio.secure_channel(address, credentials, options=_OPTIONS) as channel:
            call = node_pb2_grpc.DispatchStub(channel).Session()
            try:
                yield _Stream(call)
            finally:
                call.cancel()

    return dial


class _Stream:
    def __init__(self, call: aio.StreamStreamCall[pb.FromNode, pb.ToNode]) -> None:
        self._call = call

    async def write(self, message: pb.FromNode) -> None:
        try:
            await self._call.write(message)
        except (aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError) as error:
            raise _broken(error) from error

    async def read(self) -> pb.ToNode | None:
        try:
            message: object = await self._call.read()
        except (aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError) as error:
            raise _broken(error) from error
        return message if isinstance(message, pb.ToNode) else None


def _broken(error: Exception) -> StreamBroken:
    return StreamBroken(_why(error) if isinstance(error, aio.AioRpcError) else f"broken off ({error})")


def _why(error: aio.AioRpcError) -> str:
    details = error.details() or ""
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        hint = ": is its certificate signed by another CA?" if "SSL" in details or "handshake" in details.lower() else ""
        return f"cannot be reached ({details.splitlines()[0][:160] if details else 'no details'}){hint}"
    return f"{error.code().name.lower()}: {details[:200]}"
