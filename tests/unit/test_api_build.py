"""What goes to the node that builds: all of a body, until the node takes no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from controller.api.build import CHUNKS_MAX, Feed
from protos import node_pb2 as pb


async def body(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"part"
        await asyncio.sleep(0)


async def kinds(feed: Feed) -> list[str | None]:
    return [message.WhichOneof("kind") async for message in feed.messages()]


async def test_all_of_a_body_goes_and_then_its_end() -> None:
    feed = Feed(pb.BuildStart())
    sent, _ = await asyncio.gather(kinds(feed), feed.take(body(3 * CHUNKS_MAX)))
    assert sent == ["start", *["context"] * 3 * CHUNKS_MAX, "context_end"]


async def test_who_waits_for_the_next_message_of_a_build_that_has_ended_is_let_go() -> None:
    """Before the body is through: gRPC's own task waited for ever."""
    feed = Feed(pb.BuildStart())
    sending = asyncio.ensure_future(kinds(feed))
    await asyncio.sleep(0)
    feed.end()
    await feed.take(body(3 * CHUNKS_MAX))
    async with asyncio.timeout(5):
        assert await sending == ["start"]
