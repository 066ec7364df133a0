"""What nodes measure, put together: steps, merging, what is missing, what is nonsense, what is kept."""

from __future__ import annotations

import math

import pytest

from controller.samples.pace import sample_s
from controller.samples.ring import Ring, Table
from controller.samples.store import PROBLEM_MAX, MemorySamples
from protos import node_pb2 as pb

T0 = 1_700_000_000_000


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.ms = T0

    def now(self) -> float:
        return self.ms / 1000

    def monotonic(self) -> float:
        return (self.ms - T0) / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


class Cluster:
    def __init__(self) -> None:
        self.clock = Clock()
        self.samples = MemorySamples(self.clock)

    def say(self, node: str, at_ms: int, *rows: pb.ReplicaSample | pb.TrafficSample, every_ms: int = 1000) -> None:
        """One second's sample, heard at once."""
        self.clock.ms = max(self.clock.ms, at_ms)
        replicas = [row for row in rows if isinstance(row, pb.ReplicaSample)]
        traffic = [row for row in rows if isinstance(row, pb.TrafficSample)]
        measured = pb.NodeSample(cpu_cores=0.5, memory_bytes=1000, disk_bytes=10)
        self.samples.take(
            node, pb.Samples(at_ms=at_ms, interval_ms=every_ms, node=measured, replicas=replicas, traffic=traffic)
        )

    def pass_ms(self, ms: int) -> None:
        self.clock.ms += ms


def replica(slot: int, cpu: float = 0.5, service: str = "s1", **more: float) -> pb.ReplicaSample:
    return pb.ReplicaSample(key=pb.ReplicaKey(service_id=service, slot=slot), cpu_cores=cpu, **more)  # type: ignore[arg-type]


def flow(name: str, per_s: float, still_open: int = 0, service: str = "s1") -> pb.TrafficSample:
    return pb.TrafficSample(service_id=service, replica=name, connections_per_s=per_s, open=still_open)


def test_replicas_of_several_nodes_add_up() -> None:
    cluster = Cluster()
    for second in range(1, 4):
        cluster.say("n1", T0 + second * 1000 + 300, replica(1, 0.5), replica(2, 0.25))
        cluster.say("n2", T0 + second * 1000 + 700, replica(3, 0.25, throttled=0.9))
    told = cluster.samples.service("s1")
    assert told["at_ms"] == [T0 + 1000, T0 + 2000, T0 + 3000]
    assert told["replicas"] == [3, 3, 3]
    assert told["cpu_cores"] == [1.0, 1.0, 1.0]
    assert told["throttled"] == pytest.approx([0.3, 0.3, 0.3])
    assert cluster.samples.replica("s1", 3)["cpu_cores"] == [0.25, 0.25, 0.25]


def test_traffic_of_one_replica_comes_from_many_nodes() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, flow("shop_web.1", 10, 3))
    cluster.say("n2", T0 + 1000, flow("shop_web.1", 5, 4), flow("shop_web.2", 1))
    assert cluster.samples.replica("s1", 1)["connections_per_s"] == [15]
    assert cluster.samples.service("s1")["connections_per_s"] == [16]
    assert cluster.samples.service("s1")["open"] == [7]
    assert cluster.samples.service("s1")["cpu_cores"] == [None], "no replica has spoken"


def test_a_step_is_told_when_every_node_has_told_it() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000)
    cluster.say("n2", T0 + 1400)
    cluster.say("n1", T0 + 2000, flow("w.1", 8))
    assert cluster.samples.settled_ms() == T0 + 1000, "n2 has not spoken of the second second"
    cluster.say("n2", T0 + 2400)
    assert cluster.samples.settled_ms() == T0 + 2000


def test_nobody_waits_long_for_a_silent_node() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000)
    cluster.say("silent", T0 + 1000)
    for second in range(2, 6):
        cluster.say("n1", T0 + second * 1000)
    assert cluster.samples.settled_ms() >= T0 + 2000
    cluster.samples.forget_node("silent")
    cluster.say("n1", T0 + 6000)
    assert cluster.samples.settled_ms() == T0 + 6000


