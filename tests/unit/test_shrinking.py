"""How busy replicas are is counted of services that are scaled in, as long as they have too many, and of no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.loops.picture import Change
from controller.loops.shrinking import Shrinking
from controller.samples.store import MemorySamples
from protos import node_pb2 as pb
from tests.scenarios.model_cluster import ModelCluster


class StillClock:
    """A time that stands."""

    def now(self) -> float:
        return 1_800_000_000.0

    def monotonic(self) -> float:
        return 1_000.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    cluster.node("n1")
    cluster.service("web", 3)
    cluster.service("other", 3)
    cluster.converge()
    return cluster


def traffic(samples: MemorySamples, service_id: str, **open_: int) -> None:
    now_ms = int(StillClock().now() * 1000)
    rows = [
        pb.TrafficSample(service_id=service_id, replica=name.replace("_", "."), open=count) for name, count in open_.items()
    ]
    samples.take("n1", pb.Samples(at_ms=now_ms, interval_ms=1000, traffic=rows))


def test_only_who_shrinks_is_counted_until_it_has_shrunk(cluster: ModelCluster) -> None:
    samples = MemorySamples(StillClock())
    traffic(samples, cluster.docs["services"]["web"].id, web_1=5, web_3=2)
    shrinking = Shrinking(samples)
    assert shrinking.busy(cluster.view()) == {}
    before = cluster.docs["services"]["web"]
    cluster.change("web", scale=2)
    shrinking.take([Change("services", "web", before, cluster.docs["services"]["web"], 7)])
    shrinking.take([Change("services", "other", None, replace(before, scale=9), 8)])
    assert shrinking.busy(cluster.view()) == {"web": {1: 5, 3: 2}}
    cluster.converge()
    assert shrinking.busy(cluster.view()) == {}
