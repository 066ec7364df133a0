"""The name server of a node: one pair of sockets (UDP, TCP) on each network's gateway, so that a socket's network is its scope.

Rules: what is ours is answered from tables in memory; everything else goes to the host's resolvers as it came, and their answer
goes back as it came. A question that cannot be read is dropped. Answers live a second at most, since replicas come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from agent.plan.names import in_turn, is_address
from agent.plan.zone import Found, Zone, reversed_address

log = logging.getLogger(__name__)
PORT: Final = 53
TTL_S: Final = 1
PLAIN_UDP_BYTES: Final = 512
ANY_PORT_TRIES: Final = 20
FORWARD_S: Final = 2.0
FORWARDS_MAX: Final = 200
TCP_IDLE_S: Final = 10.0
_RESOLV_CONF: Final = Path("/etc/resolv.conf")


def host_resolvers(path: Path = _RESOLV_CONF) -> tuple[str, ...]:
    """The machine's own name servers."""
    with contextlib.suppress(OSError):
        rows = [line.split() for line in path.read_text(errors="replace").splitlines()]
        return tuple(row[1] for row in rows if len(row) > 1 and row[0] == "nameserver")
    return ()


class Zones:
    """The tables of every network and the answers made of them."""

    def __init__(self) -> None:
        self._zones: dict[str, Zone] = {}
        self._turn = 0

    def set(self, network: str, zone: Zone | None) -> None:
        if zone is None:
            self._zones.pop(network, None)
        else:
            self._zones[network] = zone

    def answer(self, network: str, question: bytes, udp: bool) -> bytes | None:
        """The answer on the wire; None when the question is not about our names. Raises ValueError for what is no question."""
        from dnslib import QTYPE, RCODE, RR, A, DNSError, DNSRecord
        from dnslib.dns import PTR

        try:
            asked = DNSRecord.parse(question)
        except (DNSError, ValueError, IndexError) as error:
            raise ValueError(f"not a DNS question: {error}") from error
        if asked.header.qr or len(asked.questions) != 1:
            raise ValueError("not a DNS question")
        name, kind = str(asked.q.qname), QTYPE.get(asked.q.qtype)
        zone = self._zones.get(network, Zone())
        reply = asked.reply(ra=1, aa=1)
        if kind == "PTR" and (replica := zone.name_of(reversed_address(name))):
            reply.add_answer(RR(name, QTYPE.PTR, rdata=PTR(replica), ttl=TTL_S))
            return self._packed(reply, asked, udp)
        found: Found | None = zone.find(name)
        if found is None:
            if is_address(name):
                reply.header.rcode = RCODE.NXDOMAIN
                return self._packed(reply, asked, udp)
            return None
        if kind in ("A", "ANY"):
            self._turn += 1
            for address in in_turn(found.addresses, self._turn):
                reply.add_answer(RR(name, QTYPE.A, rdata=A(address), ttl=TTL_S))
        return self._packed(reply, asked, udp)

    def refusal(self, question: bytes, *, nothing: bool) -> bytes:
        """NXDOMAIN (`nothing`: there is nobody else to ask) or SERVFAIL (nobody answered)."""
        from dnslib import RCODE, DNSRecord

        reply = DNSRecord.parse(question).reply(ra=1, aa=0)
        reply.header.rcode = RCODE.NXDOMAIN if nothing else RCODE.SERVFAIL
        return bytes(reply.pack())

    @staticmethod
    def _packed(reply: object, asked: object, udp: bool) -> bytes:
        """The reply, cut to what the asker takes by UDP; it asks again by TCP if it wants all."""
        from dnslib import DNSRecord

        assert isinstance(reply, DNSRecord)
        assert isinstance(asked, DNSRecord)
        data = bytes(reply.pack())
        sizes = [rr.rclass for rr in asked.ar if rr.rtype == 41]
        limit = max(PLAIN_UDP_BYTES, *sizes) if sizes else PLAIN_UDP_BYTES
        while udp and len(data) > limit and reply.rr:
            reply.rr = reply.rr[: len(reply.rr) * limit // len(data)]
            reply.header.tc = 1
            data = bytes(reply.pack())
        return data


@dataclass(slots=True)
class _Sockets:
    gateway: str
    udp: asyncio.DatagramTransport
    tcp: asyncio.Server


class NameServer:
    """`serve` the networks that are there; set their zones through `zones`."""

    def __init__(self, resolvers: Callable[[], Sequence[str]] = host_resolvers, port: int = PORT) -> None:
        self.zones = Zones()
        self._resolvers = resolvers
        self._port = port
        self._sockets: dict[str, _Sockets] = {}
        self._forwards: set[asyncio.Task[None]] = set()

    async def serve(self, gateways: Mapping[str, str]) -> None:
        """Listen on exactly these gateways: network -> address. A port that is taken is logged and tried at the next call."""
        for network in [name for name, row in self._sockets.items() if gateways.get(name) != row.gateway]:
            self._close(self._sockets.pop(network))
        for network, gateway in gateways.items():
            if network in self._sockets:
                continue
            try:
                self._sockets[network] = await self._open(network, gateway)
            except OSError as error:
                log.error("names of network %s: %s:%d cannot be had: %s", network, gateway, self._port, error.strerror)

    async def close(self) -> None:
        for row in self._sockets.values():
            self._close(row)
        self._sockets.clear()
        for task in list(self._forwards):
            task.cancel()

    def port_of(self, network: str) -> int:
        """The UDP port a network is served on (for port 0)."""
        return int(self._sockets[network].udp.get_extra_info("sockname")[1])

    async def _open(self, network: str, gateway: str) -> _Sockets:
        loop = asyncio.get_running_loop()
        for last in (*[False] * (ANY_PORT_TRIES if not self._port else 0), True):
            udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self, network), local_addr=(gateway, self._port))
            port = udp.get_extra_info("sockname")[1]
            try:
                tcp = await asyncio.start_server(lambda r, w: self._serve_tcp(network, r, w), gateway, port)
            except OSError:  # with port 0, TCP's port of that number may be somebody else's
                udp.close()
                if last:
                    raise
                continue
            return _Sockets(gateway, udp, tcp)
        raise AssertionError("the last try returns or raises")

    @staticmethod
    def _close(row: _Sockets) -> None:
        row.udp.close()
        row.tcp.close()

    def take_datagram(self, network: str, data: bytes, peer: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        try:
            answer = self.zones.answer(network, data, udp=True)
        except ValueError:
            return
        if answer is not None:
            transport.sendto(answer, peer)
        elif len(self._forwards) < FORWARDS_MAX:
            task = asyncio.ensure_future(self._forward_datagram(data, peer, transport))
            self._forwards.add(task)
            task.add_done_callback(self._forwards.discard)

    async def _forward_datagram(self, data: bytes, peer: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        answer = await self._forward(data, udp=True)
        if not transport.is_closing():
            transport.sendto(answer, peer)

    async def _serve_tcp(self, network: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError, ValueError):
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                answer = self.zones.answer(network, data, udp=False)
                answer = answer if answer is not None else await self._forward(data, udp=False)
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()

    async def _forward(self, data: bytes, *, udp: bool) -> bytes:
        """The first resolver's answer that comes."""
        resolvers = self._resolvers()
        for resolver in resolvers:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(FORWARD_S):
                    return await (_ask_udp(resolver, data) if udp else _ask_tcp(resolver, data))
        return self.zones.refusal(data, nothing=not resolvers)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer, network: str) -> None:
        self._server = server
        self._network = network
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._server.take_datagram(self._network, data, addr, self._transport)


async def _ask_udp(resolver: str, data: bytes) -> bytes:
    host, port = _target(resolver)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        await loop.sock_connect(channel, (host, port))
        await loop.sock_sendall(channel, data)
        while True:
            answer = await loop.sock_recv(channel, 65_535)
            if answer[:2] == data[:2]:
                return answer


async def _ask_tcp(resolver: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*_target(resolver))
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


def _target(resolver: str) -> tuple[str, int]:
    """`192.0.2.1` or, for tests, `127.0.0.1#5353`."""
    host, _, port = resolver.partition("#")
    return host, int(port or PORT)
