"""Plain questions and answers of DNS on the wire: nearly all that containers ask is one question about addresses.

Rules: pure; nothing raises. What is unusual in any way is not read here (None) and left to a whole DNS library; what is
answered here is what that library would answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, NamedTuple

A: Final = 1
PTR: Final = 12
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41
ANY: Final = 255
NXDOMAIN: Final = 3
SERVFAIL: Final = 2
TTL_S: Final = 1
PLAIN_UDP_BYTES: Final = 512
UDP_BYTES_MAX: Final = 4096
TCP_BYTES_MAX: Final = 65_535

_HEAD: Final = struct.Struct("!6H")
_KIND: Final = struct.Struct("!HH")
_OPT: Final = struct.Struct("!BHHIH")
_ROW: Final = struct.Struct("!HHHIH")
_POINTER_TO_QUESTION: Final = 0xC00C
_IN: Final = 1
_ANSWER, _AUTHORITATIVE, _CUT, _WANTED, _AVAILABLE, _AUTHENTIC, _UNCHECKED = 0x8000, 0x400, 0x200, 0x100, 0x80, 0x20, 0x10
_LABEL: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}")


class Question(NamedTuple):
    """`name` is in lower case, without final dot. `end`: where the question ends in the message. `udp_bytes`: what the asker
    takes by UDP."""

    name: str
    kind: int
    end: int
    udp_bytes: int


def read(message: bytes) -> Question | None:
    """The one question of a plain query, with or without EDNS; None for everything else."""
    size = len(message)
    if size < _HEAD.size + 6:
        return None
    _, flags, questions, answers, authorities, others = _HEAD.unpack_from(message)
    if flags & ~(_WANTED | _AUTHENTIC | _UNCHECKED) or questions != 1 or answers or authorities or others > 1:
        return None
    labels, at = [], _HEAD.size
    while length := message[at]:
        label = message[at + 1 : at + 1 + length]
        at += length + 1
        if at + 5 > size or not _LABEL.fullmatch(label):
            return None
        labels.append(label)
    end = at + 5
    kind, family = _KIND.unpack_from(message, at + 1)
    if not labels or family != _IN or at - _HEAD.size > 254:
        return None
    udp_bytes = PLAIN_UDP_BYTES
    if others:
        if size < end + _OPT.size:
            return None
        root, record, room, version, rest = _OPT.unpack_from(message, end)
        if root or record != OPT or version & 0x00FF0000 or end + _OPT.size + rest != size or rest:
            return None
        udp_bytes = min(max(room, PLAIN_UDP_BYTES), UDP_BYTES_MAX)
    elif end != size:
        return None
    return Question(b".".join(labels).lower().decode(), kind, end, udp_bytes)


def rows(kind: int, addresses: Iterable[str]) -> tuple[bytes, ...]:
    """One answer record for each address, all of one length."""
    packed = (ip_address(address).packed for address in addresses)
    return tuple(_ROW.pack(_POINTER_TO_QUESTION, kind, _IN, TTL_S, len(data)) + data for data in packed)


def answer(message: bytes, end: int, found: bytes, row_bytes: int, limit: int) -> bytes:
    """The answer to the question in `message[:end]`: as many rows as fit into `limit`, marked as cut when that is not all."""
    fit = min(len(found), max(0, limit - end) // row_bytes * row_bytes) if found else 0
    cut = _CUT if fit < len(found) else 0
    count = fit // row_bytes if found else 0
    return _head(message, _AUTHORITATIVE | cut, count) + message[_HEAD.size : end] + found[:fit]


def refusal(message: bytes, end: int, code: int, *, ours: bool) -> bytes:
    """No answer but `code`; `ours`: we are the ones who know."""
    return _head(message, (_AUTHORITATIVE if ours else 0) | code, 0) + message[_HEAD.size : end]


def _head(message: bytes, flags: int, answers: int) -> bytes:
    number, asked = struct.unpack_from("!HH", message)
    return _HEAD.pack(number, _ANSWER | _AVAILABLE | flags | asked & (_WANTED | _UNCHECKED), 1, answers, 0, 0)
