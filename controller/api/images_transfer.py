"""Handlers about images on their way: to nodes, to registries, to and from archives.

Rules: an archive is passed through in chunks and never held; the slowest node sets the pace. A node that fails says so in its
own row and does not stop the others. Credentials for a registry come in a header, are used for that request, and neither kept
nor told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from grpc import aio
from starlette.responses import Response, StreamingResponse

from controller.agents import error_of
from controller.api.context import Api, Call
from controller.api.headers import decoded
from controller.api.heard import digests_in, heard
from controller.api.images import CHANGE_S, Row, chosen, node_rows
from controller.api.images_rows import images_of, named, to_save
from controller.api.schemas import PullBody
from controller.api.streams import guarded, merged, ndjson
from model.errors import BadInput, ShoalError, Unavailable
from model.image_ref import parse_image_ref
from protos import node_pb2 as pb

CHUNKS_MAX: Final = 8
LOAD_S: Final = 3600.0
RESOLVE_S: Final = 20.0
ASKED_MAX: Final = 3
"""Nodes that are asked what a name means, one after the other."""
ARCHIVE: Final = "application/x-tar"
AUTH_HEADER: Final = "X-Registry-Auth"


async def pull(api: Api, call: Call) -> Response:
    body: PullBody = call.body
    nodes = chosen(api, body.nodes)
    auth = registry_auth(call.request.headers.get(AUTH_HEADER, ""))
    digest = body.digest or await _one_digest(api, body, auth, nodes)
    request = pb.ImageRequest(reference=body.reference, policy=body.policy, auth=auth, digest=digest)
    sources = [guarded(_pull(api, node, request), {"node": node, "text": ""}) for node in nodes]
    return ndjson(merged(sources))


async def _one_digest(api: Api, body: PullBody, auth: pb.RegistryAuth | None, nodes: Sequence[str]) -> str:
    """What the name means now, so that several nodes get the same and one copy of it does for all; empty: each asks for itself,
    and says what is wrong."""
    if len(nodes) < 2 or body.policy not in ("", "always"):
        return ""
    try:
        return await resolved(api, body.reference, auth, nodes[:ASKED_MAX], RESOLVE_S)
    except BadInput:
        raise
    except ShoalError:
        return ""


def registry_auth(header: str) -> pb.RegistryAuth | None:
    """Credentials as Docker's clients send them: base64url of JSON. Raises BadInput, which never repeats them."""
    if not header:
        return None
    try:
        found = decoded(header)
        username, password = found.get("username", ""), found.get("password", "")
    except (ValueError, AttributeError):
        raise BadInput(f"{AUTH_HEADER}: expected base64url of a JSON object with username and password") from None
    if not isinstance(username, str) or not isinstance(password, str):
        raise BadInput(f"{AUTH_HEADER}: username and password are not texts")
    if found.get("identitytoken") or found.get("registrytoken"):
        raise BadInput(f"{AUTH_HEADER}: tokens are not supported, only username and password")
    return pb.RegistryAuth(username=username, password=password) if username else None


async def remote(api: Api, call: Call) -> Row:
    """What a registry has, asked by the first node that answers."""
    reference = parse_image_ref(call.path["reference"]).canonical
    auth = registry_auth(call.request.headers.get(AUTH_HEADER, ""))
    return await _asked(api, "RemoteImage", pb.ImageRequest(reference=reference, auth=auth), CHANGE_S)


async def resolved(
    api: Api, reference: str, auth: pb.RegistryAuth | None = None, nodes: Sequence[str] = (), timeout_s: float = CHANGE_S
) -> str:
    """The digest that a name has at its registry now, asked by the first of the nodes (none: all) that answers.

    Raises what the agent says (NotFound, Unavailable, ..), BadInput for a bad reference.
    """
    request = pb.ImageRequest(reference=parse_image_ref(reference).canonical, auth=auth)
    return str((await _asked(api, "ResolveImage", request, timeout_s, nodes))["digest"])


async def _asked(api: Api, method: str, request: pb.ImageRequest, timeout_s: float, nodes: Sequence[str] = ()) -> Row:
    """What the first node that answers says. One whose registry does not answer is an answer, too."""
    node, answer = await api.agents.first(nodes or chosen(api, []), method, request, timeout_s)
    return {"node": node, **json.loads(answer.json)}


async def _pull(api: Api, node: str, request: pb.ImageRequest) -> AsyncGenerator[Row, None]:
    async with aclosing(api.agents.stream(node, "PullImage", request)) as found:
        async for progress in found:
            row = _progress(node, progress)
            if progress.result:
                row["image"] = json.loads(progress.result)
                await heard(api, node, digests_in(row["image"]))
            yield row


def _progress(node: str, progress: pb.Progress) -> Row:
    return {"node": node, "text": progress.text, "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes}


async def push(api: Api, call: Call) -> Response:
    """From one node that has it under this name."""
    reference = call.path["reference"]
    image = named(images_of(await node_rows(api)), reference)
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


async def save(api: Api, call: Call) -> Response:
    """From one node that has them all. The answer begins with the first bytes, so that a refusal is an error and no archive."""
    references: tuple[str, ...] = call.query["name"] or ()
    if not references:
        raise BadInput("query name: which images? it may be repeated")
    found = to_save(images_of(await node_rows(api)), references)
    request = pb.SaveRequest(images=[pb.ImageNames(id=image.id, names=names) for image, names in found.images])
    chunks = api.agents.stream(found.node, "SaveImages", request)
    first = await anext(chunks)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            yield first.data
            async for chunk in chunks:
                yield chunk.data

    return StreamingResponse(pieces(), media_type=ARCHIVE)


async def load(api: Api, call: Call) -> list[Row]:
    nodes = chosen(api, [call.query["node"]] if call.query["node"] else [])
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
    rows: list[Row] = []
    for node, answer in zip(loads, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        rows.append({"node": node, **answer})
    return rows


async def _give(
    chunk: bytes | None, queues: dict[str, asyncio.Queue[bytes | None]], loads: dict[str, asyncio.Task[Row]]
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


async def _load(api: Api, node: str, queue: asyncio.Queue[bytes | None]) -> Row:
    """Names of what was loaded, and the ids of what has none."""

    async def chunks() -> AsyncIterator[pb.Chunk]:
        while (data := await queue.get()) is not None:
            yield pb.Chunk(data=data)

    stub = await api.agents.stub(node)
    try:
        answer = await stub.LoadImage(chunks(), timeout=LOAD_S)
    except aio.AioRpcError as error:
        raise error_of(node, error) from None
    found = json.loads(answer.json)
    for image in found.get("images", ()):
        await heard(api, node, digests_in(image))
    nameless = [image["id"] for image in found.get("images", ()) if not image["names"]]
    return {"names": found.get("names", []), "ids": nameless}
