"""Status messages with very many replicas, encoded by hand: a protobuf object for each would cost the light agents more than
the controller under test. tests/contract/test_bench_control_plane.py holds it against protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.dispatch.encoded import varint
from protos import node_pb2 as pb

Slot = tuple[int, int, int]
BRIDGE = b"\n\x06bridge"
"""`network` of an Address."""


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def replica_bytes(service_id: str, slots: Iterable[Slot]) -> list[bytes]:
    """`replicas` fields of a Status: all of them run, each with a container id and an address of its own."""
    head = field(1, service_id.encode())
    rows = []
    tails: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    for number, (slot, version, created_ms) in enumerate(sorted(slots)):
        parts = tails.get((version, created_ms))
        if parts is None:
            running = pb.Replica(version=version, state="running", since_ms=created_ms + 1000).SerializeToString()
            parts = tails[version, created_ms] = (b"\x18" + varint(created_ms), running)
        key = head + b"\x10" + varint(slot) + parts[0]
        container = f"{service_id:>16}{slot:016x}{created_ms:032x}".encode()
        address = f"172.17.{number >> 8 & 255}.{number & 255}/16".encode()
        rows.append(field(2, field(1, key) + parts[1] + field(5, container) + field(9, BRIDGE + field(2, address))))
    return rows


def status_bytes(whole: bool, rows: Sequence[bytes], gone: Iterable[tuple[str, Slot]]) -> bytes:
    """A FromNode message."""
    keys = [pb.ReplicaKey(service_id=sid, slot=slot, created_ms=created_ms) for sid, (slot, _, created_ms) in gone]
    rest = pb.Status(whole=whole, gone=keys, volumes_changed=whole).SerializeToString()
    return field(3, rest + b"".join(rows))
