"""What would happen after a change that is not written yet: `plan -f` shows it.

Rules: the same decision as after the write, on a view with the change applied. So what it shows is what `apply` does, as
long as nothing else changes in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from controller.decide.index import index_of
from controller.decide.ports import published
from controller.decide.services import decide_services
from controller.decide.stacks import StackChanges
from controller.decide.types import Plan, Preempted, Settings, View
from controller.decide.wording import listed, replica_name
from model.documents import PREFIX, AssignedService, ServiceDoc


@dataclass(frozen=True, slots=True)
class Placed:
    replica: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waits:
    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """`published`: (service, `30000->80/tcp`) of ports that every node answers on, where that is new."""

    placements: tuple[Placed, ...] = ()
    waiting: tuple[Waits, ...] = ()
    published: tuple[tuple[str, str], ...] = ()


def changed_view(view: View, changes: StackChanges) -> View:
    """The view as it is after the changes are written. Has no index: the shell's own must not see what is not true."""
    deleted = {tuple(name[len(PREFIX) :].split("/", 1)) for name in changes.deletes}

    def merged(kind: str, before: Any, docs: list[Any]) -> dict[str, Any]:
        rows = {name: doc for name, doc in before.items() if (kind, name) not in deleted}
        rows.update((doc.spec.name, doc) for doc in docs)
        return rows

    return replace(
        view,
        services=merged("services", view.services, changes.services),
        networks=merged("networks", view.networks, changes.networks),
        volumes=merged("volumes", view.volumes, changes.volumes),
        index=None,
    )


def preview(view: View, changes: StackChanges, settings: Settings, now_ms: int) -> Preview:
    """Where the changed services' replicas would go, and which would wait; and the same of those that are stopped for them."""
    after = changed_view(view, changes)
    names = [doc.spec.name for doc in changes.services]
    gone = [name for name in view.services if name not in after.services]
    plan = decide_services(after, [*names, *gone], settings, now_ms)
    placements: list[Placed] = []
    before_index = index_of(after)
    planned = _planned(after, plan)
    for doc in sorted(changes.services, key=lambda doc: doc.spec.name):
        before = before_index.placed.get(doc.spec.name, {})
        now = {**before, **planned.get(doc.spec.name, {})}
        placements += _placements(view, doc, before, now, _made_room(plan))
    decisions = {row.name: row for row in plan.decisions}
    waits = []
    for name in sorted(names):
        decision = decisions.get(name) or after.decisions.get(name)
        spec = after.services[name].spec
        for slot, reason in decision.waiting if decision else ():
            waits.append(Waits(replica_name(name, slot, single=spec.single) if slot else name, reason))
        waits += [Waits(name, note) for note in (decision.notes if decision else ())]
    for row in plan.preempted:
        if row.service not in names:
            where = _moved_to(row, planned.get(row.service, {}), before_index.placed.get(row.service, {}))
            told = dict(decisions[row.service].waiting) if row.service in decisions else {}
            if where:
                placements.append(Placed(row.replica, where, f"stopped on {row.node} for {row.by}"))
            elif row.slot in told:
                waits.append(Waits(row.replica, told[row.slot]))
    return Preview(tuple(placements), tuple(waits), _published(view, plan, names))


def _made_room(plan: Plan) -> dict[str, list[str]]:
    """By replica who is stopped for it."""
    found: dict[str, list[str]] = {}
    for row in plan.preempted:
        found.setdefault(row.by, []).append(row.replica)
    return found


def _moved_to(row: Preempted, after: dict[str, AssignedService], before: dict[str, AssignedService]) -> str:
    """The node where a stopped replica is started again; empty: nowhere."""
    for node, entry in after.items():
        had = before[node].replicas if node in before else ()
        if any(replica.slot == row.slot and replica not in had for replica in entry.replicas):
            return node
    return ""


def _published(view: View, plan: Plan, names: list[str]) -> tuple[tuple[str, str], ...]:
    rows = []
    for doc in plan.svcplans:
        before = view.svcplans.get(doc.name)
        had = before.ports if before is not None and before.id == doc.id else ()
        rows += [(doc.name, published(port)) for port in doc.ports if doc.name in names and port not in had]
    return tuple(rows)


def _planned(view: View, plan: Plan) -> dict[str, dict[str, AssignedService]]:
    """By service and node, what the plan's documents say."""
    found: dict[str, dict[str, AssignedService]] = {}
    for document in plan.assignments:
        before = view.assignments.get(document.node)
        for entry in before.services if before else ():
            found.setdefault(entry.name, {})[document.node] = replace(entry, numbers=())
        for entry in document.services:
            found.setdefault(entry.name, {})[document.node] = entry
    return found


def _placements(
    view: View, doc: ServiceDoc, before: dict[str, AssignedService], after: dict[str, AssignedService],
    room: dict[str, list[str]],
) -> list[Placed]:  # fmt: skip
    rows = []
    everywhere = doc.spec.mode.startswith("global")
    held = {(node, replica.slot) for node, entry in before.items() for replica in entry.replicas}
    old = {(node, replica) for node, entry in before.items() for replica in entry.replicas}
    pace = f"{doc.spec.update.parallelism} at a time" if doc.spec.update.parallelism else "all at once"
    for node, entry in after.items():
        health = view.health.get(node)
        if health is None or health.state == "down":
            continue
        for replica in entry.replicas:
            if (node, replica.slot) in held and (replica.version != doc.version or (node, replica) not in old):
                reason = f"replaced by version {doc.version}, {pace}"
            elif (node, replica) not in old:
                reason = "new"
            else:
                continue
            rows.append((replica.slot, node, reason))
    name, placed = doc.spec.name, []
    for slot, node, reason in sorted(rows):
        called = replica_name(name, slot, node, everywhere=everywhere, single=doc.spec.single)
        losers = f"; stopped for it: {listed(room[called])}" if called in room else ""
        placed.append(Placed(called, node, reason + losers))
    return placed
