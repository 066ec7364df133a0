"""`x-priority` from the file to the node: a real controller stops the lower replica and says for whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.controller_harness import Client, ControllerProcess, Node

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


def stack(**priorities: int) -> dict[str, Any]:
    """Services of one replica each that need the whole node `full`."""
    deploy = {
        "replicas": 1, "resources": {"reservations": {"cpus": "2"}},
        "placement": {"constraints": ["node.hostname==full"]},
    }  # fmt: skip
    services = {name: {"image": "busybox", "deploy": deploy, "x-priority": number} for name, number in priorities.items()}
    return {"name": "ranks", "services": services}


async def test_the_higher_priority_takes_the_room_and_the_plan_had_said_so(
    controller: ControllerProcess, operator: Client
) -> None:
    node = Node(controller, "full")
    async with node.session():
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/ranks", stack(batch=0))
        await node.until(lambda: [row.name for row in node.desired.values()] == ["ranks_batch"])
        both = stack(batch=0, web=10)
        planned = await asyncio.to_thread(operator.ok, "POST", "/v1/stacks/ranks/plan", both)
        assert [row["reason"] for row in planned["placements"]] == ["new; stopped for it: ranks_batch.1"]
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/ranks", both)
        await node.until(lambda: [row.name for row in node.desired.values()] == ["ranks_web"])
        told = await asyncio.to_thread(operator.ok, "GET", "/v1/services/ranks_batch.1/explain")
        assert "ranks_batch.1 waits for a node: preempted by ranks_web.1 on full: " in told["sentence"]
        await asyncio.to_thread(operator.ok, "PUT", "/v1/stacks/ranks", stack(batch=0))
        await node.until(lambda: [row.name for row in node.desired.values()] == ["ranks_batch"])
    await asyncio.to_thread(operator.ok, "DELETE", "/v1/stacks/ranks")
