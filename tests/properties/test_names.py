"""Names: news one by one leave what all together leave; plain questions get what the whole DNS library would answer."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache

from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from agent.network.answers import Scope, Zones, scope_of
from agent.plan import dns_wire
from agent.plan.names import Client, EndpointName, EndpointsMessage, NetworkNames, ServiceNames
from agent.plan.zone import Zone

NAMES = ("web", "db", "Front", "tasks.web", "web.1", "web.shop", "a-b_c")
addresses = st.integers(1, 6).map(lambda n: f"10.64.0.{n}")
endpoints = st.builds(
    EndpointName,
    replica=st.sampled_from(("web.1", "web.2", "db.1", "db")),
    address=addresses,
    ready=st.booleans(),
    names=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
)
services = st.builds(
    ServiceNames,
    service_id=st.sampled_from(("1", "2", "3")),
    name=st.sampled_from(("web", "db", "api")),
    names=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    endpoints=st.lists(endpoints, max_size=4).map(tuple),
    vip=st.sampled_from(("", "10.64.192.1", "10.64.192.2")),
)
messages = st.builds(
    EndpointsMessage,
    network=st.just("net"),
    whole=st.booleans(),
    services=st.lists(services, max_size=3, unique_by=lambda item: item.service_id).map(tuple),
    removed=st.lists(st.sampled_from(("1", "2", "3")), max_size=2).map(tuple),
    prefix6=st.sampled_from(("", "fd00:1::/96")),
)


def merged(current: NetworkNames, message: EndpointsMessage) -> NetworkNames:
    """What is known after the news, said plainly."""
    known = {} if message.whole else {service.service_id: service for service in current.services}
    known = {key: service for key, service in known.items() if key not in message.removed}
    known |= {service.service_id: service for service in message.services}
    return NetworkNames(
        tuple(known[key] for key in sorted(known)), message.prefix6 if message.whole else message.prefix6 or current.prefix6
    )


@given(st.lists(messages, max_size=6))
def test_news_one_by_one_leave_what_all_together_leave(news: list[EndpointsMessage]) -> None:
    kept, plain = Zone(), NetworkNames()
    for message in news:
        before = kept.names()
        plain = merged(plain, message)
        assert kept.take(message) or before == plain
    fresh = Zone(plain)
    assert kept.names() == plain
    assert vars(kept) == vars(fresh)
    for name in (*NAMES, *(f"tasks.{name}" for name in NAMES), "db.1", "nobody"):
        assert kept.find(name) == fresh.find(name)


MANY = ServiceNames("9", "many", ("many",), tuple(EndpointName(f"many.{n}", f"10.64.1.{n}") for n in range(1, 41)))
WEB = ServiceNames("1", "web", ("web", "a-b_c"), (EndpointName("web.1", "10.64.0.2"), EndpointName("web.2", "10.64.0.3")))
API = ServiceNames("2", "api", ("api",), (EndpointName("api.1", "10.64.0.4"),), "10.64.192.9")
ASKABLE = ("web", "WEB", "api", "many", "tasks.web", "web.1", "nobody", "a-b_c", "10.1.2.3", "link", "x" * 63, "_80._tcp.web")


@cache
def zones() -> tuple[Zones, Scope]:
    made = Zones()
    made.set("net", Zone(NetworkNames((WEB, API, MANY), "fd00:1::/96")))
    client = Client("c", (("net", "10.64.0.77"),), (("web", "link"),))
    made.client("s", client)
    return made, scope_of(client)


def questions() -> st.SearchStrategy[bytes]:
    def made(name: str, kind: int, number: int, flags: int, room: int | None) -> bytes:
        record = DNSRecord(DNSHeader(id=number, bitmap=flags), q=DNSQuestion(name, kind))
        if room is not None:
            record.add_ar(EDNS0(udp_len=room))
        return bytes(record.pack())

    kinds = st.sampled_from((1, 28, 12, 33, 255, 16, 65, 6, 41, 0))
    flags = st.sampled_from((0, 0x100, 0x120, 0x110, 0x130, 0x8100, 0x2800, 0x200))
    rooms = st.none() | st.sampled_from((0, 512, 1232, 65_535))
    return st.builds(made, st.sampled_from(ASKABLE), kinds, st.integers(0, 65_535), flags, rooms)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(questions()))
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def said(answer: bytes | None) -> object:
    """An answer without the order of its records, and without how many of them a cut one has."""
    if answer is None:
        return None
    record = DNSRecord.parse(answer)
    rows = () if record.header.tc else sorted((str(rr.rname), rr.rtype, rr.rclass, rr.ttl, str(rr.rdata)) for rr in record.rr)
    return record.header.id, record.header.bitmap, str(record.q.qname), record.q.qtype, record.q.qclass, rows, len(record.ar)


@given(questions() | damaged(), st.booleans())
def test_plain_answers_are_those_of_the_whole_library(question: bytes, udp: bool) -> None:
    book, scope = zones()
    if dns_wire.read(question) is None:
        return
    plain = book.answer("other", question, udp, "10.64.0.77")
    assert said(plain) == said(book.unusual(scope, question, udp))
    assert plain is None or not udp or len(plain) <= dns_wire.UDP_BYTES_MAX


@given(questions() | damaged() | st.binary(max_size=80), st.booleans(), st.sampled_from(("", "10.64.0.77", "fd00:1::a40:4d")))
def test_nothing_that_is_received_raises_anything_but_that_it_is_no_question(data: bytes, udp: bool, source: str) -> None:
    book, _ = zones()
    with contextlib.suppress(ValueError):
        answer = book.answer("net", data, udp, source)
        if answer is not None:
            assert answer[:2] == data[:2]
            assert answer[2] & 0x80
    refused = book.refusal(data, nothing=True)
    assert refused is None or refused[3] & 15 == 3


def test_a_container_knows_itself_before_the_controller_has_told_of_it() -> None:
    book = Zones()
    early = ServiceNames("1", "box", ("box",), (), "")
    book.set("net", Zone(NetworkNames((early,), "fd00:1::/96")))
    book.client("s", Client("Box", (("bridge", "172.30.0.2"), ("net", "10.64.0.77"))))
    book.client("t", Client("other", (("bridge", "172.30.0.3"),)))

    def asked(kind: str, source: str) -> list[str]:
        answer = book.answer("net", bytes(DNSRecord.question("box", kind).pack()), udp=True, source=source)
        return [str(row.rdata) for row in DNSRecord.parse(answer).rr] if answer else ["nobody"]

    assert asked("A", "10.64.0.77") == ["10.64.0.77"]
    assert asked("AAAA", "10.64.0.77") == ["fd00:1::a40:4d"]
    assert asked("A", "10.64.0.78") == []
    assert asked("A", "172.30.0.3") == ["nobody"]
    book.set("net", Zone(NetworkNames((replace(early, vip="10.64.192.1"),))))
    assert asked("A", "10.64.0.77") == ["10.64.192.1"]


def test_a_cut_answer_has_as_many_records_as_fit() -> None:
    book, _ = zones()
    question = bytes(DNSRecord.question("many").pack())
    answer = book.answer("net", question, udp=True)
    assert answer is not None
    assert 512 - 16 < len(answer) <= 512
    assert all(row.rtype == QTYPE.A for row in DNSRecord.parse(answer).rr)
