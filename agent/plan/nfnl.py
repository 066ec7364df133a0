"""Netfilter's netlink messages as bytes: the generation of the nftables rules, counts of sets, and connection tracking.

Rules: pure; only what shoal needs. Requests about connections are filtered by the kernel (CTA_FILTER, since Linux 5.8), so that
a node with many connections is not copied to find a few. What comes back is compared once more (`concerns`): kernels up to 6.18
at least filter IPv6 addresses the wrong way round, so they are not asked to. Shapes from linux/netfilter/nfnetlink.h,
nf_tables.h and nfnetlink_conntrack.h; what the filter's bits mean stands in the kernel's own net/netfilter/nf_internals.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Final

from agent.plan.netlink import AF_INET, ENOENT, F_ACK, F_DUMP, F_REQUEST, NESTED, Request, attr
from agent.plan.netlink_read import attributes

AF_INET6: Final = 10
TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132

_CTNETLINK, _NFTABLES = 1 << 8, 10 << 8
_CT_GET, _CT_DELETE, _NFT_GETGEN, _NFT_GETSETELEM = _CTNETLINK | 1, _CTNETLINK | 2, _NFTABLES | 16, _NFTABLES | 13
_NFTA_GEN_ID = 1
_NFPROTO_INET = 1
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _ELEMENT_KEY, _ELEMENT_EXPRESSION, _DATA_VALUE, _EXPRESSION_DATA = 1, 1, 7, 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_COUNTED = tuple(
    (
        struct.Struct(f">12x{size}s24xQ4xQ"),
        struct.pack("=6H", 56 + size, _ELEMENT, 8 + size, _ELEMENT_KEY, 4 + size, _DATA_VALUE),
        struct.pack("=4H8s4H", 44, _ELEMENT_EXPRESSION, 12, 1, b"counter", 28, _EXPRESSION_DATA, 12, _COUNTER_BYTES),
    )
    for size in (4, 16)
)
"""An element of addresses with its counter as the kernel lays it out: its shape (address, bytes, packets), how it begins, and
what stands between address and bytes."""
_CTA_ORIGINAL, _CTA_REPLY, _CTA_STATUS, _CTA_PROTOINFO, _CTA_MARK, _CTA_ID = 1, 2, 3, 4, 8, 12
_CTA_MARK_MASK, _CTA_FILTER, _CTA_STATUS_MASK = 21, 25, 26
_STATUS_DNAT = 1 << 5
_CTA_FILTER_ORIGINAL, _CTA_FILTER_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SOURCE, _V6_SOURCE = 1, 3
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_TARGET_PORT = 1, 2, 3
_BY_SOURCE, _BY_TARGET, _BY_PROTOCOL, _BY_SOURCE_PORT, _BY_TARGET_PORT = 1, 2, 8, 16, 32
_PROTOINFO_TCP, _TCP_STATE, _TCP_FLAGS_ORIGINAL = 1, 1, 4
_SYN_RECV, _ESTABLISHED, _FIN_WAIT, _CLOSE_WAIT = 2, 3, 4, 5
_CLOSED_FIRST = 0x04
_HEADS_BYTES = 20
"""Before the attributes of an answer: netlink's head and netfilter's."""
_ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}
_TCP_BEGINS = struct.pack("=6H", 48, _CTA_PROTOINFO | NESTED, 44, _PROTOINFO_TCP | NESTED, 5, _TCP_STATE)


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of a connection, as far as it is asked for: empty and 0 stand for any."""

    source: str = ""
    target: str = ""
    source_port: int = 0
    target_port: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked connection. `original` and `number` name it when it is to be deleted."""

    protocol: int
    forth: Side
    back: Side
    original: bytes
    number: bytes
    open: bool
    """TCP, and the side that was connected to may still send: established, or only the caller has said that it is done."""


def get_generation() -> Request:
    """Asks for the number that every change of nftables rules by anybody increases."""
    return Request(_NFT_GETGEN, F_REQUEST, _head(0), (), "generation of the rules")


def parse_generation(payload: bytes) -> int:
    return int.from_bytes(attributes(payload[4:])[_NFTA_GEN_ID], "big")


def dump_elements(table: str, name: str) -> Request:
    """Asks for the elements of a set of a table of the family inet."""
    body = attr(_ELEMENTS_TABLE, table.encode() + b"\0") + attr(_ELEMENTS_SET, name.encode() + b"\0")
    head = struct.pack(">BBH", _NFPROTO_INET, 0, 0)
    return Request(_NFT_GETSETELEM, F_REQUEST | F_DUMP, head + body, (ENOENT,), f"elements of set {name}")


def parse_counts(payload: bytes) -> dict[str, tuple[int, int]]:
    """(packets, bytes) by address, of elements with a counter. There may be thousands: their common shape is read at once."""
    body = attributes(payload[4:]).get(_ELEMENTS, b"")
    for shape, begin, between in _COUNTED:
        count, rest = divmod(len(body), shape.size)
        if rest == 0 and body.count(begin) == body.count(between) == count:
            return {_address(key): (packets, size) for key, size, packets in shape.iter_unpack(body)}
    return {address: (packets, size) for address, packets, size in _parse_any_counts(body)}


def _parse_any_counts(body: bytes) -> Iterator[tuple[str, int, int]]:
    offset = 0
    while offset + 4 <= len(body):
        length = int.from_bytes(body[offset : offset + 2], "little")
        if length < 4:
            return
        element = attributes(body[offset + 4 : offset + length])
        offset += (length + 3) & ~3
        key = attributes(element.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b"")
        expression = attributes(element.get(_ELEMENT_EXPRESSION, b""))
        counter = attributes(expression.get(_EXPRESSION_DATA, b""))
        if len(key) in (4, 16) and _COUNTER_PACKETS in counter:
            packets, size = (int.from_bytes(counter.get(kind, b""), "big") for kind in (_COUNTER_PACKETS, _COUNTER_BYTES))
            yield _address(key), packets, size


@lru_cache(maxsize=1 << 14)
def _address(packed: bytes) -> str:
    return ".".join(map(str, packed)) if len(packed) == 4 else str(ipaddress.IPv6Address(packed))


def dump_balanced(mark: int, *, six: bool = False) -> Request:
    """Asks for the TCP connections whose target was changed on this node and that carry this bit in their mark: most have ended
    and are only remembered. `six`: of both families, and then of all protocols, since it is the pass over the kernel's table
    that costs most. Kernels before 5.18 give what nobody changed, too."""
    asked = dump_connections(TCP)
    head = _head(0) if six else asked.payload
    status, bit = struct.pack(">I", _STATUS_DNAT), struct.pack(">I", mark)
    filters = ((_CTA_STATUS, status), (_CTA_STATUS_MASK, status), (_CTA_MARK, bit), (_CTA_MARK_MASK, bit))
    return replace(asked, payload=head + b"".join(attr(kind, value) for kind, value in filters))


def parse_balanced(answers: bytes) -> Iterable[str]:
    """Where those connections go whose target was changed and that are open, of one datagram of answers. There may be tens of
    thousands, most of them over: those in a common shape are read at once."""
    found = _parse_alike(answers)
    if found is not None:
        return found
    by_length: dict[int, list[bytes]] = {}
    at = 0
    while at + _HEADS_BYTES <= len(answers):
        length = max(_HEADS_BYTES, int.from_bytes(answers[at : at + 4], "little"))
        by_length.setdefault(length, []).append(answers[at : at + length])
        at += length
    return chain.from_iterable(_parse_either_way(alike) for alike in by_length.values())


def _parse_either_way(answers: Sequence[bytes]) -> Iterable[str]:
    found = _parse_alike(b"".join(answers))
    return found if found is not None else filter(None, map(_parse_one_balanced, answers))


def _parse_alike(answers: bytes) -> Iterable[str] | None:
    """None: these are not TCP connections laid out like the first."""
    length = int.from_bytes(answers[:4], "little")
    if length < _HEADS_BYTES or len(answers) % length:
        return None
    shape, wanted = _shape(length, answers[16], answers.find(_TCP_BEGINS, 0, length))
    if shape is None:
        return None
    lengths, replies, targets, heads, statuses, begins, states, ends, flags = zip(*shape.iter_unpack(answers), strict=True)
    if set(zip(lengths, replies, heads, begins, ends, strict=True)) != {wanted}:
        return None
    rows = zip(targets, statuses, states, flags, strict=True)
    return [_address(target) for target, status, state, flag in rows if status & _STATUS_DNAT and _is_open(state, flag)]


@lru_cache(maxsize=64)
def _shape(length: int, family: int, tcp_at: int) -> tuple[struct.Struct | None, tuple[int | bytes, ...]]:
    """An answer as the kernel lays it out, and what is the same in each: its length, and how those attributes begin that hold
    the target, the status (its last byte), the state, and flags of the caller's direction."""
    size = _ADDRESS_BYTES.get(family, 0)
    tuple_bytes = 4 + (4 + 2 * (4 + size)) + (4 + 8 + 8 + 8)
    status_at = _HEADS_BYTES + 2 * tuple_bytes
    if not size or tcp_at < status_at + 8 or length < tcp_at + 40:
        return None, ()
    source = _V4_SOURCE if family == AF_INET else _V6_SOURCE
    reply = struct.pack("=6H", tuple_bytes, _CTA_REPLY | NESTED, 4 + 2 * (4 + size), _TUPLE_IP | NESTED, 4 + size, source)
    shape = (
        f"=I{_HEADS_BYTES + tuple_bytes - 4}x12s{size}s{tuple_bytes - 12 - size}x"
        f"4s3xB{tcp_at - status_at - 8}x12sB19x4sB{length - tcp_at - 37}x"
    )
    status, flags = struct.pack("=2H", 8, _CTA_STATUS), struct.pack("=2H", 6, _TCP_FLAGS_ORIGINAL)
    return struct.Struct(shape), (length, reply, status, _TCP_BEGINS, flags)


