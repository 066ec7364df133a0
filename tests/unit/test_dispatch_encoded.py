"""What dispatch encodes by hand says what protobuf would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.dispatch.encoded import service_field, slot_fields, varint
from protos import node_pb2 as pb

NUMBERS = st.integers(0, 300) | st.integers(0, (1 << 31) - 1)
RUNS = st.tuples(NUMBERS, st.integers(0, 1 << 62), st.lists(NUMBERS, max_size=5))


@given(st.text(max_size=300), st.lists(RUNS, max_size=4))
def test_a_service_with_its_slots(name: str, runs: list[tuple[int, int, list[int]]]) -> None:
    head = pb.Service(service_id="id1", name=name)
    slots = [
        pb.Slot(slot=slot, version=version, created_ms=created_ms) for version, created_ms, slots in runs for slot in slots
    ]
    parts = [field for version, created_ms, slots in runs for field in slot_fields((version, created_ms, *slots))]
    found = pb.Desired.FromString(service_field([head.SerializeToString(), *parts]))
    head.slots.extend(slots)
    assert list(found.services) == [head]


@given(st.lists(st.integers(16_300, 17_000), min_size=1, max_size=3), st.integers(1, 3_000))
def test_long_ones(slots: list[int], times: int) -> None:
    run = (1, 1_780_000_000_000, *slots)
    found = pb.Desired.FromString(service_field(slot_fields(run) * times))
    assert [row.slot for row in found.services[0].slots] == slots * times


def test_a_varint_is_that_of_protobuf() -> None:
    for value in (0, 1, 127, 128, 16_383, 16_384, (1 << 63) - 1):
        expected = pb.Heartbeat(sequence=value).SerializeToString()[1:] or b"\0"
        assert varint(value) == expected
