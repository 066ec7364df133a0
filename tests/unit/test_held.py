"""Who waits for a sleeping service, and what netfilter's log says of them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from agent.plan.held import SILENT_S, HeldBook
from agent.plan.netlink import attr
from agent.plan.nflog import Call, listen, parse


def logged(packet: bytes, link: int = 7) -> bytes:
    """The body of a message of the log."""
    return struct.pack(">BBH", 2, 0, 0x5348) + attr(4, struct.pack(">I", link)) + attr(9, packet)


def ipv4(protocol: int, *, options: bytes = b"") -> bytes:
    head = bytes([0x45 + len(options) // 4, 0, 0, 60]) + bytes(5) + bytes([protocol]) + bytes(2)
    addresses = ip_address("10.0.1.4").packed + ip_address("10.0.192.9").packed
    return head + addresses + options + struct.pack(">HH", 40000, 80) + bytes(8)


def test_a_packet_says_who_calls_whom() -> None:
    assert parse(logged(ipv4(6))) == Call(7, "tcp", "10.0.1.4", 40000, "10.0.192.9", 80)
    assert parse(logged(ipv4(17, options=bytes(8)))) == Call(7, "udp", "10.0.1.4", 40000, "10.0.192.9", 80)
    six = bytes([0x60]) + bytes(5) + bytes([6, 64]) + ip_address("fd00::1").packed + ip_address("fd00::2").packed
    assert parse(logged(six + struct.pack(">HH", 1, 2))) == Call(7, "tcp", "fd00::1", 1, "fd00::2", 2)


def test_what_is_no_such_packet_is_nobodys() -> None:
    for body in (b"", logged(b""), logged(ipv4(6)[:21]), logged(ipv4(1)), logged(bytes([0x60]) + bytes(30))):
        assert parse(body) is None


def test_the_log_is_asked_for_at_once_and_only_the_heads() -> None:
    request = listen(0x5348, 80)
    assert request.payload[2:4] == b"SH"
    assert attr(2, struct.pack(">IBB", 80, 2, 0)) in request.payload


def test_a_caller_counts_until_it_is_silent() -> None:
    book = HeldBook()
    book.took("web", "one", 0.0)
    book.took("web", "two", 1.0)
    book.took("db", "one", 2.0)
    book.took("web", "one", 3.0)
    assert book.waiting(3.0) == {"web": 2, "db": 1}
    assert book.wake_at_s() == 1.0 + SILENT_S
    assert book.waiting(1.0 + SILENT_S) == {"web": 1, "db": 1}
    book.released("web")
    assert book.services() == ("db",)
    assert book.waiting(2.0 + SILENT_S) == {}
    assert book.wake_at_s() is None
