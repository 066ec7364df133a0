"""`shoal export` on a node: all files of a container as a tar, as they come.

Rules: a file that changes meanwhile is what it was when it was read. An archive that has an end is whole: when the container is
removed on the way, it breaks off.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from agent.plan.records import Life
from agent.runtime.port import ContainerRuntime
from model.errors import Conflict
from protos import node_pb2 as pb


async def exported(runtime: ContainerRuntime, life: Life) -> AsyncIterator[pb.Chunk]:
    """Raises Conflict, NotFound, ImageError."""
    from agent.images.written import root_pieces

    if not life.container_id:
        raise Conflict(f"{life.name} has no container yet")
    root = runtime.root(life.container_id)
    if not await asyncio.to_thread(os.path.ismount, root):
        raise Conflict(f"{life.name}: its files are not at hand on this node: start it again first")
    pieces = root_pieces(root)
    reading: asyncio.Future[bytes] | None = None
    last = b""
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(next, pieces, b""))
            piece = await asyncio.shield(reading)
            if not piece:
                break
            if last:
                yield pb.Chunk(data=last)
            last = piece
        runtime.root(life.container_id)
        yield pb.Chunk(data=last)
    finally:
        if reading is not None:
            await asyncio.wait({reading})  # a thread may still be in it
        await asyncio.to_thread(pieces.close)
