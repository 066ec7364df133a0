"""Handlers about images: asked of, and done on, the nodes themselves.

Rules: an archive is passed through in chunks and never held; the slowest node sets the pace. A node that fails says so in its
own row and does not stop the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from grpc import aio
from starlette.responses import Response

from controller.agents import error_of
from controller.api.context import Api, Call
from controller.api.schemas import PullBody
from controller.api.streams import guarded, merged, ndjson
from model.errors import BadInput, NotFound, ShoalError, Unavailable
from protos import node_pb2 as pb

CHUNKS_MAX: Final = 8
LOAD_S: Final = 3600.0

Row = dict[str, Any]


async def list_images(api: Api, call: Call) -> list[Row]:
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "Images", pb.Empty(), 5.0))
    return [
        {"node": node, **image}
        for node, answer in answers.items()
        if not isinstance(answer, ShoalError)
        for image in json.loads(answer.json)
    ]


async def pull(api: Api, call: Call) -> Response:
    body: PullBody = call.body
    nodes = _chosen(api, body.nodes)
    sources = [guarded(_pull(api, node, body.reference), {"node": node, "text": ""}) for node in nodes]
    return ndjson(merged(sources))


def _chosen(api: Api, names: list[str]) -> list[str]:
    nodes = names or api.agents.nodes()
    for name in names:
        if name not in api.snapshot().of("nodes"):
            raise NotFound(f"no node is called {name}: see `shoal node ls`")
    if not nodes:
        raise Unavailable("no node is ready: see `shoal node ls`")
    return nodes


async def _pull(api: Api, node: str, reference: str) -> AsyncGenerator[Row, None]:
    async with aclosing(api.agents.stream(node, "PullImage", pb.ImageRequest(reference=reference))) as found:
        async for progress in found:
            row = {"node": node, "text": progress.text, "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes}
            yield {**row, "image": json.loads(progress.result)} if progress.result else row


async def remove(api: Api, call: Call) -> list[Row]:
    reference = call.path["reference"]
    request = pb.ImageRequest(reference=reference, force=call.query["force"])
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "RemoveImage", request, 60.0))
    removed: list[Row] = [
        {"node": node, "removed": reference} for node, answer in answers.items() if not isinstance(answer, ShoalError)
    ]
    failed = {node: answer for node, answer in answers.items() if isinstance(answer, ShoalError)}
    others = [answer for answer in failed.values() if not isinstance(answer, NotFound)]
    if others:
        raise others[0]
    if not removed:
        raise NotFound(f"image {reference} is on no node: see `shoal image ls`")
    return removed


async def load(api: Api, call: Call) -> list[Row]:
    nodes = _chosen(api, [call.query["node"]] if call.query["node"] else [])
    queues: dict[str, asyncio.Queue[bytes | None]] = {node: asyncio.Queue(CHUNKS_MAX) for node in nodes}
    loads = {node: asyncio.create_task(_load(api, node, queues[node])) for node in nodes}
    try:
        size = 0
        async for chunk in call.request.stream():
            size += len(chunk)
            if chunk:
                await _give(chunk, queues, loads)
        if not size:
            raise BadInput("image load: the body is empty: send a tar archive")
        await _give(None, queues, loads)
        answers = await asyncio.gather(*loads.values(), return_exceptions=True)
    finally:
        for task in loads.values():
            task.cancel()
        await asyncio.gather(*loads.values(), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [{"node": node, "names": answer} for node, answer in zip(loads, answers, strict=True)]


async def _give(
    chunk: bytes | None, queues: dict[str, asyncio.Queue[bytes | None]], loads: dict[str, asyncio.Task[list[str]]]
) -> None:
    """To every node that is still taking."""
    for node, queue in queues.items():
        if queue.full():
            putting = asyncio.ensure_future(queue.put(chunk))
            try:
                await asyncio.wait({putting, loads[node]}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                putting.cancel()
        else:
            queue.put_nowait(chunk)


async def _load(api: Api, node: str, queue: asyncio.Queue[bytes | None]) -> list[str]:
    async def chunks() -> AsyncIterator[pb.Chunk]:
        while (data := await queue.get()) is not None:
            yield pb.Chunk(data=data)

    stub = await api.agents.stub(node)
    try:
        answer = await stub.LoadImage(chunks(), timeout=LOAD_S)
    except aio.AioRpcError as error:
        raise error_of(node, error) from None
    names: list[str] = json.loads(answer.json).get("names", [])
    return names
