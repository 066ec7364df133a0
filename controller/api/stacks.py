"""Handlers about stacks: list, plan, apply, remove.

Rules: what was sent is validated as if it came from a stranger. A stack is written in one transaction when it fits, else in
several, each guarded; what is found to be as wanted is compared with the store before anybody is told so. A volume's data goes
only when it is asked for, and only after the replicas that use it are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from controller.api import rows
from controller.api.claims import Commit, claimed
from controller.api.context import Api, Call, Changed
from controller.api.network_rows import network_row
from controller.api.pinning import Pinned, pin_services
from controller.api.registry_logins import keeping, logins_of
from controller.api.volumes import forget_volume, remove_data, volume_rows
from controller.decide.preview import preview
from controller.decide.registry_auth import Keep
from controller.decide.replicas import replica_rows
from controller.decide.stacks import StackChanges, diff_stack, remove_stack
from controller.loops.picture import Snapshot
from controller.loops.views import view_of
from controller.loops.writer import OPS_MAX, guards, split
from model import codec
from model.compose import validate_resolved
from model.compose.convert import to_stack
from model.documents import StackDoc, key
from model.errors import BadInput, NotFound, Unavailable
from model.spec import StackSpec
from model.states import LOST
from model.store_port import Delete, Guard, Op, Put

VOLUMES_WAIT_S: Final = 50.0
CATCH_UP_S: Final = 2.0
Row = dict[str, Any]


async def list_stacks(api: Api, call: Call) -> list[Row]:
    found = rows.services(api)
    return [_stack_row(document, found) for _, document in sorted(api.snapshot().of("stacks").items())]


def _stack_row(document: StackDoc, services: Sequence[Row]) -> Row:
    mine = [row for row in services if row["stack"] == document.name]
    return {
        "name": document.name,
        "services": len(mine),
        "running": sum(row["running"] for row in mine),
        "wanted": sum(row["wanted"] for row in mine),
        "created": rows.time_text(document.created_ms),
        "updated": rows.time_text(document.updated_ms),
    }


async def get_stack(api: Api, call: Call) -> Row:
    document = _stack(api, call.path["stack"])
    snapshot = api.snapshot()
    services = rows.services(api, document.name)
    networks = [row for name, row in sorted(snapshot.of("networks").items()) if name in document.networks]
    return {
        **_stack_row(document, services),
        "services": services,
        "networks": [network_row(snapshot, row) for row in networks],
        "volumes": [row for row in volume_rows(api) if row["name"] in document.volumes],
    }


def _stack(api: Api, name: str) -> StackDoc:
    document: StackDoc | None = api.snapshot().of("stacks").get(name)
    if document is None:
        raise NotFound(f"no stack is called {name}: see `shoal stack ls`")
    return document


def read_stack(name: str, project: Any) -> StackSpec:
    """Raises BadInput with every problem."""
    problems = validate_resolved(project)
    if problems:
        lines = [str(problem) for problem in problems]
        raise BadInput(lines[0], lines)
    return to_stack(project, stack=name)


async def plan(api: Api, call: Call) -> Row:
    stack, found, keep = await _stack_wanted(api, call)
    view = view_of(api.snapshot())
    changes = diff_stack(
        view, stack, lambda: api.random.token_hex(8), api.now_ms(), True, api.settings, keep, found.same_bytes
    )
    shown = await asyncio.to_thread(preview, view, changes, api.settings, api.now_ms())
    return {
        "changes": _change_rows(changes),
        "placements": [{"replica": row.replica, "node": row.node, "reason": row.reason} for row in shown.placements],
        "waiting": [{"replica": row.replica, "reason": row.reason} for row in shown.waiting],
        "published": [{"service": service, "port": port} for service, port in shown.published],
        "warnings": list(stack.warnings),
        "unpinned": list(found.warnings),
    }


async def _stack_wanted(api: Api, call: Call) -> tuple[StackSpec, Pinned, Keep]:
    """What was sent, with its images pinned; what was found out of them; which credentials are kept."""
    stack = await asyncio.to_thread(read_stack, call.path["stack"], call.body)
    logins = logins_of(call.request)
    found = await pin_services(api, stack.services, call.query.get("resolve_image") or "changed", logins)
    return replace(stack, services=found.services), found, keeping(api.seals, logins)


def _change_rows(changes: StackChanges) -> list[Row]:
    return [
        {"action": row.action, "kind": row.kind, "name": row.name, "fields": list(row.fields), "sentence": row.sentence}
        for row in changes.changes
    ]


async def apply(api: Api, call: Call) -> Row:
    stack, found, keep = await _stack_wanted(api, call)

    def changes_now() -> StackChanges:
        prune, same = call.query["prune"], found.same_bytes
        return diff_stack(api.view(), stack, lambda: api.random.token_hex(8), api.now_ms(), prune, api.settings, keep, same)

    changes, index = await _write(api, stack.name, changes_now)
    unpinned = list(found.warnings)
    return {"changes": _change_rows(changes), "warnings": list(stack.warnings), "unpinned": unpinned, "index": index}


async def _write(api: Api, name: str, changes_now: Callable[[], StackChanges]) -> tuple[StackChanges, int]:
    """What was changed, and the revision after it. Every try compares anew."""

    async def write(commit: Commit) -> tuple[StackChanges, int]:
        snapshot, changes = api.snapshot(), changes_now()
        await _compare(api, snapshot, name, changes)
        index = api.index(("stacks", "services", "networks", "volumes"))
        for run in split(_operations(changes)):
            index = await commit(guards(run, snapshot), run)
        return changes, index

    return await claimed(api, f"stack {name}", write)


async def _compare(api: Api, snapshot: Snapshot, stack: str, changes: StackChanges) -> None:
    """What is not written was as wanted in a picture that may be old: another controller may have changed it a moment ago.
    Raises Changed, when it can once the picture has caught up."""
    written = {op.key for op in _operations(changes) if isinstance(op, Put | Delete)}
    names = dict.fromkeys([key("stacks", stack), *(key(f"{row.kind}s", row.name) for row in changes.changes)])
    unwritten = [Guard(name, snapshot.revision(name)) for name in names if name not in written]
    for start in range(0, len(unwritten), OPS_MAX):
        result = await api.store.txn(unwritten[start : start + OPS_MAX], [])
        if not result.ok:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_S):
                    await api.shown(result.revision)
            raise Changed(f"stack {stack} changed meanwhile: look again and repeat")


def _operations(changes: StackChanges) -> list[Op]:
    """The stack's own document first: a remove after half a write finds everything."""
    ops: list[Op] = [Put(key("stacks", changes.stack.name), codec.encode(changes.stack))] if changes.stack else []
    ops += [Put(key("networks", row.spec.name), codec.encode(row)) for row in changes.networks]
    ops += [Put(key("volumes", row.spec.name), codec.encode(row)) for row in changes.volumes]
    ops += [Put(key("services", row.spec.name), codec.encode(row)) for row in changes.services]
    return [*ops, *(Delete(name) for name in changes.deletes)]


