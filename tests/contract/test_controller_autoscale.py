"""Autoscaling through a real controller: samples on a session raise the count, a call wakes, people pause it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from protos import node_pb2 as pb
from tests.contract.controller_harness import Client, ControllerProcess, Node, controller_process, eventually

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def controller() -> Iterator[ControllerProcess]:
    with controller_process("--node-timeout", "3s", "--scale-every", "500ms") as process:
        yield process


def stack(**policy: Any) -> dict[str, Any]:
    """A service that scales itself by connections, in a moment."""
    slow = {"window": "0s", "every": "1s", "to_zero_after": "0s"}
    return {"name": "s", "services": {"web": {
        "image": "busybox", "deploy": {"replicas": 2},
        "x-autoscale": {"min": 2, "max": 9, "metrics": [{"connections": 50}], "scale_in": slow, **policy},
    }}}  # fmt: skip


@asynccontextmanager
async def sampling(node: Node, call: Any, per_s: list[float]) -> Any:
    """Says four times a second what was balanced to the service: `per_s[0]` connections a second."""

    async def tell() -> None:
        while True:
            rows = [
                pb.TrafficSample(service_id=key, replica=f"{service.name}.1", connections_per_s=per_s[0])
                for key, service in node.desired.items()
            ]
            samples = pb.Samples(at_ms=int(time.time() * 1000), interval_ms=250, node=pb.NodeSample(), traffic=rows)
            await node._say(call, pb.FromNode(samples=samples))
            await asyncio.sleep(0.25)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_load_raises_the_count_and_the_reasons_can_be_read(controller: ControllerProcess, operator: Client) -> None:
    node = Node(controller, "n1")
    async with node.session() as call:
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", stack())
        await node.until(lambda: node.slots() == 2)
        async with sampling(node, call, [300.0]):
            await node.until(lambda: node.slots() == 6)
            found = await asyncio.to_thread(operator.ok, "GET", "/v1/autoscale/s_web")
            (row,) = await asyncio.to_thread(operator.ok, "GET", "/v1/autoscale")
        assert (row["now"], row["wanted"], row["min"], row["max"]) == (6, 6, 2, 9)
        assert row["metrics"][0]["text"].endswith(" of 50/s")
        assert found["history"][-1]["wanted"] == 6
        assert "connections" in found["history"][-1]["sentence"]
        told = await asyncio.to_thread(operator.ok, "GET", "/v1/services/s_web/explain")
        assert told["lines"][0] == "6 replicas wanted by its autoscaler"
        assert any("autoscaling: " in event["sentence"] for event in told["events"])
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", stack())
        assert (await asyncio.to_thread(operator.ok, "GET", "/v1/services/s_web"))["scale"] == 6
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/s")
        await node.until(lambda: node.slots() == 0)


async def test_paused_it_stays_and_a_policy_that_recommends_only_says_so(
    controller: ControllerProcess, operator: Client
) -> None:
    node = Node(controller, "n2")
    async with node.session() as call:
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", stack(mode="recommend"))
        await node.until(lambda: node.slots() == 2)
        async with sampling(node, call, [300.0]):
            await _until(operator, lambda row: row["wanted"] == 6)
            assert node.slots() == 2
            await asyncio.to_thread(operator.ok, "POST", "/v1/autoscale/s_web/pause", {"direction": "out"})
            await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", stack())
            await _until(operator, lambda row: row["mode"] == "on" and row["wanted"] == 2)
            assert node.slots() == 2
            await asyncio.to_thread(operator.ok, "POST", "/v1/autoscale/s_web/resume")
            await node.until(lambda: node.slots() == 6)
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/s")
        await node.until(lambda: node.slots() == 0)


async def _until(operator: Client, true: Any) -> None:
    await asyncio.to_thread(eventually, lambda: true(operator.ok("GET", "/v1/autoscale")[0]))


async def test_a_sleeping_service_is_woken_by_its_first_caller(controller: ControllerProcess, operator: Client) -> None:
    node = Node(controller, "n3")
    async with node.session() as call:
        sleeping = stack(min=0)
        sleeping["services"]["web"]["deploy"]["replicas"] = 0
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", sleeping)
        service = await asyncio.to_thread(operator.ok, "GET", "/v1/services/s_web")
        assert service["scale"] == 0
        async with sampling(node, call, [0.0]):
            await node._say(call, pb.FromNode(wake=pb.Wake(service_id=service["id"], waiting=3)))
            await node.until(lambda: node.slots() == 1)
            (row,) = await asyncio.to_thread(operator.ok, "GET", "/v1/autoscale")
            assert "3 callers waiting" in row["last"]["sentence"]
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/s")
        await node.until(lambda: node.slots() == 0)


async def test_another_place_of_metrics_and_another_metric_reach_nodes_without_a_new_version(
    controller: ControllerProcess, operator: Client
) -> None:
    node = Node(controller, "n4")
    async with node.session() as call:
        for port, path, metric in ((9100, "/metrics", "jobs"), (9200, "/m", "jobs"), (9200, "/m", "lag")):
            wanted = stack(metrics=[{"scrape": {"metric": metric, "target": 5}}])
            wanted["services"]["web"]["x-metrics"] = {"port": port, "path": path}
            await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/s", wanted)
            scrape = pb.Scrape(port=port, path=path, names=[metric])
            await node.until(partial(_asks, node, scrape, 2))
        (service,) = node.desired.values()
        assert {slot.version for slot in service.slots} == {1}
        key = pb.ReplicaKey(service_id=service.service_id, slot=1)
        row = pb.ReplicaSample(key=key, metrics_problem="s_web.1: port 9200: no")
        samples = pb.Samples(at_ms=int(time.time() * 1000), interval_ms=1000, replicas=[row])
        await node._say(call, pb.FromNode(samples=samples))
        await _until(operator, lambda row: row["metrics"][0]["problem"] == "n4: s_web.1: port 9200: no")
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/s")
        await node.until(lambda: node.slots() == 0)


def _asks(node: Node, scrape: pb.Scrape, count: int) -> bool:
    return [row.scrape for row in node.desired.values()] == [scrape] and node.slots() == count


async def test_a_wrong_policy_is_refused_with_its_field(operator: Client) -> None:
    status, answer = await asyncio.to_thread(operator.request, "PUT", "/v1/stacks/s", stack(max=1))
    assert status == 400
    assert "services.web.x-autoscale.max: found 1, but min says 2" in answer["error"]["message"]
    status, answer = await asyncio.to_thread(operator.request, "GET", "/v1/autoscale/nobody")
    assert status == 404