def test_a_late_sample_still_counts() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1))
    cluster.say("n1", T0 + 2000, replica(1))
    cluster.pass_ms(5000)
    cluster.samples.take("n2", pb.Samples(at_ms=T0 + 2000, interval_ms=1000, replicas=[replica(2)]))
    assert cluster.samples.service("s1")["replicas"] == [1, 2]


def test_a_sample_never_counts_twice() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 2000, replica(1))
    cluster.say("n1", T0 + 2000, replica(1))
    cluster.say("n1", T0 + 3000, replica(1), every_ms=2500)
    assert cluster.samples.service("s1")["replicas"] == [1, 1]


def test_a_long_interval_speaks_for_all_its_seconds() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 4200, replica(1, 0.75), every_ms=3200)
    assert cluster.samples.service("s1")["cpu_cores"] == [0.75] * 3


def test_nonsense_is_dropped() -> None:
    cluster = Cluster()
    for at_ms in (T0 + 60_000, T0 - 1_000_000, 0):
        cluster.samples.take("n1", pb.Samples(at_ms=at_ms, interval_ms=1000, replicas=[replica(1)]))
    cluster.samples.take("n1", pb.Samples(at_ms=T0, interval_ms=0, replicas=[replica(1)]))
    cluster.samples.take("n1", pb.Samples(at_ms=T0, interval_ms=10**9, replicas=[replica(1)]))
    assert cluster.samples.settled_ms() < T0
    cluster.say(
        "n1", T0 + 1000, replica(1, math.nan), replica(2, -1.0), replica(3, math.inf), replica(4, 0.5, throttled=math.nan)
    )
    cluster.say("n2", T0 + 1000, flow("w.1", math.nan), flow("w.1", -3), flow("w.1", 2))
    told = cluster.samples.service("s1")
    assert told["replicas"] == [1], "who has no CPU has not spoken"
    assert told["cpu_cores"] == [0.5]
    assert told["throttled"] == [0.0]
    assert told["connections_per_s"] == [2]


def test_nothing_is_told_of_times_nobody_spoke_in() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1))
    cluster.say("n1", T0 + 5000, replica(1))
    assert cluster.samples.service("s1")["replicas"] == [1, None, None, None, 1]
    assert cluster.samples.service("s1")["open"] == [0, None, None, None, 0]
    assert cluster.samples.node("n1")["cpu_cores"] == [0.5, None, None, None, 0.5]
    assert [row[0] - T0 for row in cluster.samples.series("s1", "connections", 0).rows] == [1000, 5000]


def test_sensors_in_units_of_one_replica() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1, 0.5, memory_bytes=300), replica(2, 1.0, memory_bytes=100), flow("w.1", 7, 9))
    samples = cluster.samples
    assert samples.series("s1", "cpu", 0.5).rows == ((T0 + 1000, 3.0, 2),)
    assert samples.series("s1", "memory", 200).rows == ((T0 + 1000, 2.0, 2),)
    assert samples.series("s1", "connections", 0).rows == ((T0 + 1000, 7.0, None),)
    assert samples.series("s1", "inflight", 0).rows == ((T0 + 1000, 9.0, None),)
    assert samples.series("s1", "cpu", 0.0).problem == "there is no reservation or limit of cpu to compare with"
    assert samples.series("s1", "prometheus", 0).problem == "prometheus is not measured by nodes"
    assert samples.series("other", "connections", 0).rows == ((T0 + 1000, 0.0, None),), "no traffic is an answer"
    assert samples.series("other", "cpu", 1).problem == "no replica has told its cpu yet"


def test_a_series_says_when_it_is_old() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1))
    assert cluster.samples.series("s1", "cpu", 1).problem == ""
    cluster.pass_ms(9000)
    assert cluster.samples.series("s1", "cpu", 1).problem == "no replica has told its cpu for 9 s"
    assert cluster.samples.series("s1", "inflight", 1).problem == "no node has sent measurements for 9 s"


