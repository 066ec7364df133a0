"""Handlers about images: asked of, and done on, the nodes themselves.

Rules: an archive is passed through in chunks and never held; the slowest node sets the pace. A node that fails says so in its
own row and does not stop the others. Credentials for a registry come in a header, are used for that
request, and neither kept nor told.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from grpc import aio
from starlette.responses import Response

from controller.agents import error_of
from controller.api.context import Api, Call
from controller.api.images_rows import Held, Removal, find, images_of, named, plain, removal, untagged, unused
from controller.api.schemas import PruneBody, PullBody, TagBody
from controller.api.streams import guarded, merged, ndjson
from model.errors import BadInput, Conflict, NotFound, ShoalError, Unavailable
from model.image_ref import parse_image_ref
from protos import node_pb2 as pb

CHUNKS_MAX: Final = 8
LOAD_S: Final = 3600.0
LIST_S: Final = 5.0
CHANGE_S: Final = 60.0
AUTH_HEADER: Final = "X-Registry-Auth"

Row = dict[str, Any]
T = TypeVar("T")


async def list_images(api: Api, call: Call) -> list[Row]:
    rows = await _rows(api, call.query["node"])
    return [plain(image) for image in images_of(rows)] if call.query["merged"] else rows


async def _rows(api: Api, node: str | None = None) -> list[Row]:
    """Of every node, or of one. A node that does not answer has none."""
    nodes = _chosen(api, [node]) if node else None
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "Images", pb.Empty(), LIST_S), nodes)
    return [
        {"node": node, **image}
        for node, answer in answers.items()
        if not isinstance(answer, ShoalError)
        for image in json.loads(answer.json)
    ]


async def _found(api: Api, reference: str) -> Held:
    return find(images_of(await _rows(api)), reference)


async def inspect(api: Api, call: Call) -> Row:
    image, found = await _described(api, call.path["reference"])
    names = [name for name in image.names if "@" not in name]
    told: Row = {**found["inspect"], "RepoTags": names, "Nodes": list(image.nodes)}
    return told


async def history(api: Api, call: Call) -> list[Row]:
    image, found = await _described(api, call.path["reference"])
    rows: list[Row] = found["history"]
    return [{**rows[0], "Tags": [name for name in image.names if "@" not in name] or None}, *rows[1:]] if rows else []


async def _described(api: Api, reference: str) -> tuple[Held, Row]:
    """The image, and what the first node that has it and answers says of it."""
    image = await _found(api, reference)
    failure: ShoalError | None = None
    for node in image.nodes:
        try:
            answer = await api.agents.call(node, "InspectImage", pb.ImageRequest(reference=image.id))
        except (NotFound, Unavailable) as error:
            failure = error
            continue
        found: Row = json.loads(answer.json)
        return image, found
    raise failure or NotFound(f"No such image: {reference}")


async def tag(api: Api, call: Call) -> Row:
    """Every node that has the image gives it the name."""
    body: TagBody = call.body
    name = parse_image_ref(body.name)
    if name.digest is not None:
        raise BadInput(f"{body.name}: a tag has no digest")
    image = await _found(api, call.path["reference"])
    request = pb.TagRequest(reference=image.id, name=name.canonical)
    await _all(api, image.nodes, lambda node: api.agents.call(node, "TagImage", request, CHANGE_S))
    return {"id": image.id, "name": name.familiar, "nodes": list(image.nodes)}


async def pull(api: Api, call: Call) -> Response:
    body: PullBody = call.body
    nodes = _chosen(api, body.nodes)
    request = pb.ImageRequest(reference=body.reference, auth=registry_auth(call.request.headers.get(AUTH_HEADER, "")))
    sources = [guarded(_pull(api, node, request), {"node": node, "text": ""}) for node in nodes]
    return ndjson(merged(sources))


def registry_auth(header: str) -> pb.RegistryAuth | None:
    """Credentials as Docker's clients send them: base64url of JSON. Raises BadInput, which never repeats them."""
    if not header:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        username, password = found.get("username", ""), found.get("password", "")
    except (ValueError, AttributeError):
        raise BadInput(f"{AUTH_HEADER}: expected base64url of a JSON object with username and password") from None
    if not isinstance(username, str) or not isinstance(password, str):
        raise BadInput(f"{AUTH_HEADER}: username and password are not texts")
    if found.get("identitytoken") or found.get("registrytoken"):
        raise BadInput(f"{AUTH_HEADER}: tokens are not supported, only username and password")
    return pb.RegistryAuth(username=username, password=password) if username else None


