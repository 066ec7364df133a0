"""What a node wants of the others, without any of them: whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.clock import RealClock
from agent.core.peers import PeerBlobs
from tests.contract.agent_support import Keys

pytestmark = pytest.mark.contract


async def test_a_blob_is_wanted_by_one_at_a_time_however_many_come_and_go() -> None:
    peers = PeerBlobs(Keys.make().node, RealClock())
    inside, most = 0, 0

    async def want(stays: asyncio.Event) -> None:
        nonlocal inside, most
        async with peers.want("sha256:1", 0):
            inside += 1
            most = max(most, inside)
            await stays.wait()
            inside -= 1

    ends = [asyncio.Event() for _ in range(4)]
    first, second = (asyncio.ensure_future(want(end)) for end in ends[:2])
    await asyncio.sleep(0)
    ends[0].set()
    await first
    third = asyncio.ensure_future(want(ends[2]))  # while the second has its turn
    await asyncio.sleep(0)
    for end in ends:
        end.set()
    await asyncio.gather(second, third)
    assert most == 1