def test_scraped_metrics_are_summed_with_their_count() -> None:
    cluster = Cluster()
    rows = [replica(slot) for slot in (1, 2)]
    for row, value in zip(rows, (3.0, 4.0), strict=True):
        row.metrics.add(name="jobs_waiting", value=value)
    rows[1].metrics.add(name="broken", value=math.nan)
    cluster.say("n1", T0 + 1000, *rows)
    assert cluster.samples.series("s1", "scrape", 0, "jobs_waiting").rows == ((T0 + 1000, 7.0, 2),)
    assert cluster.samples.series("s1", "scrape", 0, "broken").problem == "no replica has told its broken yet"


@pytest.mark.parametrize("off_ms", [40_000, -1_000_000])
def test_a_node_whose_clock_is_elsewhere_is_not_heard_and_told(off_ms: int) -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1), flow("s.1", 3))
    cluster.samples.take("n2", pb.Samples(at_ms=T0 + 1000 + off_ms, interval_ms=1000, replicas=[replica(2)]))
    said = f"the clocks of n2 and of the leading controller are {abs(off_ms) // 1000:,} s apart: set them right"
    assert cluster.samples.series("s1", "connections", 0).problem == said, "its callers would be missing"
    assert cluster.samples.series("s1", "cpu", 1).problem == "", "who speaks is known"
    cluster.pass_ms(9000)
    assert cluster.samples.series("s1", "cpu", 1).problem == said
    cluster.say("n1", T0 + 11_000, replica(1))
    cluster.samples.forget_node("n2")
    assert cluster.samples.series("s1", "connections", 0).problem == ""
    cluster.samples.take("n1", pb.Samples(at_ms=T0 + 60_000, interval_ms=1000))
    assert "the clocks of n1 " in cluster.samples.series("s1", "connections", 0).problem
    cluster.say("n1", T0 + 12_000, replica(1))
    assert cluster.samples.series("s1", "connections", 0).problem == ""


def test_why_a_replica_tells_no_metric_is_said_while_it_is_so() -> None:
    cluster = Cluster()
    row = replica(1)
    row.metrics_problem = "shop_web.1: port 9000: Connection refused" + "!" * 300
    cluster.say("n2", T0 + 1000, row)
    problem = cluster.samples.series("s1", "scrape", 0, "jobs_waiting").problem
    assert problem.startswith("n2: shop_web.1: port 9000: Connection refused!")
    assert len(problem) == len("n2: ") + PROBLEM_MAX
    well = replica(2)
    well.metrics.add(name="jobs_waiting", value=3.0)
    cluster.say("n1", T0 + 1000, well)
    cluster.say("n1", T0 + 2000, well)
    cluster.say("n2", T0 + 2000, row)
    series = cluster.samples.series("s1", "scrape", 0, "jobs_waiting")
    assert (series.problem, series.note, series.rows[-1]) == ("", problem, (T0 + 2000, 3.0, 1)), "one of two has told it"
    cluster.say("n2", T0 + 60_000, replica(1))
    assert cluster.samples.series("s1", "scrape", 0, "jobs_waiting").problem == "no replica has told its jobs_waiting for 58 s"
    row.metrics.add(name="jobs_waiting", value=3.0)
    cluster.say("n2", T0 + 61_000, row)
    assert cluster.samples.series("s1", "scrape", 0, "jobs_waiting").problem == "", "another metric is what is missing"


def test_replicas_without_a_slot_go_by_their_node() -> None:
    cluster = Cluster()
    cluster.say("n1.example", T0 + 1000, replica(0, 0.25), flow("shop_agent.n1.example", 5), flow("my.box", 3, service="s2"))
    told = cluster.samples.replica("s1", 0, node="n1.example")
    assert told["cpu_cores"] == [0.25]
    assert told["connections_per_s"] == [5]
    assert cluster.samples.replica("s2", 1)["connections_per_s"] == [3]


