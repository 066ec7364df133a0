"""Parts of `Desired` as bytes: an object of protobuf for each slot of a million costs more than all the rest of sending it.

Rules: fields put one after the other are one message, so what many nodes are told alike is encoded once and only joined. The
numbers of fields stand in protos/node.proto; tests/unit/test_dispatch_encoded.py holds this against protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_SHORT: Final = 1 << 14


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


VARINTS: Final = tuple(map(varint, range(_SHORT)))
"""Most lengths and slots are small."""


def field(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """A message in a message: `tag`, then `parts` with their length."""
    body = b"".join(parts)
    size = len(body)
    return tag + (VARINTS[size] if size < _SHORT else varint(size)) + body


def service_field(parts: Iterable[bytes]) -> bytes:
    """`services` of Desired: a Service of these fields."""
    return field(b"\x22", parts)


def desired_message(parts: Iterable[bytes]) -> bytes:
    """ToNode with a Desired of these fields."""
    return field(b"\x12", parts)


@lru_cache(1_000)
def _tail(version: int, created_ms: int) -> bytes:
    return b"\x10" + varint(version) + b"\x18" + varint(created_ms)


def _head(slot: int, tail_size: int) -> bytes:
    number = varint(slot)
    return b"\x22" + varint(1 + len(number) + tail_size) + b"\x08" + number


@lru_cache(8)
def _heads(tail_size: int) -> tuple[bytes, ...]:
    return tuple([_head(slot, tail_size) for slot in range(_SHORT)])


def slot_fields(run: tuple[int, ...]) -> list[bytes]:
    """`slots` of Service, of a run as AssignedService has them."""
    tail = _tail(run[0], run[1])
    heads = _heads(len(tail))
    return [(heads[slot] if slot < _SHORT else _head(slot, len(tail))) + tail for slot in run[2:]]
