"""Handlers about images: asked of, and done on, the nodes themselves.

Rules: what is answered and decided is of the cluster as one Docker (images_rows.py); here nodes are asked, and do it. A node
that does not answer has no images.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from controller.api.context import Api, Call
from controller.api.heard import heard
from controller.api.images_rows import Held, Removal, find, images_of, plain, removal, untagged, unused
from controller.api.replicas import placed_replica, replica_key
from controller.api.rows import time_text
from controller.api.schemas import CommitBody, PruneBody, TagBody
from model.errors import BadInput, Conflict, NotFound, ShoalError, Unavailable
from model.image_ref import parse_image_ref
from protos import node_pb2 as pb

LIST_S: Final = 5.0
CHANGE_S: Final = 60.0
COMMIT_S: Final = 3600.0

Row = dict[str, Any]
T = TypeVar("T")


async def list_images(api: Api, call: Call) -> list[Row]:
    rows = await node_rows(api, call.query["node"])
    return [plain(image) for image in images_of(rows)] if call.query["merged"] else rows


async def node_rows(api: Api, node: str | None = None) -> list[Row]:
    """Of every node, or of one. A node that does not answer has none."""
    nodes = chosen(api, [node]) if node else None
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "Images", pb.Empty(), LIST_S), nodes)
    return [
        {"node": node, **image}
        for node, answer in answers.items()
        if not isinstance(answer, ShoalError)
        for image in json.loads(answer.json)
    ]


def chosen(api: Api, names: list[str]) -> list[str]:
    nodes = names or api.agents.nodes()
    for name in names:
        if name not in api.snapshot().of("nodes"):
            raise NotFound(f"no node is called {name}: see `shoal node ls`")
    if not nodes:
        raise Unavailable("no node is ready: see `shoal node ls`")
    return nodes


async def _found(api: Api, reference: str) -> Held:
    return find(images_of(await node_rows(api)), reference)


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
    for node in image.nodes:
        await heard(api, node, {name.canonical: tuple(image.digests.values())})
    return {"id": image.id, "name": name.familiar, "nodes": list(image.nodes)}


async def remove(api: Api, call: Call) -> list[Row]:
    """Docker's rows: `{Untagged: name}` and `{Deleted: id}`, each with the nodes where it was done."""
    removals = removal(images_of(await node_rows(api)), call.path["reference"], call.query["force"])
    rows: list[Row] = []
    for each in removals:
        rows += (await _removed(api, each, call.query["force"]))[0]
    return rows


async def commit(api: Api, call: Call) -> Row:
    """Of what a container wrote; the image is on the container's node."""
    body: CommitBody = call.body
    if body.name and parse_image_ref(body.name).digest is not None:
        raise BadInput(f"{body.name}: a new name has no digest")
    row = placed_replica(api, call.path["name"])
    request = pb.CommitRequest(
        key=replica_key(row), name=body.name, author=body.author, message=body.message, changes=body.changes, pause=body.pause,
        created=time_text(api.now_ms()),
    )  # fmt: skip
    made: Row = json.loads((await api.agents.call(row["node"], "CommitContainer", request, COMMIT_S)).json)
    return {**made, "node": row["node"]}


async def prune(api: Api, call: Call) -> Row:
    """What began to be used meanwhile stays. What broken pulls left goes too, on every node that answers."""
    body: PruneBody = call.body
    rows: list[Row] = []
    freed = 0
    for each in unused(images_of(await node_rows(api)), body.all):
        try:
            told, freed_bytes = await _removed(api, each, force=False)
        except Conflict:
            continue
        rows, freed = rows + told, freed + freed_bytes
    leftovers = await api.agents.everywhere(lambda node: api.agents.call(node, "RemoveImage", pb.ImageRequest(), CHANGE_S))
    freed += sum(json.loads(each.json)["freed_bytes"] for each in leftovers.values() if not isinstance(each, ShoalError))
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
