"""Messages with very many replicas, where a protobuf object for each would cost the light agents more than the controller under
test: statuses encoded by hand, and what a node must run with its slots left as they are on the wire.
tests/contract/test_bench_control_plane.py holds both against protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from controller.dispatch.encoded import varint
from protos import node_pb2 as pb

Slot = bytes
"""A pb.Slot, encoded."""
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
    found = [pb.Slot.FromString(slot) for slot in slots]
    for number, (slot, version, created_ms) in enumerate(sorted((row.slot, row.version, row.created_ms) for row in found)):
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
    slots = [(sid, pb.Slot.FromString(slot)) for sid, slot in gone]
    keys = [pb.ReplicaKey(service_id=sid, slot=row.slot, created_ms=row.created_ms) for sid, row in slots]
    rest = pb.Status(whole=whole, gone=keys, volumes_changed=whole).SerializeToString()
    return field(3, rest + b"".join(rows))


def _told() -> Any:
    """ToNode as far as a light agent reads it of what it must run: the same wire, but a slot is bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="bench/told.proto", package="bench", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    shapes: dict[str, list[tuple[str, int, int, str]]] = {
        "Told": [("desired", 2, kinds.TYPE_MESSAGE, "Desired")],
        "Desired": [
            ("generation", 1, kinds.TYPE_UINT64, ""), ("whole", 2, kinds.TYPE_BOOL, ""),
            ("services", 4, kinds.TYPE_MESSAGE, "*Service"), ("removed_services", 5, kinds.TYPE_STRING, "*"),
        ],
        "Service": [
            ("service_id", 1, kinds.TYPE_STRING, ""), ("specs", 3, kinds.TYPE_MESSAGE, "*Spec"),
            ("slots", 4, kinds.TYPE_BYTES, "*"),
        ],
        "Spec": [("version", 1, kinds.TYPE_UINT32, "")],
    }  # fmt: skip
    for shape, fields in shapes.items():
        message = file.message_type.add(name=shape)
        for name, number, kind, of in fields:
            label = kinds.LABEL_REPEATED if of.startswith("*") else kinds.LABEL_OPTIONAL
            row = message.field.add(name=name, number=number, type=kind, label=label)
            if kind == kinds.TYPE_MESSAGE:
                row.type_name = f".bench.{of.removeprefix('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Told"))


Told: Any = _told()
