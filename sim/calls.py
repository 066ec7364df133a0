"""Calls from controllers to agents in the simulation: the agent's own service answers, in the agent's process.

Rules: a call is lost with the process that would answer, and with the way: whoever asks waits until its time is over.
Only calls with one answer; nobody follows logs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, cast

from agent.core.service import AgentService, Context
from model.errors import Unavailable
from sim.node import SimNode
from sim.process import answered

WAY_S: Final = (0.001, 0.005)
NO_CONTEXT: Final = cast(Context, None)
"""The methods themselves do not look at it; who may call was asked before them."""


class AgentCalls:
    """`SimController.ask_agent`. `passes(source, target)`: whether anything gets there now."""

    def __init__(self, nodes: Mapping[str, SimNode], passes: Callable[[str, str], bool], rng: Random) -> None:
        self._nodes = nodes
        self._passes = passes
        self._rng = rng

    async def __call__(self, controller: str, node: str, method: str, request: Any) -> Any:
        """Raises what the agent raises, and Unavailable when nothing listens; waits for ever when nothing gets there."""
        await self._way(controller, node)
        found = self._nodes[node]
        if not found.alive or found.runner is None:
            raise Unavailable(f"node {node} cannot be reached: connection refused")
        service = AgentService(found.runner)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        found.process.spawn(answered(getattr(service, method)(request, NO_CONTEXT), reply), f"{method} for {controller}")
        answer = await reply
        await self._way(node, controller)
        return answer

    async def _way(self, source: str, target: str) -> None:
        await asyncio.sleep(self._rng.uniform(*WAY_S))
        if not self._passes(source, target):
            await asyncio.get_running_loop().create_future()
