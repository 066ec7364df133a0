"""What the node's replicas use now, for the Stats call.

Rules: one read of each container's cgroup, and one of all links; a container that ended meanwhile is left out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.core.runner import Runner
from agent.plan import samples


async def stats(runner: Runner) -> dict[str, Any]:
    """`replicas`: one row for each running container, CPU in seconds since its start, memory in bytes; what it received and
    sent counts since it was attached to its networks."""
    rows = []
    sandboxes = runner.ports.machine.read().sandboxes
    for life in [life for life in runner.core.lives.values() if life.stage == "running"]:
        usage = await runner.ports.runtime.usage(life.container_id)
        if usage is not None:
            rows.append(
                {
                    "name": life.name,
                    "service_id": life.id.service_id,
                    "slot": life.id.slot,
                    "created_ms": life.id.created_ms,
                    "container_id": life.container_id,
                    **asdict(usage),
                    **sandboxes.get(samples.sandbox_link(life.sandbox), samples.Link(0, 0))._asdict(),
                }
            )
    return {"node": runner.core.node, "replicas": rows}