def _parse_one_balanced(answer: bytes) -> str:
    found = attributes(answer[_HEADS_BYTES:])
    status = int.from_bytes(found.get(_CTA_STATUS, b""), "big")
    if not status & _STATUS_DNAT or not _open(found.get(_CTA_PROTOINFO, b"")):
        return ""
    return _parse_tuple(found[_CTA_REPLY])[1].source


def dump_connections(protocol: int, original: Side = Side(), reply: Side = Side(), *, six: bool = False) -> Request:
    """The connections of a protocol whose two directions are like this; their family is that of the addresses, without any
    IPv4 unless `six`."""
    given = [text for side in (original, reply) for text in (side.source, side.target) if text]
    family = AF_INET6 if six or (given and ipaddress.ip_address(given[0]).version == 6) else AF_INET
    forth, back = _tuple(protocol, original), _tuple(protocol, reply)
    flags = attr(_CTA_FILTER_ORIGINAL, struct.pack("=I", _asked(original)))
    flags += attr(_CTA_FILTER_REPLY, struct.pack("=I", _asked(reply)))
    body = attr(_CTA_ORIGINAL | NESTED, forth) + attr(_CTA_REPLY | NESTED, back) + attr(_CTA_FILTER | NESTED, flags)
    return Request(_CT_GET, F_REQUEST | F_DUMP, _head(family) + body, (), "connections")


