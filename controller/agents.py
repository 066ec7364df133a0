"""Calls from a controller to the agents' own gRPC service: one channel a node, made when first needed.

Rules: the address is the one in the node's status; the server must show the certificate of exactly that node (target name
`NODE.node.shoal`). Every call has a deadline unless it follows something. A node that cannot be reached is a clear error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import grpc
from grpc import aio

from controller.loops.picture import Picture
from controller.pki import Pki
from model.errors import BadInput, Conflict, NotFound, ShoalError, Unavailable
from model.pki_names import node_server_name
from protos import node_pb2_grpc as rpc

T = TypeVar("T")
CALL_S: Final = 15.0
CHANNELS_MAX: Final = 256
AGAIN_S: Final = 2.5
"""How long a call waits for a connection that broke: an agent that is back is tried again every two seconds at the most."""
_ERRORS: Final[dict[grpc.StatusCode, type[ShoalError]]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: BadInput,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unavailable,
}


class Agents:
    """Close it with `close()`."""

    def __init__(self, picture: Picture, pki: Pki) -> None:
        self._picture = picture
        self._credentials = grpc.ssl_channel_credentials(pki.authority.pem, pki.controller.key, pki.controller.certificate)
        self._channels: dict[str, tuple[str, aio.Channel]] = {}

    def nodes(self) -> list[str]:
        """Nodes that have said where their agent listens and are not known to be gone, sorted."""
        snapshot = self._picture.snapshot()
        health = snapshot.of("health")
        return [
            name
            for name in sorted(snapshot.of("nodes"))
            if name in snapshot.of("status") and name in health and health[name].state != "down"
        ]

    async def stub(self, node: str) -> Any:
        """The agent's AgentStub. Raises NotFound, Unavailable."""
        snapshot = self._picture.snapshot()
        if node not in snapshot.of("nodes"):
            raise NotFound(f"node {node} is not in the cluster")
        health = snapshot.of("health").get(node)
        if health is not None and health.state == "down":
            raise Unavailable(f"node {node} is down, it cannot be asked: see `shoal explain {node}`")
        status = snapshot.of("status").get(node)
        if status is None or not status.info.address:
            raise Unavailable(f"node {node} has not reported yet")
        return rpc.AgentStub(await self._channel(node, status.info.address))

    async def _channel(self, node: str, address: str) -> aio.Channel:
        known = self._channels.pop(node, None)
        if known is not None and known[0] != address:
            await known[1].close()
            known = None
        if known is None:
            options = (
                ("grpc.ssl_target_name_override", node_server_name(node)),
                ("grpc.enable_http_proxy", 0),
                ("grpc.enable_retries", 0),
                ("grpc.keepalive_time_ms", 10_000),  # else what follows a node that is cut off waits for TCP to give up
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                ("grpc.max_receive_message_length", 64 * 1024 * 1024),
            )
            known = (address, aio.secure_channel(address, self._credentials, options=options))
        self._channels[node] = known  # newest last
        while len(self._channels) > CHANNELS_MAX:
            _, oldest = self._channels.pop(next(iter(self._channels)))
            await oldest.close()
        await _connected(known[1])
        return known[1]

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for _, channel in channels.values():
            await channel.close()

    async def call(self, node: str, method: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """One unary call. Raises NotFound, Unavailable, or what the agent said."""
        stub = await self.stub(node)
        try:
            return await getattr(stub, method)(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            raise error_of(node, error) from None

    async def stream(self, node: str, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """The answers of a streaming call; it ends when the iterator is closed."""
        stub = await self.stub(node)
        call = getattr(stub, method)(request)
        try:
            async for message in call:
                yield message
        except aio.AioRpcError as error:
            raise error_of(node, error) from None
        finally:
            call.cancel()

    async def first(self, nodes: Sequence[str], method: str, request: Any, timeout_s: float) -> tuple[str, Any]:
        """The first of the nodes that answers, and what; a refusal is an answer, too. Raises Unavailable when none does."""
        failure = Unavailable("no node is ready")
        for node in nodes:
            try:
                return node, await self.call(node, method, request, timeout_s)
            except Unavailable as error:
                failure = error
        raise failure

    async def everywhere(self, ask: Callable[[str], Awaitable[T]], nodes: list[str] | None = None) -> dict[str, T | ShoalError]:
        """`ask(node)` on all nodes at once, 32 at a time; a node's failure is its answer."""
        limit = asyncio.Semaphore(32)

        async def one(node: str) -> T | ShoalError:
            async with limit:
                try:
                    return await ask(node)
                except ShoalError as error:
                    return error

        names = self.nodes() if nodes is None else nodes
        return dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))


async def _connected(channel: aio.Channel) -> None:
    """Until a connection that was lost is there again; not for ever: the call itself says what is wrong."""
    if channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await channel.channel_ready()


def error_of(node: str, error: aio.AioRpcError) -> ShoalError:
    kind = _ERRORS.get(error.code(), ShoalError)
    details = (error.details() or error.code().name).split("\n")[0][:500]
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"node {node} cannot be reached: {details}")
    return kind(f"node {node}: {details}" if node not in details else details)
