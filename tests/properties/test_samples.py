"""Whatever nodes send, and in whatever order: each second gets each node at most once, and nothing is made up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.samples.port import NODE_FIELDS, SERVICE_FIELDS
from controller.samples.ring import Ring
from controller.samples.store import MemorySamples
from protos import node_pb2 as pb

T0_MS = 1_700_000_000_000


class Clock:
    ms = T0_MS

    def now(self) -> float:
        return self.ms / 1000

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


SAID = st.tuples(
    st.sampled_from(["n1", "n2", "n3"]),
    st.integers(0, 20_000),
    st.integers(1, 5_000),
    st.one_of(st.floats(0, 100, width=32), st.floats(width=32)),
    st.integers(0, 3_000),
)
"""Node, end (ms after the beginning), interval, CPU of its one replica, how long it was under way."""


def fed(rows: list[tuple[str, int, int, float, int]]) -> tuple[MemorySamples, Clock]:
    clock = Clock()
    samples = MemorySamples(clock)
    for node, at, interval, cpu, delay in sorted(rows, key=lambda row: row[1] + row[4]):
        clock.ms = max(clock.ms, T0_MS + at + delay)
        row = pb.ReplicaSample(key=pb.ReplicaKey(service_id="s", slot=int(node[1])), cpu_cores=cpu)
        flow = pb.TrafficSample(service_id="s", replica=f"s.{node[1]}", connections_per_s=1)
        samples.take(
            node, pb.Samples(at_ms=T0_MS + at, interval_ms=interval, replicas=[row], traffic=[flow], node=pb.NodeSample())
        )
    clock.ms += 10_000
    return samples, clock


@settings(deadline=None)
@given(st.lists(SAID, max_size=40))
def test_each_second_has_each_node_at_most_once(rows: list[tuple[str, int, int, float, int]]) -> None:
    samples, _ = fed(rows)
    told = samples.service("s")
    for replicas, flows, cpu in zip(told["replicas"], told["connections_per_s"], told["cpu_cores"], strict=True):
        assert replicas is None or 0 <= replicas <= 3
        assert flows is None or 0 <= flows <= 3
        assert cpu is None or cpu >= 0


@settings(deadline=None)
@given(st.lists(SAID, max_size=40))
def test_what_is_told_has_equal_columns_in_the_order_of_time(rows: list[tuple[str, int, int, float, int]]) -> None:
    samples, clock = fed(rows)
    for fields, told in ((SERVICE_FIELDS, samples.service("s")), (NODE_FIELDS, samples.node("n1"))):
        assert set(told) == {"at_ms", *fields}
        times = [at or 0 for at in told["at_ms"]]
        assert times == sorted(set(times))
        assert all(at <= clock.ms for at in times)
        assert {len(column) for column in told.values()} == {len(times)}
    for kind in ("cpu", "connections", "inflight", "bytes"):
        series = samples.series("s", kind, 1.0)
        assert all(value >= 0 for _, value, _ in series.rows)
        assert [row[0] for row in series.rows] == sorted({row[0] for row in series.rows})


@settings(deadline=None)
@given(st.integers(900, 1100), st.integers(5, 60))
def test_a_steady_node_is_in_every_second(interval: int, count: int) -> None:
    rows = [("n1", (number + 1) * interval, interval, 0.5, 0) for number in range(count)]
    told = fed(rows)[0].service("s")
    assert told["cpu_cores"] == [0.5] * ((count * interval + T0_MS) // 1000 - T0_MS // 1000)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 9)), max_size=60), st.integers(1, 50))
def test_a_ring_holds_the_sum_of_what_was_added_and_no_more_rows_than_it_may(rows: list[tuple[int, int]], kept: int) -> None:
    ring, sums = Ring(1), dict[int, int]()
    for step, number in rows:
        begun = ring.first if ring.values else step
        ring.add(step, 0, (number,), kept)
        if step >= begun:
            sums[step] = sums.get(step, 0) + number
    assert ring.end - ring.first <= kept + kept // 4
    for step in range(ring.first, ring.end):
        row = ring.row(step)
        assert row is not None
        assert row[0] == sums.get(step, 0)


@given(
    st.integers(0, 30),
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.sampled_from([1, 2, 5, 10]),
    st.sampled_from([1, 2, 5, 10]),
)
def test_in_steps_of_another_length_each_row_is_the_one_that_held_its_end(
    first: int, numbers: list[int], old_s: int, new_s: int
) -> None:
    ring = Ring(1)
    for place, number in enumerate(numbers):
        ring.add(first + place, 0, (number,), 1000)
    made = ring.stretched(old_s, new_s)
    for step in range(made.first, made.end):
        row, before = made.row(step), ring.row(-(-step * new_s // old_s))
        assert row is not None
        assert before is not None
        assert list(row) == list(before)
