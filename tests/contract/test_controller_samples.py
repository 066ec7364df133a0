"""What nodes measure, from their session to the API: histories, the stream, who may be asked, what containers use now."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protos import node_pb2 as pb
from tests.contract.controller_harness import Client, ControllerProcess, Node, controller_process, service_body

pytestmark = pytest.mark.contract
STEP_S = 0.1


@contextlib.asynccontextmanager
async def measuring(controller: ControllerProcess, name: str, service_id: str, slots: range) -> AsyncIterator[Node]:
    """A node that sends a sample every tenth of a second: each of its replicas uses half a core, and gets 10 connections/s."""
    node = await asyncio.to_thread(Node, controller, name)
    async with node.session() as call:
        await node.until(lambda: node.received)
        sending = asyncio.create_task(_send(node, call, service_id, slots))
        try:
            yield node
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending


async def _send(node: Node, call: Any, service_id: str, slots: range) -> None:
    while True:
        replicas = [
            pb.ReplicaSample(key=pb.ReplicaKey(service_id=service_id, slot=slot), cpu_cores=0.5, memory_bytes=1000)
            for slot in slots
        ]
        traffic = [
            pb.TrafficSample(service_id=service_id, replica=f"web.{slot}", connections_per_s=10, open=2) for slot in (1, 2)
        ]
        samples = pb.Samples(
            at_ms=int(time.time() * 1000), interval_ms=int(STEP_S * 1000) + 100, replicas=replicas, traffic=traffic,
            node=pb.NodeSample(cpu_cores=1.25, memory_bytes=5000, disk_bytes=7),
        )  # fmt: skip
        await node._say(call, pb.FromNode(samples=samples))
        await asyncio.sleep(STEP_S)


async def history(operator: Client, path: str, probe: Any) -> Any:
    """The answer once `probe` is true of it."""
    async with asyncio.timeout(30):
        while True:
            found = await asyncio.to_thread(operator.ok, "GET", path)
            if probe(found):
                return found
            await asyncio.sleep(0.1)


async def test_samples_of_two_nodes_become_one_history() -> None:
    with controller_process("--node-timeout", "5s") as controller:
        operator = controller.operator()
        made = await asyncio.to_thread(operator.ok, "POST", "/v1/services", service_body("web", replicas=0))
        service_id = made["id"]
        async with (
            measuring(controller, "n1", service_id, range(1, 2)) as n1,
            measuring(controller, "n2", service_id, range(2, 4)),
        ):
            assert [row.welcome.sample_s for row in n1.received if row.WhichOneof("kind") == "welcome"] == [1.0]
            path = "/v1/services/web/history"
            found = await history(operator, path, lambda told: told["replicas"][-2:] == [3, 3])
            assert (found["name"], found["step_ms"]) == ("web", 1000)
            assert found["at_ms"][-1] - found["at_ms"][-2] == 1000
            assert abs(found["at_ms"][-1] / 1000 - time.time()) < 4
            assert (found["cpu_cores"][-1], found["connections_per_s"][-1], found["open"][-1]) == (1.5, 40, 8)
            some = await asyncio.to_thread(operator.ok, "GET", f"{path}?fields=open,cpu_cores&since={found['at_ms'][-2]}")
            assert sorted(some) == ["at_ms", "cpu_cores", "name", "open", "step_ms"]
            assert some["at_ms"][0] == found["at_ms"][-1]
            node = await asyncio.to_thread(operator.ok, "GET", "/v1/nodes/n2/history")
            assert (node["cpu_cores"][-1], node["memory_bytes"][-1], node["disk_bytes"][-1]) == (1.25, 5000, 7)
            for wrong, status in ((f"{path}?fields=nonsense", 400), ("/v1/services/none/history", 404)):
                assert (await asyncio.to_thread(operator.get, wrong))[0] == status
            await _streams(operator)


async def _streams(operator: Client) -> None:
    """One event, or one each second."""
    status, text = await asyncio.to_thread(operator.get, "/v1/stream")
    assert (status, operator.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    event, data, *rest = text.split("\n")
    assert (event, rest) == ("event: samples", ["", ""])
    told = json.loads(data.removeprefix("data: "))
    [service] = told["services"]
    assert (service["name"], service["wanted"], service["replicas"], service["decision"]) == ("web", 0, 3, None)
    assert [(row["name"], row["cpus"], row["cpu_cores"]) for row in told["nodes"]] == [("n1", 2.0, 1.25), ("n2", 2.0, 1.25)]
    assert {gap % 1000 for gap in await asyncio.to_thread(_followed, operator, 3)} == {0}


def _followed(operator: Client, count: int) -> list[int]:
    """The time between events."""
    with contextlib.closing(operator.connect()) as connection:
        connection.request("GET", "/v1/stream?follow=true")
        response = connection.getresponse()
        times: list[int] = []
        while len(times) < count:
            line = response.readline()
            if line.startswith(b"data: "):
                times.append(json.loads(line[6:])["at_ms"])
    return [after - before for before, after in itertools.pairwise(times)]


async def test_callers_that_are_held_are_heard_of() -> None:
    """A Wake is taken like anything else: the session goes on."""
    with controller_process("--node-timeout", "5s") as controller:
        node = await asyncio.to_thread(Node, controller, "n1")
        async with node.session() as call:
            await node.until(lambda: node.received)
            await node._say(call, pb.FromNode(wake=pb.Wake(service_id="s", waiting=3)))
            beats = len(node.received)
            await node.until(lambda: len(node.received) > beats + 2)