def test_callers_that_are_held() -> None:
    samples = Cluster().samples
    samples.wake("n1", "s1", 2)
    samples.wake("n2", "s1", 3)
    assert samples.waiting("s1") == 5
    samples.wake("n1", "s1", 0)
    samples.wake("n3", "s2", 0)
    assert (samples.waiting("s1"), samples.waiting("s2")) == (3, 0)
    samples.forget_node("n2")
    assert samples.waiting("s1") == 0


def test_fifteen_minutes_are_kept_and_what_is_gone_is_forgotten() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1, service="gone"))
    for second in range(2, 1300):
        cluster.say("n1", T0 + second * 1000, replica(1))
    told = cluster.samples.service("s1")["at_ms"]
    assert 900 <= len(told) <= 1126
    assert told[-1] == T0 + 1_299_000
    assert cluster.samples.service("s1", T0 + 1_297_000)["at_ms"] == [T0 + 1_298_000, T0 + 1_299_000]
    assert "gone" not in cluster.samples._services


def test_where_there_are_many_nodes_steps_are_longer() -> None:
    assert [sample_s(nodes) for nodes in (0, 1, 200, 201, 1000, 10_000, 1_000_000)] == [1, 1, 1, 2, 5, 60, 60]
    cluster = Cluster()
    cluster.say("n0", T0 + 1000, replica(1, 0.5))
    for node in range(201):
        cluster.say(f"n{node}", T0 + 2000, *([replica(1, 1.0)] if node == 0 else []))
    assert cluster.samples.step_ms() == 2000
    cluster.say("n0", T0 + 3000, replica(1, 9.0))
    cluster.say("n0", T0 + 4000, replica(1, 2.0))
    cluster.pass_ms(10_000)
    assert cluster.samples.service("s1")["at_ms"] == [T0 + 2000, T0 + 4000]
    assert cluster.samples.service("s1")["cpu_cores"] == [1.0, 2.0]


def test_the_more_there_is_the_shorter_it_is_kept() -> None:
    table: Table[int] = Table(1, rows_max=10 * 200, kept=900)
    for key in range(10):
        table.add(key, 0, (1,), range(1, 2))
    table.tend(0, 900, 120)
    table.add(0, 0, (1,), range(2, 600))
    kept = table.get(0)
    assert kept is not None
    assert len(kept.values) <= 250
    for key in range(10, 1000):
        table.add(key, 0, (1,), range(1, 2))
    table.tend(0, 900, 120)
    table.add(1, 0, (1,), range(2, 600))
    least = table.get(1)
    assert least is not None
    assert 120 <= len(least.values) <= 150


def test_a_step_older_than_the_oldest_row_is_nowhere() -> None:
    ring = Ring(2)
    ring.add(10, 0, (1, 2), 5)
    ring.add(9, 0, (1, 2), 5)
    assert ring.row(9) is None
    ring.add(12, 1, (5,), 5)
    assert [list(ring.row(step) or ()) for step in (10, 11, 12)] == [[1, 2], [0, 0], [0, 5]]
    ring.add(100, 0, (7, 8), 5)
    assert (ring.first, ring.end) == (100, 101)


def test_the_end_of_a_reign_is_the_end_of_what_was_measured() -> None:
    cluster = Cluster()
    cluster.say("n1", T0 + 1000, replica(1))
    cluster.samples.wake("n1", "s1", 4)
    cluster.samples.clear()
    assert cluster.samples.service("s1")["at_ms"] == []
    assert cluster.samples.waiting("s1") == 0


def test_a_node_that_says_nothing_on_an_open_session_makes_traffic_unknown() -> None:
    cluster = Cluster()
    for second in range(1, 60):
        cluster.say("n1", T0 + second * 1000, flow("web.1", 5))
        if second < 20:
            cluster.say("n2", T0 + second * 1000, flow("web.1", 50))
        if second == 45:
            assert cluster.samples.series("s1", "connections", 0).problem == ""
    assert cluster.samples.series("s1", "connections", 0).problem == "n2 has told nothing of the last 40 s"
    cluster.samples.forget_node("n2")
    cluster.say("n1", T0 + 60_000, flow("web.1", 5))
    assert cluster.samples.series("s1", "connections", 0).problem == ""
