"""Building an image on one node: the context is passed through as it comes, the build's output comes back as lines.

Rules: nothing of a context is held. The answer begins when the context is through. Arguments and credentials come in headers,
are used for this one build, and neither kept nor told. When the caller goes away the build ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from grpc import aio
from starlette.requests import Request
from starlette.responses import Response

from controller.agents import error_of
from controller.api import rows
from controller.api.context import Api, Call
from controller.api.headers import decoded
from controller.api.heard import until
from controller.api.images import CHANGE_S, Row, chosen, node_rows
from controller.api.registry_logins import logins_of
from controller.api.routing import leads
from controller.api.streams import ndjson
from model.errors import BadInput, Conflict, ShoalError, Unavailable
from model.image_ref import parse_image_ref
from protos import node_pb2 as pb

ARGS_HEADER: Final = "X-Shoal-Build-Args"
NAMES_MAX: Final = 100
CHUNKS_MAX: Final = 8
HEARD_TRIES: Final = 60


async def build(api: Api, call: Call) -> Response:
    """The context is the body, a tar."""
    stream = call.request.stream()
    try:
        start = start_of(call.query, call.request)
        node = _node(api, call.query["node"])
        stub = await api.agents.stub(node)
        if not start.pull:
            await _brought(api, node, call.query["base"] or ())
    except ShoalError:
        async for _ in stream:
            pass  # a caller that still sends would not hear the answer
        raise
    feed = Feed(start)
    building = stub.Build(feed.messages())
    building.add_done_callback(lambda _: feed.end())
    try:
        await feed.take(stream)
    except BaseException:
        building.cancel()
        raise
    return ndjson(_told(api, building, node))


async def _brought(api: Api, node: str, bases: Sequence[str]) -> None:
    """Base images that other nodes have and this one lacks come from there: they may be in no registry. Where that fails the
    node asks the registry, and says what is wrong."""
    for name in bases if leads(api) else ():
        with contextlib.suppress(ShoalError):
            reference = parse_image_ref(name).canonical
            digest = api.held().digest_of(reference)
            if digest and not api.held().means(node, reference):
                request = pb.ImageRequest(reference=reference, policy="missing", digest=digest)
                async with aclosing(api.agents.stream(node, "PullImage", request)) as found:
                    async for _ in found:
                        pass


def start_of(query: Mapping[str, Any], request: Request) -> pb.BuildStart:
    """Raises BadInput."""
    names: tuple[str, ...] = query["name"] or ()
    if len(names) > NAMES_MAX:
        raise BadInput(f"query name: more than {NAMES_MAX} names")
    for name in names:
        if parse_image_ref(name).digest is not None:
            raise BadInput(f"{name}: a new name has no digest")
    pairs = [text.partition("=") for text in query["label"] or ()]
    logins = logins_of(request)
    auths = {name: pb.RegistryAuth(username=login.username, password=login.password) for name, login in logins.items()}
    return pb.BuildStart(
        dockerfile=query["dockerfile"] or "", names=names, target=query["target"] or "", args=_args(request),
        labels={key: value for key, _, value in pairs}, no_cache=query["no_cache"], pull=query["pull"], auths=auths,
    )  # fmt: skip


def _args(request: Request) -> dict[str, str]:
    """base64url of a JSON object; the error does not repeat it."""
    text = request.headers.get(ARGS_HEADER, "")
    try:
        found = decoded(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadInput(f"{ARGS_HEADER}: expected base64url of a JSON object of texts")
    return found


def _node(api: Api, wanted: str | None) -> str:
    """The one that was named, or the one with the largest part of its processors and memory free. Raises NotFound, Conflict."""
    if wanted:
        return chosen(api, [wanted])[0]
    found = [row for row in rows.nodes(api) if row["state"] == "ready" and row["availability"] == "active"]
    if not found:
        raise Conflict("no node is ready to build on: see `shoal node ls`")
    return str(max(found, key=_free)["name"])


def _free(row: Row) -> float:
    reserved = row["reserved"]
    parts = [1 - reserved[what] / row[what] for what in ("cpus", "memory_bytes") if row[what]]
    return min(parts, default=0.0)


class Feed:
    """What goes to the node, as fast as it takes it, until `end`."""

    def __init__(self, start: pb.BuildStart) -> None:
        self._ended = asyncio.Event()
        self._start = start
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS_MAX)

    async def messages(self) -> AsyncGenerator[pb.BuildInput, None]:
        yield pb.BuildInput(start=self._start)
        while chunk := await self._chunks.get():
            yield pb.BuildInput(context=chunk)
        if not self._ended.is_set():
            yield pb.BuildInput(context_end=True)

    def end(self) -> None:
        """The node takes no more. gRPC leaves who waits for the next message alone: he is let go here."""
        self._ended.set()
        if not self._chunks.full():
            self._chunks.put_nowait(b"")

    async def take(self, stream: AsyncIterator[bytes]) -> None:
        """All of a body, also when the node wants no more of it: who still sends would not hear the answer."""
        async for chunk in stream:
            if chunk:
                await self._put(chunk)
        await self._put(b"")

    async def _put(self, chunk: bytes) -> None:
        if self._ended.is_set():
            return
        if not self._chunks.full():
            self._chunks.put_nowait(chunk)
            return
        putting, ending = asyncio.ensure_future(self._chunks.put(chunk)), asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({putting, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
            ending.cancel()


async def _told(api: Api, building: Any, node: str) -> AsyncGenerator[Row, None]:
    """The build's rows. The last one goes out when its names stand for the new image everywhere."""
    async with aclosing(_output(building, node)) as found:
        async for row in found:
            if "built" in row:
                await _renamed(api, node, row["built"])
            yield row


async def _renamed(api: Api, node: str, built: Row) -> None:
    """Other nodes lose the names for what they had under them, as an image does when its name is given away; the leader has
    heard of the new one, so that what is applied next is pinned to it."""
    if not built["names"]:
        return

    async def lose(other: str, name: str) -> None:
        with contextlib.suppress(ShoalError):  # it went meanwhile, or its node cannot be asked
            await api.agents.call(other, "RemoveImage", pb.ImageRequest(reference=name, force=True), CHANGE_S)

    held = [row for row in await node_rows(api) if row["node"] != node and row["id"] != built["id"]]
    await asyncio.gather(*(lose(row["node"], name) for row in held for name in row["names"] if name in built["names"]))
    canonical = [parse_image_ref(name).canonical for name in built["names"]]
    await until(api, lambda: all(api.held().digest_of(name) == built["digest"] for name in canonical), HEARD_TRIES)


async def _output(building: Any, node: str) -> AsyncGenerator[Row, None]:
    try:
        async for output in building:
            kind = output.WhichOneof("kind")
            if kind == "output":
                yield {"node": node, "text": output.output.decode("utf-8", "replace")}
            elif kind == "result":
                yield {"node": node, "text": "", "built": json.loads(output.result)}
                return
            elif kind == "failure":
                yield {"node": node, "text": "", "error": output.failure.text, "exit_code": output.failure.exit_code}
                return
        silent = f"node {node} ended the build without a word: look at its log"
        yield {"node": node, "text": "", "error": silent, "exit_code": 1}
    except aio.AioRpcError as error:
        told = error_of(node, error)
        text = str(told) if isinstance(told, Unavailable) else str(told).removeprefix(f"node {node}: ")
        yield {"node": node, "text": "", "error": text, "exit_code": 1}
    finally:
        building.cancel()