def delete_connection(connection: Connection) -> Request:
    """Forget exactly this one; a packet that follows is a new connection."""
    family = AF_INET6 if ":" in connection.forth.source else AF_INET
    body = attr(_CTA_ORIGINAL | NESTED, connection.original) + attr(_CTA_ID, connection.number)
    return Request(_CT_DELETE, F_REQUEST | F_ACK, _head(family) + body, (ENOENT,), "forget a connection")


def parse_connection(payload: bytes) -> Connection:
    found = attributes(payload[4:])
    protocol, forth = _parse_tuple(found[_CTA_ORIGINAL])
    _, back = _parse_tuple(found[_CTA_REPLY])
    is_open = protocol == TCP and _open(found.get(_CTA_PROTOINFO, b""))
    return Connection(protocol, forth, back, found[_CTA_ORIGINAL], found.get(_CTA_ID, b""), is_open)


def concerns(connection: Connection, original: Side, reply: Side) -> bool:
    """Whether its two directions are as asked for."""
    return _like(connection.forth, original) and _like(connection.back, reply)


def _like(side: Side, asked: Side) -> bool:
    wanted = (asked.source, asked.target, asked.source_port, asked.target_port)
    has = (side.source, side.target, side.source_port, side.target_port)
    return all(want in ("", 0, have) for want, have in zip(wanted, has, strict=True))


def _head(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _asked(side: Side) -> int:
    bits = (
        ("." in side.source, _BY_SOURCE),
        ("." in side.target, _BY_TARGET),
        (side.source_port, _BY_SOURCE_PORT),
        (side.target_port, _BY_TARGET_PORT),
    )
    return _BY_PROTOCOL | sum(bit for given, bit in bits if given)


def _tuple(protocol: int, side: Side) -> bytes:
    addresses = b""
    for offset, text in enumerate((side.source, side.target)):
        if text:
            ip = ipaddress.ip_address(text)
            addresses += attr((_V6_SOURCE if ip.version == 6 else _V4_SOURCE) + offset, ip.packed)
    proto = attr(_PROTO_NUMBER, bytes([protocol]))
    for kind, port in ((_PROTO_SOURCE_PORT, side.source_port), (_PROTO_TARGET_PORT, side.target_port)):
        proto += attr(kind, struct.pack(">H", port)) if port else b""
    return (attr(_TUPLE_IP | NESTED, addresses) if addresses else b"") + attr(_TUPLE_PROTO | NESTED, proto)


def _parse_tuple(data: bytes) -> tuple[int, Side]:
    parts = attributes(data)
    addresses, proto = attributes(parts[_TUPLE_IP]), attributes(parts[_TUPLE_PROTO])
    first = _V4_SOURCE if _V4_SOURCE in addresses else _V6_SOURCE
    source, target = (str(ipaddress.ip_address(addresses[kind])) for kind in (first, first + 1))
    ports = (int.from_bytes(proto.get(kind, b""), "big") for kind in (_PROTO_SOURCE_PORT, _PROTO_TARGET_PORT))
    return proto[_PROTO_NUMBER][0], Side(source, target, *ports)


def _open(protoinfo: bytes) -> bool:
    tcp = attributes(attributes(protoinfo).get(_PROTOINFO_TCP, b""))
    return _is_open(tcp.get(_TCP_STATE, b"\0")[0], tcp.get(_TCP_FLAGS_ORIGINAL, b"\0")[0])


def _is_open(state: int, flags: int) -> bool:
    """`flags`: of the caller's direction."""
    if state in (_FIN_WAIT, _CLOSE_WAIT):
        return bool(flags & _CLOSED_FIRST)
    return state in (_SYN_RECV, _ESTABLISHED)
