"""The name server over real sockets on loopback, asked by dnslib."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from agent.network.dns import NameServer
from agent.network.forward import Forwarder
from agent.network.names import NameBook
from agent.plan.names import Client, EndpointName, EndpointsMessage, NetworkNames, ServiceNames
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


async def test_names_of_networks_that_went_while_no_agent_ran_are_not_kept_for_ever(tmp_path: Path) -> None:
    for networks in (("one", "two", "three"), ("two",)):
        server = NameServer(lambda: (), port=0)
        made = NameBook(tmp_path / "names.json", server)
        made.load()
        for network in networks if len(networks) > 1 else ("three",):
            made.take(EndpointsMessage(network, True, (NAMES.services[1],)))
        await made.serve(dict.fromkeys(networks, "127.0.0.1"))
        await made.close()
    last = NameServer(lambda: (), port=0)
    NameBook(tmp_path / "names.json", last).load()
    question = bytes(DNSRecord.question("db").pack())
    assert [last.zones.answer(name, question, udp=True) is not None for name in ("one", "two", "three")] == [False, True, True]


PREFIX6 = "fd00:1::/96"
API = ServiceNames("id3", "shop_api", ("api",), (EndpointName("shop_api.1", "10.64.0.9", names=("api.1",)),), "10.64.192.5")
ASKER = "127.0.0.1"
"""The address that questions come from in these tests."""


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[NameBook]:
    """Networks `one` and `two` (served on one address each), the node's bridge, and an internal one; nobody known yet."""
    server = NameServer(lambda: (), port=0)
    made = NameBook(tmp_path / "names.json", server)
    made.load()
    gateways = {"one": "127.0.0.1", "two": "127.0.0.2", "bridge": "127.0.0.3", "shut": "127.0.0.4"}
    await made.serve(gateways, ("shut",))
    made.take(EndpointsMessage("one", True, (API,), prefix6=PREFIX6))
    made.take(EndpointsMessage("two", True, (NAMES.services[1], ServiceNames("id9", "api", ("api",), MANY[1:2]))))
    yield made
    await made.close()


