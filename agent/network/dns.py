"""The name server of a node: one pair of sockets (UDP, TCP) on each network's gateway.

Rules: what is ours is answered at once (agent/network/answers.py); everything else goes to the asker's own resolvers or the
host's as it came, and their answer goes back as it came; who has no way out gets no such name. A question that cannot be read
is dropped. Nothing that is received raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.network.answers import Zones
from agent.network.forward import PORT, Forwarder, Quota, host_resolvers

log = logging.getLogger(__name__)
ANY_PORT_TRIES: Final = 20
BURST: Final = 32
"""Datagrams answered before others have their turn."""
RECEIVE_BYTES: Final = 1 << 20
FORWARDS_MAX, FORWARDS_EACH_MAX = 200, 100
CONNECTIONS_MAX, CONNECTIONS_EACH_MAX = 200, 50
TCP_IDLE_S: Final = 10.0


@dataclass(slots=True)
class _Sockets:
    gateway: str
    udp: socket.socket
    tcp: asyncio.Server


class NameServer:
    """`serve` the networks that are there; what is answered is in `zones`."""

    def __init__(
        self,
        resolvers: Callable[[], Sequence[str]] = host_resolvers,
        port: int = PORT,
        forwarder: Forwarder | None = None,
    ) -> None:
        self.zones = Zones()
        self._resolvers = resolvers
        self._port = port
        self._forwarder = forwarder or Forwarder()
        self._sockets: dict[str, _Sockets] = {}
        self._forwarding = Quota(FORWARDS_MAX, FORWARDS_EACH_MAX)
        self._connected = Quota(CONNECTIONS_MAX, CONNECTIONS_EACH_MAX)
        self._forwards: set[asyncio.Task[None]] = set()

    async def serve(self, gateways: Mapping[str, str]) -> None:
        """Listen on exactly these gateways: network -> address. A port that is taken is logged and tried at the next call."""
        for network in [name for name, row in self._sockets.items() if gateways.get(name) != row.gateway]:
            _close(self._sockets.pop(network))
        for network, gateway in gateways.items():
            if network in self._sockets:
                continue
            try:
                self._sockets[network] = await self._open(network, gateway)
            except OSError as error:
                log.error("names of network %s: %s:%d cannot be had: %s", network, gateway, self._port, error.strerror)

    async def close(self) -> None:
        for row in self._sockets.values():
            _close(row)
        self._sockets.clear()
        for task in list(self._forwards):
            task.cancel()
        await asyncio.gather(*self._forwards, return_exceptions=True)

    def port_of(self, network: str) -> int:
        """The UDP port a network is served on (for port 0)."""
        return self.address_of(network)[1]

    def address_of(self, network: str) -> tuple[str, int]:
        """Where a network is served."""
        host, port = self._sockets[network].udp.getsockname()[:2]
        return str(host), int(port)

    async def _open(self, network: str, gateway: str) -> _Sockets:
        loop = asyncio.get_running_loop()
        for last in (*[False] * (ANY_PORT_TRIES if not self._port else 0), True):
            udp = _bound(gateway, self._port)
            try:
                port = udp.getsockname()[1]
                tcp = await asyncio.start_server(lambda r, w: self._serve_tcp(network, r, w), gateway, port)
            except OSError:  # with port 0, TCP's port of that number may be somebody else's
                udp.close()
                if last:
                    raise
                continue
            loop.add_reader(udp, self._receive, network, udp)
            return _Sockets(gateway, udp, tcp)
        raise AssertionError("the last try returns or raises")

    # ---- UDP

    def _receive(self, network: str, channel: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, peer = channel.recvfrom(4096)
            except OSError:  # nothing more, or the last answer could not be delivered
                return
            self._take_datagram(network, data, peer, channel)

    def _take_datagram(self, network: str, data: bytes, peer: tuple[Any, ...], channel: socket.socket) -> None:
        try:
            answer = self.zones.answer(network, data, udp=True, source=peer[0])
        except ValueError:
            return
        if answer is not None:
            _send(channel, answer, peer)
        elif not self._forwarding.full(peer[0]):
            task = asyncio.ensure_future(self._forward_datagram(network, data, peer, channel))
            self._forwards.add(task)
            task.add_done_callback(self._forwards.discard)

    async def _forward_datagram(self, network: str, data: bytes, peer: tuple[Any, ...], channel: socket.socket) -> None:
        with self._forwarding.use(peer[0]):
            answer = await self._forward(network, data, peer[0], udp=True)
        if answer is not None:
            _send(channel, answer, peer)

    # ---- TCP

    async def _serve_tcp(self, network: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = (writer.get_extra_info("peername") or ("",))[0]
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, OSError, ValueError):
            if not self._connected.full(peer):
                with self._connected.use(peer):
                    await self._talk(network, peer, reader, writer)
        writer.close()

    async def _talk(self, network: str, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(TCP_IDLE_S):
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            answer = self.zones.answer(network, data, udp=False, source=peer)
            answer = answer if answer is not None else await self._forward(network, data, peer, udp=False)
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2, "big") + answer)
            async with asyncio.timeout(TCP_IDLE_S):
                await writer.drain()

    # ---- other names

    async def _forward(self, network: str, data: bytes, source: str, *, udp: bool) -> bytes | None:
        own = self.zones.way_out(network, source)
        resolvers = () if own is None else own or self._resolvers()
        answer = await self._forwarder.ask(resolvers, data, udp=udp)
        return answer if answer is not None else self.zones.refusal(data, nothing=not resolvers)


def _bound(address: str, port: int) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        channel.bind((address, port))
    except OSError:
        channel.close()
        raise
    return channel


def _close(row: _Sockets) -> None:
    asyncio.get_running_loop().remove_reader(row.udp)
    row.udp.close()
    row.tcp.close()


def _send(channel: socket.socket, answer: bytes, peer: tuple[Any, ...]) -> None:
    """An answer that cannot be sent is lost, as any datagram may be."""
    with contextlib.suppress(OSError):
        channel.sendto(answer, peer)
