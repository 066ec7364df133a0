"""Handlers about volumes: what there is, where, who uses it; removing them with their data.

Rules: a volume that a replica uses is never removed. Data goes first, the document after it: when a node cannot be reached the
document stays, so that nobody believes the data gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.schemas import PruneBody
from controller.decide.replicas import replica_rows
from controller.loops.picture import Snapshot
from model.documents import VolumeDoc
from model.errors import Conflict, NotFound, ShoalError, Unavailable
from model.spec import VolumeSpec
from protos import node_pb2 as pb

Row = dict[str, Any]


async def list_volumes(api: Api, call: Call) -> list[Row]:
    return volume_rows(api)


def volume_rows(api: Api) -> list[Row]:
    """Every named volume: documented, placed, or reported by a node."""
    snapshot = api.snapshot()
    users = _users(api)
    nodes = _nodes(snapshot)
    names = sorted({**dict.fromkeys(snapshot.of("volumes")), **dict.fromkeys(nodes)})
    return [_row(snapshot, name, nodes.get(name, []), users.get(name, [])) for name in names]


def _row(snapshot: Snapshot, name: str, nodes: list[str], users: list[str]) -> Row:
    document: VolumeDoc = snapshot.of("volumes").get(name) or VolumeDoc("", VolumeSpec(name))
    spec = document.spec
    return {
        "name": name,
        "stack": spec.stack,
        "driver": spec.driver,
        "nodes": nodes,
        "in_use_by": users,
        "labels": dict(spec.labels),
        "options": dict(spec.options),
        "created": rows.time_text(document.created_ms),
        "mountpoint": "",
    }


def _nodes(snapshot: Snapshot) -> dict[str, list[str]]:
    """Volume -> nodes that hold it (or were chosen to)."""
    found: dict[str, dict[str, None]] = {}
    for name, place in snapshot.of("places").items():
        found.setdefault(name, {}).update(dict.fromkeys(place.nodes))
    for node, status in snapshot.of("status").items():
        for name in status.volumes:
            found.setdefault(name, {})[node] = None
    return {name: sorted(nodes) for name, nodes in found.items()}


def _users(api: Api) -> dict[str, list[str]]:
    """Volume -> names of replicas that are assigned and mount it."""
    view = api.view()
    found: dict[str, list[str]] = {}
    for name, document in sorted(view.services.items()):
        mounts = document.spec.container.mounts
        volumes = [mount.source for mount in mounts if mount.type == "volume" and mount.source]
        for row in replica_rows(view, service=name) if volumes else ():  # most have none, and may have thousands of replicas
            for volume in volumes:
                found.setdefault(volume, []).append(row.name)
    return found


def _volume(api: Api, name: str) -> Row:
    for row in volume_rows(api):
        if row["name"] == name:
            return row
    raise NotFound(f"no volume is called {name}: see `shoal volume ls`")


async def get_volume(api: Api, call: Call) -> Row:
    row = _volume(api, call.path["name"])
    for node in row["nodes"]:
        with contextlib.suppress(ShoalError):
            answer = await api.agents.call(node, "Volumes", pb.Empty(), 5.0)
            for found in json.loads(answer.json):
                if found.get("Name") == row["name"]:
                    row["mountpoint"] = found.get("Mountpoint", "")
                    return row
    return row


async def remove_volume(api: Api, call: Call) -> Row:
    name = call.path["name"]
    try:
        row = _volume(api, name)
    except NotFound:
        if call.query["force"]:
            return {"name": name, "nodes": []}
        raise
    if row["in_use_by"]:
        raise Conflict(f"volume {name} is in use by {', '.join(row['in_use_by'][:5])}: remove or stop them first")
    await remove_data(api, name, row["nodes"], call.query["force"])
    await forget_volume(api, name)
    return {"name": name, "nodes": row["nodes"]}


async def remove_data(api: Api, name: str, nodes: list[str], force: bool) -> None:
    """On every node that has it. Raises Unavailable when one cannot be asked (unless forced)."""
    request = pb.VolumeRequest(name=name, force=force)
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "RemoveVolume", request, 60.0), nodes)
    for node, answer in answers.items():
        if isinstance(answer, ShoalError) and not isinstance(answer, NotFound) and not force:
            raise Unavailable(f"volume {name} is still on node {node}: {answer}")


async def forget_volume(api: Api, name: str) -> None:
    """Its document goes; the leader removes its place."""
    with contextlib.suppress(NotFound):
        await api.edit("volumes", name, lambda old: None)


async def prune_volumes(api: Api, call: Call) -> Row:
    body: PruneBody = call.body
    wanted = _wanted(api.snapshot().of("services"))
    before = {row["name"]: row for row in volume_rows(api)}
    request = pb.PruneRequest(all=body.all, keep=sorted(wanted))
    answers = await api.agents.everywhere(lambda node: api.agents.call(node, "PruneVolumes", request, 60.0))
    removed: dict[str, None] = {}
    for answer in answers.values():
        if not isinstance(answer, ShoalError):
            removed.update(dict.fromkeys(json.loads(answer.json).get("removed", ())))
    if body.all:
        for name, row in before.items():
            silent = [node for node in row["nodes"] if isinstance(answers.get(node), ShoalError) or node not in answers]
            if name not in wanted and not row["in_use_by"] and not silent:
                await forget_volume(api, name)
                removed[name] = None
    return {"removed": sorted(removed)}


def _wanted(services: Mapping[str, Any]) -> set[str]:
    """Volumes that some service names, running or not."""
    return {
        mount.source
        for document in services.values()
        for mount in document.spec.container.mounts
        if mount.type == "volume" and mount.source
    }