async def ask_on(book: NameBook, network: str, name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    question = DNSRecord.question(name, kind)
    host, port = book.server.address_of(network)
    return DNSRecord.parse(await asyncio.to_thread(question.send, host, port, tcp=tcp, timeout=5))


async def rcode_on(book: NameBook, network: str, name: str) -> int:
    return int((await ask_on(book, network, name)).header.rcode)


async def test_a_container_has_the_names_of_all_its_networks_on_any_gateway(book: NameBook) -> None:
    assert await rcode_on(book, "one", "db") == RCODE.NXDOMAIN
    for order, first in ((("one", "two"), "10.64.192.5"), (("two", "one"), "10.64.0.3")):
        book.client("s", Client("c", tuple((network, ASKER) for network in order)))
        for network in ("one", "two"):
            for tcp in (False, True):
                assert addresses(await ask_on(book, network, "db", tcp=tcp)) == ["10.64.0.2"]
                assert addresses(await ask_on(book, network, "api", tcp=tcp)) == [first]
    book.client("s", None)
    assert await rcode_on(book, "one", "db") == RCODE.NXDOMAIN


async def test_an_address_that_another_container_got_is_the_other_ones(book: NameBook) -> None:
    book.client("old", Client("old", (("one", ASKER),)))
    book.client("new", Client("new", (("two", ASKER),)))
    book.client("old", None)
    assert addresses(await ask_on(book, "one", "db")) == ["10.64.0.2"]


async def test_links_are_names_for_the_linked_only(book: NameBook) -> None:
    book.client("s", Client("c", (("one", ASKER),), (("api", "Store"), ("gone", "gone"))))
    assert addresses(await ask_on(book, "one", "store")) == ["10.64.192.5"]
    away = await ask_on(book, "one", "gone")
    assert (away.header.rcode, away.rr) == (RCODE.NOERROR, [])
    book.client("s", Client("c", (("one", ASKER),)))
    assert await rcode_on(book, "one", "store") == RCODE.NXDOMAIN


async def test_the_nodes_bridge_has_no_names_but_links(book: NameBook) -> None:
    book.client("t", Client("Box", (("bridge", "172.30.0.9"),)))
    book.client("s", Client("c", (("bridge", ASKER),)))
    book.take(EndpointsMessage("bridge", True, (API,)))
    for name in ("Box", "api"):
        assert await rcode_on(book, "bridge", name) == RCODE.NXDOMAIN
    book.client("s", Client("c", (("bridge", ASKER),), (("Box", "store"),)))
    for name in ("store", "box"):
        assert addresses(await ask_on(book, "bridge", name)) == ["172.30.0.9"]
    book.client("t", Client("Box", (("bridge", "172.30.0.10"),)))
    assert addresses(await ask_on(book, "bridge", "store")) == ["172.30.0.10"]


async def test_ipv6_addresses_and_their_reverse_names(book: NameBook) -> None:
    reply = await ask_on(book, "one", "api", "AAAA")
    assert [str(row.rdata) for row in reply.rr] == ["fd00:1::a40:c005"]
    assert (await ask_on(book, "two", "api", "AAAA")).rr == []
    for address, name in (("fd00:1::a40:c005", "shop_api."), ("10.64.0.9", "shop_api.1.")):
        reply = await ask_on(book, "one", ipaddress.ip_address(address).reverse_pointer, "PTR")
        assert [str(row.rdata) for row in reply.rr] == [name]


async def test_an_asker_is_known_by_its_ipv6_address_too(book: NameBook) -> None:
    book.client("s", Client("c", (("one", "10.64.0.77"),), (("api", "store"),)))
    question = DNSRecord.question("store").pack()
    zones = book.server.zones
    assert zones.answer("two", question, udp=True, source="fd00:1::a40:4d") is not None
    assert zones.answer("two", question, udp=True, source="fd00:2::a40:4d") is None
    assert zones.answer("two", question, udp=True, source="fe80::1%eth0") is None


async def test_services_records(book: NameBook) -> None:
    reply = await ask_on(book, "one", "_8080._tcp.api", "SRV")
    assert [str(row.rdata) for row in reply.rr] == ["0 1 8080 shop_api.1."]
    assert {(str(row.rname), str(row.rdata)) for row in reply.ar} == {
        ("shop_api.1.", "10.64.0.9"),
        ("shop_api.1.", "fd00:1::a40:9"),
    }
    assert addresses(await ask_on(book, "one", "shop_api.1")) == ["10.64.0.9"]
    for name in ("_http._tcp.tasks.api", "_http._tcp.api", "_80._tcp.nobody"):
        assert (await ask_on(book, "one", name, "SRV")).header.rcode == RCODE.NXDOMAIN
    plain = await ask_on(book, "one", "_8080._tcp.api", "A")
    assert (plain.header.rcode, plain.rr) == (RCODE.NOERROR, [])


async def test_published_ports_are_no_names(book: NameBook) -> None:
    book.take(EndpointsMessage("ingress", True, (API,)))
    book.client("s", Client("c", (("ingress", ASKER),)))
    assert await rcode_on(book, "one", "api") == RCODE.NXDOMAIN


async def test_who_is_on_internal_networks_only_gets_no_foreign_name(tmp_path: Path) -> None:
    async with upstream("192.0.2.7") as resolver:
        server = NameServer(lambda: (resolver,), port=0)
        made = NameBook(tmp_path / "names.json", server)
        await made.serve({"one": "127.0.0.1", "shut": "127.0.0.4"}, ("shut",))
        try:
            assert addresses(await ask_on(made, "one", "example.test")) == ["192.0.2.7"]
            assert await rcode_on(made, "shut", "example.test") == RCODE.NXDOMAIN
            made.client("s", Client("c", (("shut", ASKER),)))
            assert await rcode_on(made, "one", "example.test") == RCODE.NXDOMAIN
            made.client("s", Client("c", (("shut", ASKER), ("one", ASKER))))
            assert addresses(await ask_on(made, "shut", "example.test")) == ["192.0.2.7"]
        finally:
            await made.close()


async def test_a_containers_own_resolvers_are_asked_instead_of_the_hosts(tmp_path: Path) -> None:
    async with upstream("192.0.2.7") as hosts, upstream("192.0.2.8") as own:
        made = NameBook(tmp_path / "names.json", NameServer(lambda: (hosts,), port=0))
        await made.serve({"one": "127.0.0.1"})
        try:
            made.client("s", Client("c", (("one", ASKER),), resolvers=(own,)))
            for tcp in (False, True):
                assert addresses(await ask_on(made, "one", "example.test", tcp=tcp)) == ["192.0.2.8"]
        finally:
            await made.close()


async def test_a_slow_resolver_is_not_waited_for_and_asked_last_then() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        async with upstream("192.0.2.7") as good:
            resolvers = (f"127.0.0.1#{silent.getsockname()[1]}", good)
            forwarder = Forwarder(wait_s=30, next_after_s=0.01)
            for _ in range(3):
                answer = await forwarder.ask(resolvers, bytes(DNSRecord.question("example.test").pack()), udp=True)
                assert answer is not None
                assert addresses(DNSRecord.parse(answer)) == ["192.0.2.7"]
        silent.recv(4096)
        with pytest.raises(BlockingIOError):
            silent.recv(4096)


async def test_a_refusal_counts_only_when_nobody_knows_better() -> None:
    async with upstream("192.0.2.7") as good, refusing() as bad:
        question = bytes(DNSRecord.question("example.test").pack())
        answer = await Forwarder().ask((bad, good), question, udp=True)
        assert answer is not None
        assert addresses(DNSRecord.parse(answer)) == ["192.0.2.7"]
        answer = await Forwarder().ask((bad,), question, udp=True)
        assert answer is not None
        assert DNSRecord.parse(answer).header.rcode == RCODE.REFUSED


async def test_questions_that_nobody_answers_fail() -> None:
    server = NameServer(lambda: (f"127.0.0.1#{_unused_port()}",), port=0)
    await server.serve({"net": "127.0.0.1"})
    try:
        for tcp in (False, True):
            assert (await ask(server.port_of("net"), "example.test", tcp=tcp)).header.rcode == RCODE.SERVFAIL
    finally:
        await server.close()


async def test_questions_that_wait_for_a_resolver_hold_up_nobody() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        silent.bind(("127.0.0.1", 0))
        server = NameServer(lambda: (f"127.0.0.1#{silent.getsockname()[1]}",), port=0)
        server.zones.set("net", Zone(NAMES))
        await server.serve({"net": "127.0.0.1"})
        try:
            for _ in range(300):
                asker.sendto(bytes(DNSRecord.question("example.test").pack()), server.address_of("net"))
                await asyncio.sleep(0)
            assert addresses(await ask(server.port_of("net"), "db")) == ["10.64.0.2"]
            assert addresses(await ask(server.port_of("net"), "db", tcp=True)) == ["10.64.0.2"]
        finally:
            await server.close()


async def test_a_port_that_was_taken_is_had_at_a_later_call() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", 0))
        port = owner.getsockname()[1]
        server = NameServer(lambda: (), port=port)
        server.zones.set("net", Zone(NAMES))
        await server.serve({"net": "127.0.0.1"})
        with pytest.raises(KeyError):
            server.port_of("net")
    try:
        await server.serve({"net": "127.0.0.1"})
        assert addresses(await ask(port, "db")) == ["10.64.0.2"]
    finally:
        await server.close()


async def test_services_addresses_and_ipv6_survive_a_restart(book: NameBook, tmp_path: Path) -> None:
    await book.close()
    again = NameBook(tmp_path / "names.json", NameServer(lambda: (), port=0))
    again.load()
    try:
        await again.serve({"one": "127.0.0.1"})
        assert addresses(await ask_on(again, "one", "api")) == ["10.64.192.5"]
        assert [str(row.rdata) for row in (await ask_on(again, "one", "api", "AAAA")).rr] == ["fd00:1::a40:c005"]
    finally:
        await again.close()


async def test_news_while_the_last_ones_are_being_saved_are_saved_too(book: NameBook, tmp_path: Path) -> None:
    for number in range(200):
        book.take(EndpointsMessage("two", False, (ServiceNames(f"x{number}", f"x{number}", (f"x{number}",)),)))
        await asyncio.sleep(0)
    await book.close()
    again = NameServer(lambda: (), port=0)
    NameBook(tmp_path / "names.json", again).load()
    for name in ("x0", "x199", "db"):
        assert again.zones.answer("two", bytes(DNSRecord.question(name).pack()), udp=True) is not None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"net": 1}', '{"net": {"services": [{}]}}'])
async def test_a_file_that_cannot_be_read_is_no_news(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.json").write_text(text)
    book = NameBook(tmp_path / "names.json", NameServer(lambda: (), port=0))
    book.load()
    await book.close()


@contextlib.asynccontextmanager
async def upstream(address: str) -> AsyncIterator[str]:
    """A resolver that knows `example.test`."""
    server = NameServer(lambda: (), port=0)
    row = ServiceNames("x", "x", ("example.test",), (EndpointName("x.1", address),))
    server.zones.set("up", Zone(NetworkNames((row,))))
    await server.serve({"up": "127.0.0.1"})
    try:
        yield "127.0.0.1#{}".format(server.port_of("up"))
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """A resolver that answers nobody's question."""

    class Refusing(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            reply = DNSRecord.parse(data).reply()
            reply.header.rcode = RCODE.REFUSED
            self.transport.sendto(bytes(reply.pack()), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Refusing, ("127.0.0.1", 0))
    try:
        yield "127.0.0.1#{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


def _unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
