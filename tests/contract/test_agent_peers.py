"""What a node wants of the others: whose turn it is, and how long a peer is borne with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio

from agent.core.clock import RealClock
from agent.core.peers import PeerBlobs
from agent.images.peers import Peer, PeerFailed
from protos import node_pb2 as pb
from protos import node_pb2_grpc
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


class Dribbling(node_pb2_grpc.AgentServicer):
    """Its answer has neither bytes nor an end."""

    async def Blob(self, request: pb.BlobRequest, context: Any) -> AsyncIterator[pb.Chunk]:
        while True:
            yield pb.Chunk()


async def test_a_peer_that_answers_for_ever_and_gives_nothing_has_failed() -> None:
    keys = Keys.make()
    server = aio.server()
    node_pb2_grpc.add_AgentServicer_to_server(Dribbling(), server)  # type: ignore[abstract]
    port = server.add_secure_port("127.0.0.1:0", keys.node.server())
    await server.start()
    peers = PeerBlobs(keys.node, RealClock(), silence_s=0.2)
    try:
        with pytest.raises(PeerFailed, match=r"node n1 says next to nothing for 0\.2 s"):
            async with asyncio.timeout(30):
                assert [piece async for piece in peers.read(Peer("n1", f"127.0.0.1:{port}"), "sha256:1", 0)]
    finally:
        await peers.close()
        await server.stop(0)
