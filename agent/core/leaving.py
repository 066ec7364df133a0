"""A node that was removed from the cluster: everything of the cluster goes, images and named volumes stay.

Rules: bounded: what does not stop in time is left to the operator, and the node leaves all the same.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agent.core.journal import Kept
from agent.core.ports import Ports
from agent.core.runner import Runner

log = logging.getLogger(__name__)
REMOVED_STOP_S: Final = 60.0


async def leave(runner: Runner, journal: Kept, ports: Ports, reason: str) -> None:
    """While `runner.run()` goes on. Raises what the ports raise when they take their own things away."""
    log.warning("removed from the cluster (%s): stopping %d replicas", reason, len(runner.core.lives))
    runner.leave()
    try:
        async with asyncio.timeout(REMOVED_STOP_S):
            await runner.idle()
    except TimeoutError:
        log.error("%d replicas did not stop in %g s", len(runner.core.lives), REMOVED_STOP_S)
    await ports.balance.close(remove=True)
    await ports.network.close(remove=True)
    journal.wipe()
