"""The building part of the agent's gRPC service.

Rules: a caller that goes away ends its build. Arguments and credentials are used for the build they came with, and neither kept
nor told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from model.errors import BadInput, ShoalError, Unavailable
from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.build.builder import Builder, Order
    from agent.images.records import Image

_WAITING_MAX: Final = 64


async def build(builder: Builder | None, requests: AsyncIterator[pb.BuildInput]) -> AsyncIterator[pb.BuildOutput]:
    """Output as it comes, at last the image or the failure."""
    from agent.build.builder import BuildFailed

    if builder is None:
        await _drained(requests)
        raise Unavailable("this node builds no images: install buildah there, and start its agent again")
    order = await _order(requests)
    news: asyncio.Queue[str | None] = asyncio.Queue(_WAITING_MAX)
    work = asyncio.ensure_future(_build(builder, order, requests, news))
    try:
        while (text := await news.get()) is not None:
            yield pb.BuildOutput(output=text.encode())
        try:
            image = await work
        except BuildFailed as error:
            yield pb.BuildOutput(failure=pb.BuildFailure(text=error.failure.text, exit_code=error.failure.exit_code))
            return
        result = {"id": image.id, "digest": image.digest, "names": _names(order, image), "size_bytes": image.size_bytes}
        yield pb.BuildOutput(result=json.dumps(result).encode())
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _build(
    builder: Builder, order: Order, requests: AsyncIterator[pb.BuildInput], news: asyncio.Queue[str | None]
) -> Image:
    try:
        return await builder.build(order, _context(requests), news.put)
    except ShoalError:
        await _drained(requests)
        raise
    finally:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # else nobody takes from the queue any more
            await news.put(None)


async def _drained(requests: AsyncIterator[pb.BuildInput]) -> None:
    """Of a caller that still sends, gRPC would lose the error."""
    async for _ in requests:
        pass


def _names(order: Order, image: Image) -> list[str]:
    from model.image_ref import parse_image_ref

    wanted = {parse_image_ref(name).familiar for name in order.names}
    return [name for name in image.names if name in wanted]


async def _order(requests: AsyncIterator[pb.BuildInput]) -> Order:
    from agent.build.builder import Order
    from agent.images.records import Credentials

    async for request in requests:
        if request.WhichOneof("kind") != "start":
            break
        start = request.start
        auths = {name: Credentials(auth.username, auth.password) for name, auth in start.auths.items()}
        more: dict[str, Any] = {"no_cache": start.no_cache, "pull": start.pull, "auths": auths}
        return Order(
            start.dockerfile or "Dockerfile", tuple(start.names), start.target, dict(start.args), dict(start.labels), **more
        )
    raise BadInput("the first message of a build is its start")


async def _context(requests: AsyncIterator[pb.BuildInput]) -> AsyncIterator[bytes]:
    """Raises Unavailable when it ends in the middle."""
    async for request in requests:
        kind = request.WhichOneof("kind")
        if kind == "context_end":
            return
        if kind != "context":
            raise BadInput("a build's start is followed by its context")
        yield request.context
    raise Unavailable("the build context ended early: it is not built")
