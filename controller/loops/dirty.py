"""Which services and nodes a change makes worth deciding about. Pure.

Rules: too much is slow, too little is wrong: what cannot be told apart marks everything. The leader's own writes do not come
back as work: a decision has already seen what it wrote (`own`), except deletes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from controller.loops.picture import Change, Snapshot
from model.documents import AssignmentDoc, NodeDoc, NodeHealthDoc, StatusDoc

EVERYTHING: Final = "*"
"""The key that stands for all services; no service can be called so."""
EVERY_SERVICE: Final[frozenset[str]] = frozenset({"nodes", "health"})

_DECISIVE: Final = attrgetter(
    "service_id", "slot", "created_ms", "state", "health", "restarts", "since_ms", "exit_code", "message"
)
PLANNED: Final[frozenset[str]] = frozenset({"assignments", "netplans", "svcplans", "places"})


def dirty_services(changes: Iterable[Change], snapshot: Snapshot) -> list[str]:
    """Names of services, in the order of the changes."""
    names: dict[str, None] = {}
    for change in changes:
        if change.kind in ("services", "scaleorders") or (change.kind == "svcplans" and not change.own):
            names[change.name] = None
        elif change.kind == "status":
            names.update(dict.fromkeys(_of_status(change, snapshot)))
        elif change.own and change.kind in PLANNED:
            continue
        elif change.kind == "assignments":
            names.update(dict.fromkeys(_of_assignment(change.old, change.new)))
        elif (change.kind in EVERY_SERVICE and _matters(change.old, change.new)) or (
            change.kind in ("networks", "volumes", "places", "netplans") and (change.old is None or change.new is None)
        ):
            return [EVERYTHING]
    return list(names)


def dirty_nodes(changes: Iterable[Change]) -> list[str]:
    """Names of nodes whose document came, changed or went, or whose leftovers may have to go."""
    kinds = ("nodes", "health", "networks")
    return list(dict.fromkeys(change.name for change in changes if change.kind in kinds))


def _matters(old: Any, new: Any) -> bool:
    """A health document whose state is the same, or a node document with another serial only, moves nothing."""
    if isinstance(old, NodeHealthDoc) and isinstance(new, NodeHealthDoc):
        return old.state != new.state
    if isinstance(old, NodeDoc) and isinstance(new, NodeDoc):
        return replace(old, serial=new.serial) != new
    return True


def _of_status(change: Change, snapshot: Snapshot) -> list[str]:
    old, new = change.old or StatusDoc(change.name), change.new or StatusDoc(change.name)
    if old.info != new.info or old.volumes != new.volumes:
        return [EVERYTHING]
    same = {*map(id, old.replicas)} & {*map(id, new.replicas)}
    before, after = _decisive(old, same), _decisive(new, same)
    ids = dict.fromkeys(row[0] for row in (*before, *after) if (row in before) != (row in after))
    if not ids:
        return []
    names = _names(change.name, snapshot)
    return [names[sid] for sid in ids if sid in names]


def _decisive(status: StatusDoc, without: Collection[int]) -> dict[tuple[Any, ...], None]:
    """What decisions read of replicas: ids, addresses and ports move nothing. `without`: ids of records that stay as they are,
    most of them as a rule."""
    rows = (row for row in status.replicas if id(row) not in without)
    return dict.fromkeys(map(_DECISIVE, rows))


def _names(node: str, snapshot: Snapshot) -> Mapping[str, str]:
    """Service id -> name, of what is assigned to the node."""
    assignment: AssignmentDoc | None = snapshot.of("assignments").get(node)
    return {row.service_id: row.name for row in assignment.services} if assignment else {}


def _of_assignment(old: AssignmentDoc | None, new: AssignmentDoc | None) -> list[str]:
    before = {row.service_id: row for row in old.services} if old else {}
    after = {row.service_id: row for row in new.services} if new else {}
    changed = [sid for sid in {**before, **after} if before.get(sid) != after.get(sid)]
    return [(after.get(sid) or before[sid]).name for sid in changed]