def _chosen(api: Api, names: list[str]) -> list[str]:
    nodes = names or api.agents.nodes()
    for name in names:
        if name not in api.snapshot().of("nodes"):
            raise NotFound(f"no node is called {name}: see `shoal node ls`")
    if not nodes:
        raise Unavailable("no node is ready: see `shoal node ls`")
    return nodes


async def _pull(api: Api, node: str, request: pb.ImageRequest) -> AsyncGenerator[Row, None]:
    async with aclosing(api.agents.stream(node, "PullImage", request)) as found:
        async for progress in found:
            row = _progress(node, progress)
            yield {**row, "image": json.loads(progress.result)} if progress.result else row


def _progress(node: str, progress: pb.Progress) -> Row:
    return {"node": node, "text": progress.text, "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes}


async def remove(api: Api, call: Call) -> list[Row]:
    """Docker's rows: `{Untagged: name}` and `{Deleted: id}`, each with the nodes where it was done."""
    removals = removal(images_of(await _rows(api)), call.path["reference"], call.query["force"])
    rows: list[Row] = []
    for each in removals:
        rows += (await _removed(api, each, call.query["force"]))[0]
    return rows


async def prune(api: Api, call: Call) -> Row:
    """What began to be used meanwhile stays."""
    body: PruneBody = call.body
    rows: list[Row] = []
    freed = 0
    for each in unused(images_of(await _rows(api)), body.all):
        try:
            told, freed_bytes = await _removed(api, each, force=False)
        except Conflict:
            continue
        rows, freed = rows + told, freed + freed_bytes
    return {"deleted": rows, "reclaimed_bytes": freed}


async def _removed(api: Api, wanted: Removal, force: bool) -> tuple[list[Row], int]:
    """What is told of it, and how many bytes all nodes together got back."""
    image = wanted.image

    async def on(node: str) -> Row:
        done: Row = {"deleted": [], "freed_bytes": 0}
        for reference in [name for name in wanted.untag if node in image.names[name]] or [image.id]:
            request = pb.ImageRequest(reference=reference, force=force)
            done = json.loads((await api.agents.call(node, "RemoveImage", request, CHANGE_S)).json)
        return done

    nodes = [node for node in image.nodes if wanted.delete or any(node in image.names[name] for name in wanted.untag)]
    answers = await _all(api, nodes, on)
    rows: list[Row] = [{"Untagged": name, "Nodes": nodes} for name in untagged(wanted)]
    rows += [
        {"Deleted": deleted, "Nodes": [node for node, answer in answers.items() if deleted in answer["deleted"]]}
        for deleted in dict.fromkeys(layer for answer in answers.values() for layer in answer["deleted"])
    ]
    return rows, sum(answer["freed_bytes"] for answer in answers.values())


async def _all(api: Api, nodes: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """The answers of all that still have the image. Raises the first other failure, NotFound when none has it."""
    answers = await api.agents.everywhere(ask, list(nodes))
    failures = [answer for answer in answers.values() if isinstance(answer, ShoalError)]
    done = {node: answer for node, answer in answers.items() if not isinstance(answer, ShoalError)}
    if others := [failure for failure in failures if not isinstance(failure, NotFound)]:
        raise others[0]
    if failures and not done:
        raise failures[0]
    return done


async def push(api: Api, call: Call) -> Response:
    """From one node that has it under this name."""
    reference = call.path["reference"]
    image = named(images_of(await _rows(api)), reference)
    name = parse_image_ref(reference).familiar
    request = pb.ImageRequest(reference=name, auth=registry_auth(call.request.headers.get(AUTH_HEADER, "")))
    return ndjson(_push(api, image.names.get(name, image.nodes), request))


async def _push(api: Api, nodes: Sequence[str], request: pb.ImageRequest) -> AsyncGenerator[Row, None]:
    """A node that cannot be reached leaves it to the next."""
    for number, node in enumerate(nodes, 1):
        begun = False
        try:
            async with aclosing(api.agents.stream(node, "PushImage", request)) as found:
                async for progress in found:
                    begun = True
                    row = _progress(node, progress)
                    yield {**row, "pushed": json.loads(progress.result)} if progress.result else row
            return
        except Unavailable as error:
            if begun or number == len(nodes):
                yield {"node": node, "text": "", "error": str(error)}
                return
        except ShoalError as error:
            yield {"node": node, "text": "", "error": str(error)}
            return


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
