"""The name server over real sockets on loopback, asked by dnslib."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from agent.network.dns import NameServer
from agent.network.names import NameBook
from agent.plan.names import EndpointName, EndpointsMessage, NetworkNames, ServiceNames
from agent.plan.zone import Zone

pytestmark = pytest.mark.contract
MANY = tuple(EndpointName(f"shop_web.{n}", f"10.64.0.{n}") for n in range(2, 102))
NAMES = NetworkNames((ServiceNames("id1", "shop_web", ("web",), MANY), ServiceNames("id2", "shop_db", ("db",), MANY[:1])))


async def ask(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    question = DNSRecord.question(name, kind)
    data = await asyncio.to_thread(question.send, "127.0.0.1", port, tcp=tcp, timeout=5)
    return DNSRecord.parse(data)


def addresses(reply: DNSRecord) -> list[str]:
    return [str(row.rdata) for row in reply.rr if row.rtype == QTYPE.A]


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    made = NameServer(lambda: (), port=0)
    made.zones.set("net", Zone(NAMES))
    await made.serve({"net": "127.0.0.1"})
    yield made
    await made.close()


async def test_addresses_by_udp_and_tcp(server: NameServer) -> None:
    port = server.port_of("net")
    assert addresses(await ask(port, "db")) == ["10.64.0.2"]
    assert sorted(addresses(await ask(port, "web", tcp=True))) == sorted(item.address for item in MANY)


async def test_an_answer_too_long_for_udp_is_cut_and_says_so(server: NameServer) -> None:
    reply = await ask(server.port_of("net"), "web")
    assert reply.header.tc == 1
    assert 20 < len(addresses(reply)) < 100


async def test_a_name_without_ipv6_addresses_exists_all_the_same(server: NameServer) -> None:
    reply = await ask(server.port_of("net"), "db", "AAAA")
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


async def test_reverse_names(server: NameServer) -> None:
    reply = await ask(server.port_of("net"), "2.0.64.10.in-addr.arpa", "PTR")
    assert str(reply.rr[0].rdata) in ("shop_db.2.", "shop_web.2.")


async def test_unknown_names_without_resolvers_do_not_exist(server: NameServer) -> None:
    assert (await ask(server.port_of("net"), "nowhere")).header.rcode == RCODE.NXDOMAIN


async def test_rubbish_is_dropped_and_the_server_goes_on(server: NameServer) -> None:
    port = server.port_of("net")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for data in (b"", b"x", b"\0" * 12, b"\xff" * 600):
            channel.sendto(data, ("127.0.0.1", port))
    assert addresses(await ask(port, "db")) == ["10.64.0.2"]


async def test_other_names_are_asked_of_the_hosts_resolvers() -> None:
    upstream = NameServer(lambda: (), port=0)
    upstream.zones.set(
        "up", Zone(NetworkNames((ServiceNames("x", "x", ("example.test",), (EndpointName("x.1", "192.0.2.7"),)),)))
    )
    await upstream.serve({"up": "127.0.0.1"})
    dead = _unused_port()
    server = NameServer(lambda: (f"127.0.0.1#{dead}", f"127.0.0.1#{upstream.port_of('up')}"), port=0)
    await server.serve({"net": "127.0.0.1"})
    try:
        for tcp in (False, True):
            assert addresses(await ask(server.port_of("net"), "example.test", tcp=tcp)) == ["192.0.2.7"]
    finally:
        await server.close()
        await upstream.close()


async def test_scopes_and_restarts(tmp_path: Path) -> None:
    async def book() -> tuple[NameBook, NameServer]:
        server = NameServer(lambda: (), port=0)
        made = NameBook(tmp_path / "names.json", server)
        made.load()
        await made.serve({"one": "127.0.0.1", "two": "127.0.0.2"})
        return made, server

    made, server = await book()
    made.take(EndpointsMessage("one", True, (NAMES.services[1],)))
    assert addresses(await ask(server.port_of("one"), "db")) == ["10.64.0.2"]
    await made.close()
    made, server = await book()
    assert addresses(await ask(server.port_of("one"), "db")) == ["10.64.0.2"]
    question = DNSRecord.question("db").pack()
    assert server.zones.answer("two", question, udp=True) is None
    await made.serve({"two": "127.0.0.2"})
    assert server.zones.answer("one", question, udp=True) is None
    await made.close()


def _unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
