"""What the kernel counts, read from its own bytes (Linux 6.18): elements of sets, balanced connections, links."""

from __future__ import annotations

import struct

import pytest

from agent.plan.netlink import Request, attr, seal
from agent.plan.netlink_read import parse_link_counts
from agent.plan.nfnl import parse_balanced, parse_counts

HEAD = bytes(4)
ELEMENT = bytes.fromhex(
    "3c0001000c000100080001000a00008f2c0007000c000100636f756e746572001c0002000c00010000000000000001000c0002000000000000000002"
)
"""10.0.0.143: 2 packets, 256 bytes."""
CONNECTION = bytes.fromhex(
    "020000003400018014000180080001000a090001080002000a0800011c0002800500010006000000060002002d00000006000300005000003400028014"
    "000180080001000a090002080002000a0900011c0002800500010006000000060002001f900000060003002d00000008000300000001ae080008000000"
    "000008000c00bb5b16a708000b00000000010800070000000077300004802c0001800500010007000000050002000a000000050003000a000000060004"
    "00230000000600050027000000"
)
"""From 10.9.0.1 to 10.8.0.1:80, which became 10.9.0.2:8080; in TIME_WAIT."""
STATE_AT = CONNECTION.index(bytes.fromhex("05000100070000"), 120) + 4
FLAGS_AT = STATE_AT + 24
STATUS_AT = CONNECTION.index(bytes.fromhex("0800030000")) + 4


def elements(*rows: bytes) -> bytes:
    return HEAD + attr(1, b"shoal-lb\0") + attr(2, b"begun\0") + attr(3, b"".join(rows))


def element(key: bytes, packets: int, size: int, *, more: bytes = b"") -> bytes:
    counter = attr(1, struct.pack(">Q", size)) + attr(2, struct.pack(">Q", packets))
    expression = attr(1, b"counter\0") + attr(2, counter)
    return attr(1, attr(1, attr(1, key)) + attr(7, expression) + more)


def test_elements_as_the_kernel_lays_them_out() -> None:
    assert element(bytes([10, 0, 0, 143]), 2, 256) == ELEMENT
    assert parse_counts(elements(ELEMENT, element(bytes(4), 1, 2))) == {"10.0.0.143": (2, 256), "0.0.0.0": (1, 2)}
    six = bytes.fromhex("fd000000000000000000000a0a000001")
    assert parse_counts(elements(element(six, 5, 7))) == {"fd00::a:a00:1": (5, 7)}


def test_elements_laid_out_otherwise_say_the_same() -> None:
    rows = [element(bytes([10, 0, 0, last]), last, 10 * last, more=attr(9, b"other")) for last in (1, 2)]
    assert parse_counts(elements(*rows, ELEMENT)) == {"10.0.0.1": (1, 10), "10.0.0.2": (2, 20), "10.0.0.143": (2, 256)}
    twice = element(bytes(4), 1, 2, more=attr(9, bytes(56)))
    assert parse_counts(elements(ELEMENT, twice)) == {"10.0.0.143": (2, 256), "0.0.0.0": (1, 2)}, "as long as two"
    assert parse_counts(elements()) == {}
    assert parse_counts(elements(attr(1, attr(1, attr(1, b"\x0a\0\0\1"))))) == {}, "without a counter"


def answers(*connections: bytes) -> bytes:
    return b"".join(seal(Request(256, 2, found), 1) for found in connections)


def state(number: int, connection: bytes = CONNECTION) -> bytes:
    return with_byte(connection, STATE_AT, number)


@pytest.mark.parametrize(("number", "wanted"), [(3, True), (2, True), (7, False), (1, False), (6, False), (8, False)])
def test_an_open_connection_counts_for_where_it_goes(number: int, wanted: bool) -> None:
    assert list(parse_balanced(answers(state(number)))) == ["10.9.0.2"] * wanted


def test_of_one_that_one_side_has_closed_it_counts_which() -> None:
    by_the_replica, by_the_caller = state(4), with_byte(state(4), FLAGS_AT, 0x27)
    assert list(parse_balanced(answers(by_the_replica, by_the_replica))) == []
    assert list(parse_balanced(answers(by_the_replica, by_the_caller, state(7)))) == ["10.9.0.2"]


def test_connections_of_several_shapes_count_like_those_of_one() -> None:
    long = state(3) + attr(20, b"timestamp")
    unlike = state(3)[: STATUS_AT - 4] + attr(18, bytes(2)) + state(3)[STATUS_AT - 4 : -8]
    assert len(unlike) == len(CONNECTION)
    found = answers(state(3), state(7), long, state(7, long), CONNECTION[:100], unlike)
    assert list(parse_balanced(found)) == ["10.9.0.2"] * 3
    assert list(parse_balanced(answers(state(3), state(3), state(7)))) == ["10.9.0.2"] * 2
    assert list(parse_balanced(b"")) == []


def test_a_connection_whose_target_nobody_changed_does_not_count() -> None:
    status = int.from_bytes(CONNECTION[STATUS_AT : STATUS_AT + 4], "big") & ~(1 << 5)
    opened = state(3)
    assert list(parse_balanced(answers(opened[:STATUS_AT] + struct.pack(">I", status) + opened[STATUS_AT + 4 :]))) == []


def with_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def link_counts(index: int, received: int, sent: int, *, more: bytes = b"", kind: int = 1) -> bytes:
    counts = struct.pack("=25Q", 7, 8, received, sent, *range(21))
    return seal(Request(92, 2, struct.pack("=BxxxII", 0, index, 1) + attr(kind, counts) + more), 1)


def test_what_links_received_and_sent() -> None:
    found = parse_link_counts(link_counts(1, 500, 500) + link_counts(70_000, 1 << 40, 3))
    assert found == ((1, 70_000), [(500, 500), (1 << 40, 3)])


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        link_counts(1, 5, 6) + link_counts(2, 5, 6, more=attr(2, bytes(4))),
        link_counts(1, 5, 6, more=attr(2, bytes(len(link_counts(1, 5, 6)) - 4))) + link_counts(2, 5, 6) * 2,
        link_counts(1, 5, 6, kind=3),
        seal(Request(92, 2, struct.pack("=BxxxII", 0, 1, 1) + attr(1, bytes(16))), 1),
    ],
)
def test_counts_of_links_in_another_shape_are_not_guessed_at(answers: bytes) -> None:
    with pytest.raises(ValueError, match="of several shapes"):
        parse_link_counts(answers)
