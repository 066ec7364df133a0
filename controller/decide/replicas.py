"""The rows of `GET /v1/replicas` and the counts of services, from a view: assignments joined with what agents last said.

Rules: nothing is stored per replica; every row is joined when asked for. `state`: `pending` (no node yet, the reason in
`message`), `assigned` (its agent has not spoken of it), `lost` (its node is down), else what the agent said. `desired` is
`running`, or `shutdown` for what is no longer wanted. A view for the API has an index of its own (or none): one thread each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.decide.index import Index, index_of
from controller.decide.types import View
from controller.decide.wording import replica_name
from model.documents import Assigned, AssignedService, ReplicaStatus, ServiceDoc
from model.spec import Pairs
from model.states import ASSIGNED, COMPLETE, LOST, PENDING, RUNNING, SHUTDOWN

GLOBAL: Final = ("global", "global-job")


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica. Times in Unix ms; `addresses`: (network, address/prefix)."""

    name: str
    service: str
    service_id: str
    stack: str
    slot: int
    node: str
    state: str
    desired: str
    image: str
    version: int
    created_ms: int
    since_ms: int = 0
    addresses: Pairs = ()
    container_id: str = ""
    restarts: int = 0
    exit_code: int | None = None
    message: str = ""
    health: str = ""
    ports: Pairs = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one service: replicas that run (or are complete, of a job) on nodes that are not down, and how many are wanted."""

    running: int
    wanted: int


def replica_rows(view: View, stack: str = "", service: str = "", node: str = "", ended: bool = False) -> list[ReplicaRow]:
    """Sorted by service, slot and node. Empty filters take all. `ended`: also what nodes still report and is not assigned."""
    index = index_of(view)
    rows: list[ReplicaRow] = []
    for name in [service] if service else sorted({*view.services, *index.placed}):
        doc = view.services.get(name)
        if stack and (doc is None or doc.spec.stack != stack):
            continue
        mine = [*_assigned(view, index, name, doc, node), *(_pending(view, index, doc) if doc and not node else ())]
        if ended and doc is not None:
            mine += _left_over(view, index, doc, node, {(r.node, r.slot, r.created_ms) for r in mine})
        rows += sorted(mine, key=lambda row: (row.slot, row.node, row.created_ms))
    return rows


def counts(view: View, doc: ServiceDoc) -> Counts:
    """How many replicas of the service run and how many should."""
    index, name = index_of(view), doc.spec.name
    good = (RUNNING, COMPLETE) if doc.spec.mode.endswith("job") else (RUNNING,)
    held: set[object] = set()
    running: set[object] = set()
    for node, entry in index.placed.get(name, {}).items():
        if entry.service_id != doc.id or _is_down(view, node):
            continue
        statuses = index.statuses(view, node, doc.id)
        for replica in entry.replicas:
            key: object = node if doc.spec.mode in GLOBAL else replica.slot
            held.add(key)
            status = statuses.get((replica.slot, replica.created_ms))
            if status is not None and status.state in good:
                running.add(key)
    if doc.stopped:
        return Counts(len(running), 0)
    decision = view.decisions.get(name)
    without = len(decision.waiting) if decision and doc.spec.mode in GLOBAL else 0
    return Counts(len(running), len(held) + without if doc.spec.mode in GLOBAL else doc.scale)


def _is_down(view: View, node: str) -> bool:
    health = view.health.get(node)
    return node not in view.nodes or (health is not None and health.state == "down")


def _assigned(view: View, index: Index, name: str, doc: ServiceDoc | None, only: str) -> Iterator[ReplicaRow]:
    entries = index.placed.get(name, {})
    for node in [only] if only else entries:
        entry = entries.get(node)
        if entry is None:
            continue
        same = doc if doc is not None and doc.id == entry.service_id else None
        statuses = index.statuses(view, node, entry.service_id)
        down = _is_down(view, node)
        for replica in entry.replicas:
            status = statuses.get((replica.slot, replica.created_ms))
            yield _row(node, entry, replica, status, same, "running" if same and not same.stopped else SHUTDOWN, down)


def _row(
    node: str, entry: AssignedService, replica: Assigned, status: ReplicaStatus | None, doc: ServiceDoc | None,
    desired: str, down: bool,
) -> ReplicaRow:  # fmt: skip
    spec = doc.spec if doc else None
    everywhere = spec.mode in GLOBAL if spec else replica.slot == 0
    name = replica_name(entry.name, replica.slot, node, everywhere=everywhere, single=bool(spec and spec.single))
    told = status if status is not None else ReplicaStatus(entry.service_id, replica.slot, replica.version, 0, ASSIGNED)
    lost = down and told.state != COMPLETE
    return ReplicaRow(
        name=name,
        service=entry.name,
        service_id=entry.service_id,
        stack=spec.stack if spec else "",
        slot=replica.slot,
        node=node,
        state=LOST if lost else told.state,
        desired=desired,
        image=spec.container.image if spec else "",
        version=replica.version,
        created_ms=replica.created_ms,
        since_ms=told.since_ms or replica.created_ms,
        addresses=told.addresses,
        container_id=told.container_id,
        restarts=told.restarts,
        exit_code=told.exit_code,
        message=f"node {node} is down" if lost else told.message,
        health=told.health,
        ports=told.ports,
    )


def _pending(view: View, index: Index, doc: ServiceDoc) -> Iterator[ReplicaRow]:
    """Wanted slots without a holder on a living node; of global services the waiting nodes as one row."""
    name, decision = doc.spec.name, view.decisions.get(doc.spec.name)
    reasons = dict(decision.waiting) if decision else {}
    if doc.stopped:
        return
    if doc.spec.mode not in GLOBAL:
        held = {
            replica.slot
            for node, entry in index.placed.get(name, {}).items()
            for replica in entry.replicas
            if entry.service_id == doc.id and (not _is_down(view, node) or _is_complete(view, index, node, doc, replica))
        }
        missing = doc.scale - len(held)
        free = [slot for slot in reasons if slot not in held]
        free += [slot for slot in range(1, doc.scale + 1) if slot not in held and slot not in reasons]
        reasons = {slot: reasons.get(slot, "not decided yet") for slot in sorted(free[: max(0, missing)])}
    for slot, reason in reasons.items():
        named = replica_name(name, slot, single=doc.spec.single or not slot)
        yield ReplicaRow(
            named, name, doc.id, doc.spec.stack, slot, "", PENDING, "running", doc.spec.container.image, doc.version, 0,
            message=reason,
        )  # fmt: skip


def _is_complete(view: View, index: Index, node: str, doc: ServiceDoc, replica: Assigned) -> bool:
    status = index.statuses(view, node, doc.id).get((replica.slot, replica.created_ms))
    return status is not None and status.state == COMPLETE


def _left_over(view: View, index: Index, doc: ServiceDoc, only: str, known: set[tuple[str, int, int]]) -> Iterator[ReplicaRow]:
    """What agents still report of the service although it is not assigned any more."""
    for node in [only] if only else sorted(view.statuses):
        entry = AssignedService(doc.id, doc.spec.name, ())
        for (slot, created_ms), status in index.statuses(view, node, doc.id).items():
            if (node, slot, created_ms) not in known:
                replica = Assigned(slot, status.version, created_ms)
                yield _row(node, entry, replica, status, doc, SHUTDOWN, _is_down(view, node))
