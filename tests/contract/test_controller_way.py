"""The whole way: a service over HTTPS, a decision, a Desired on a node's session, its status back in the API."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.controller_harness import Node, controller_process, service_body

pytestmark = [pytest.mark.contract, pytest.mark.timeout(90)]


async def test_a_service_goes_to_a_node_and_its_status_comes_back() -> None:
    with controller_process("--node-timeout", "3s") as controller:
        operator = controller.operator()
        node = Node(controller, "n1")
        async with node.session():
            await node.until(lambda: node.received)
            assert node.received[0].WhichOneof("kind") == "welcome"
            assert node.received[0].welcome.epoch == 1
            answer = operator.ok("POST", "/v1/services", service_body("web", replicas=3))
            await node.until(lambda: node.slots() == 3)
            (service,) = node.desired.values()
            assert (service.name, service.service_id) == ("web", answer["id"])
            assert len(service.specs) == 1
            await _until_running(operator, 3)
            operator.ok("POST", "/v1/services/web/scale", {"replicas": 1})
            await node.until(lambda: node.slots() == 1)
            (service,) = node.desired.values()
            assert not service.specs, "the spec was sent before"
            operator.ok("DELETE", "/v1/services/web")
            await node.until(lambda: not node.desired)
        assert controller.stop() == 0


async def _until_running(operator: object, wanted: int) -> None:
    async with asyncio.timeout(20):
        while True:
            (row,) = await asyncio.to_thread(operator.ok, "GET", "/v1/services?index=1&wait=1")  # type: ignore[attr-defined]
            if row["running"] == wanted:
                return