async def remove(api: Api, call: Call) -> Row:
    """May be repeated for the sake of volumes that could not be removed the first time."""
    name = call.path["stack"]
    if not (call.query["volumes"] and _volumes_of(api, name)):
        _stack(api, name)
    changes, index = await _write(api, name, lambda: remove_stack(api.view(), name))
    removed: dict[str, list[str]] = {"services": [], "networks": [], "volumes": []}
    for change in changes.changes:
        if change.action == "remove":
            removed[f"{change.kind}s"].append(change.name)
    if call.query["volumes"]:
        removed["volumes"] = await _remove_volumes(api, name)
    return {"removed": removed, "index": index}


def _volumes_of(api: Api, stack: str) -> list[str]:
    return sorted(name for name, document in api.snapshot().of("volumes").items() if document.spec.stack == stack)


async def _remove_volumes(api: Api, stack: str) -> list[str]:
    """After the replicas are gone; what others use stays. Raises Unavailable when something is left that should not be."""
    try:
        async with asyncio.timeout(VOLUMES_WAIT_S):
            while _still_there(api, stack):
                await api.picture.changed()
    except TimeoutError:
        kept = f"stack {stack} is removed, but its replicas still stop: its volumes are kept"
        raise Unavailable(f"{kept}; repeat `shoal stack rm --volumes {stack}` when they are gone") from None
    removed, left, mine = [], [], set(_volumes_of(api, stack))
    for row in volume_rows(api):
        if row["name"] not in mine or row["in_use_by"]:
            continue
        try:
            await remove_data(api, row["name"], row["nodes"], False)
        except Unavailable as error:
            left.append(str(error))
            continue
        await forget_volume(api, row["name"])
        removed.append(row["name"])
    if left:
        hint = f"repeat `shoal stack rm --volumes {stack}` when the node is back, or give the data up: `shoal volume rm -f`"
        raise Unavailable(f"{left[0]}{f' (and {len(left) - 1} more)' if left[1:] else ''}: {hint}")
    return removed


def _still_there(api: Api, stack: str) -> bool:
    """Whether some node that is not down still has, or has to have, a replica of the stack."""
    assigned = replica_rows(api.view(), stack, ended=True)
    return any(row.state != LOST and row.node for row in chain(assigned, api.gone.rows(api.snapshot(), stack, "", "")))
