"""Handlers about nodes: list, labels, generic resources and availability, removal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.schemas import NodePatchBody
from model.documents import NodeDoc
from model.errors import Conflict, NotFound

T = TypeVar("T", str, int)


async def list_nodes(api: Api, call: Call) -> list[dict[str, Any]]:
    return rows.nodes(api)


async def get_node(api: Api, call: Call) -> dict[str, Any]:
    return rows.node(api, node_of(api, call.path["name"]).name)


def node_of(api: Api, name: str) -> NodeDoc:
    """Raises NotFound."""
    document: NodeDoc | None = api.snapshot().of("nodes").get(name)
    if document is None:
        raise _missing(name)
    return document


def _missing(name: str) -> NotFound:
    return NotFound(f"no node is called {name}: see `shoal node ls`")


async def patch_node(api: Api, call: Call) -> dict[str, Any]:
    body: NodePatchBody = call.body
    name = call.path["name"]

    def change(old: NodeDoc | None) -> NodeDoc:
        if old is None:
            raise _missing(name)
        new = replace(
            old, labels=_changed(old.labels, body.labels), generic=_changed(old.generic, body.generic),
            availability=body.availability or old.availability,
        )  # fmt: skip
        return old if new == old else new

    await api.edit("nodes", name, change)
    return rows.node(api, name)


def _changed(old: tuple[tuple[str, T], ...], changes: Mapping[str, T | None]) -> tuple[tuple[str, T], ...]:
    """None removes."""
    return tuple(sorted((key, value) for key, value in {**dict(old), **changes}.items() if value is not None))


async def remove_node(api: Api, call: Call) -> dict[str, Any]:
    """Its certificate is refused from now on; the leader removes its other documents and moves its replicas."""
    name = call.path["name"]
    document = node_of(api, name)
    health = api.snapshot().of("health").get(name)
    ready = health is not None and health.state == "ready"
    assignment = api.snapshot().of("assignments").get(name)
    busy = assignment is not None and bool(assignment.services)
    if ready and not call.query["force"] and (document.availability != "drain" or busy):
        raise Conflict(f"node {name} is ready: drain it first (`shoal node drain {name}`), or use `shoal node rm -f`")

    def change(old: NodeDoc | None) -> None:
        if old is None:
            raise _missing(name)

    _, _, revision = await api.edit("nodes", name, change)
    return {"name": name, "index": revision}


async def explain(api: Api, call: Call) -> dict[str, Any]:
    return rows.explain_node(api, node_of(api, call.path["name"]).name)
