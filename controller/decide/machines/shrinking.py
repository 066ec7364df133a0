"""Which machines leave, and why the others stay.

Rules:
- A machine is idle while less than `utilization` of it is requested and everything on it would fit elsewhere; it leaves when it
  has been idle for `idle_s`. What runs on every node counts for nothing.
- None leaves within `after_add_s` of an addition to any group, while more than `unready_max` of all nodes are not ready, or
  below `min` and `buffer`. Empty ones may go together, of the others one at a time.
- The holder of a local volume stays unless the group says `remove_volumes`; so does who runs a job, keeps the record of one
  that has ended (elsewhere it would run again; not so a job of every node), or keeps a stopped single container.
- What a group has beyond its `max`, and everything of one that is being removed, need not have been idle: it has to fit
  elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.decide.batch import Batch
from controller.decide.machines.growing import is_spare
from controller.decide.machines.lives import drain, drained_by, ended_ms, holds, is_spent, node_state
from controller.decide.machines.types import Crew
from controller.decide.scaled import lasting
from controller.decide.wording import counted
from controller.decide.work import demands
from model.documents import AssignedService, Machine, ServiceDoc
from scheduler import Group, explain_in, fill_in

WATCHED_MAX: Final = 50
"""So many machines of all groups are watched for idleness at once: each is a question to the scheduler."""


_LEAVES: Final = "it is to leave"


@dataclass(frozen=True, slots=True)
class _Idle:
    """A machine that could leave. `used`: spare machines that would take something of it."""

    crew: Crew
    machine: Machine
    empty: bool
    used: frozenset[str] = frozenset()


def unready_share(batch: Batch) -> float:
    """The share of all nodes that were ready once and are not now."""
    states = [node_state(batch.view, name) for name in batch.view.nodes]
    known = [state for state in states if state]
    return sum(state != "ready" for state in known) / len(known) if known else 0.0


def held(batch: Batch, crew: Crew) -> str:
    """Why nothing of the group may be taken out of the cluster now."""
    share = unready_share(batch)
    return f"{share:.0%} of all nodes are not ready: nothing is removed" if share > crew.spec.unready_max else ""


def shrink(batch: Batch, crews: Sequence[Crew]) -> bool:
    """Whether any were let go: then it is to be asked again."""
    watched = 0
    idle: list[_Idle] = []
    for crew in crews:
        crew.stays = []
        for machine in sorted(crew.of("ready"), key=lambda row: (not row.idle_since_ms, row.node)):
            found = _watched(batch, crew, machine) if watched < WATCHED_MAX else "too many others are looked at"
            if isinstance(found, _Idle):
                watched += 1
                idle.append(found)
            else:
                crew.set(crew.machines[machine.node], idle_since_ms=0)
                crew.stays.append(f"{machine.node} stays: {found}")
    return _let_go(batch, crews, [row for row in idle if _is_due(crews, row)])


def _watched(batch: Batch, crew: Crew, machine: Machine) -> _Idle | str:
    """Whether it is idle, or why it is not."""
    node = machine.node
    if said := drained_by(batch.view, machine):
        return f"somebody has set it to {said}"
    if node_state(batch.view, node) != "ready":
        return "its node is not ready"
    asked = _requested(batch, node)
    busy = asked >= crew.spec.utilization
    if busy and not _unwanted(crew):
        return f"{asked:.0%} of it is requested"
    if why := holds(batch.view, crew, node):
        return why
    entries = _entries(batch, node)
    if why := next((text for doc, entry in entries if (text := _bound(batch, node, doc, entry))), ""):
        return why
    why, used = _fits_elsewhere(batch, crew, node, entries)
    if why:
        return why
    machine = crew.set(crew.machines[node], idle_since_ms=0 if busy else machine.idle_since_ms or batch.now_ms)
    spare = frozenset(name for name in used if is_spare(batch, name))
    return _Idle(crew, machine, not entries, spare)


def _unwanted(crew: Crew) -> bool:
    return crew.group.removing or crew.staying > crew.limit


def _entries(batch: Batch, node: str) -> list[tuple[ServiceDoc, AssignedService]]:
    """What would have to move."""
    assigned, view = batch.view.assignments.get(node), batch.view
    found = []
    for entry in assigned.services if assigned else ():
        doc = view.services.get(entry.name)
        if doc is None or doc.id != entry.service_id or doc.spec.mode == "global" or is_spent(view, node, doc, entry):
            continue
        found.append((doc, entry))
    return found


def _requested(batch: Batch, node: str) -> float:
    """The larger of the shares of its cpus and memory."""
    total = batch.facts(node).total
    cpus = memory = 0
    for doc, entry in _entries(batch, node):
        amounts = batch.index.amounts(doc.spec.name)
        cpus, memory = cpus + entry.count * amounts.cpus, memory + entry.count * amounts.memory
    return max(cpus / total.cpus if total.cpus else 0.0, memory / total.memory if total.memory else 0.0)


def _bound(batch: Batch, node: str, doc: ServiceDoc, entry: AssignedService) -> str:
    """Why this cannot be moved at all."""
    name = doc.spec.name
    if doc.spec.mode.endswith("job"):
        since_ms = ended_ms(batch.view, node, doc, entry)
        if since_ms is None:
            return f"job {name} runs there"
        ago = lasting(batch.now_ms - since_ms)
        return f"job {name} has ended there {ago} ago, and elsewhere it would run again: `shoal service rm {name}` lets it go"
    if doc.stopped and doc.spec.single:
        return f"the stopped container {name} is there"
    return f"{name} is bound to it" if doc.spec.placement.node == node else ""


def _fits_elsewhere(
    batch: Batch, crew: Crew, node: str, entries: Sequence[tuple[ServiceDoc, AssignedService]]
) -> tuple[str, frozenset[str]]:
    """Why not everything of a node would find another one, or ""; and which ones it would be."""
    groups = [_moving(batch, node, doc, entry) for doc, entry in entries if not doc.stopped]
    if not groups:
        return "", frozenset()
    volumes = list(dict.fromkeys(name for group in groups for name in group.volumes))
    pool = batch.pool(volumes, list(dict.fromkeys(port for group in groups for port in group.ports)))
    pool.volumes = {name: tuple(held for held in nodes if held != node) for name, nodes in pool.volumes.items()}
    try:
        filled = fill_in(pool, groups)
        for group, (_, short) in zip(groups, filled, strict=True):
            if short is not None:
                return f"{group.service} would not fit elsewhere: {_of_others(explain_in(pool, short).reason)}", frozenset()
    finally:
        pool.restore()
    return "", frozenset(name for pairs, _ in filled for _, name in pairs)


def _of_others(reason: str) -> str:
    """Without the machine itself, which everybody knows is to leave."""
    return "; ".join(part for part in reason.split("; ") if part != f"1 node: {_LEAVES}") or "there is no other node"


def _moving(batch: Batch, node: str, doc: ServiceDoc, entry: AssignedService) -> Group:
    group = demands(batch, doc).group
    there = Counter({name: row.count for name, row in batch.index.placed.get(doc.spec.name, {}).items() if name != node})
    shun = (*group.shun, (_LEAVES, frozenset({node})))
    return replace(group, slots=[row.slot for row in entry.replicas], existing=dict(there), shun=shun)


def _is_due(crews: Sequence[Crew], row: _Idle) -> bool:
    """Whether it has been idle for long enough, and nothing was added of late; if not, when."""
    crew, name = row.crew, row.machine.node
    unwanted = _unwanted(crew)
    idle_ms = 0 if unwanted else round(crew.spec.idle_s * 1000)
    after_ms = 1 if crew.group.removing else max(1, round(crew.spec.after_add_s * 1000))
    at_ms = max(row.machine.idle_since_ms + idle_ms, max(other.added_ms for other in crews) + after_ms)
    if crew.now_ms >= at_ms:
        return True
    crew.wake(at_ms)
    left = (at_ms - crew.now_ms) / 1000
    crew.stays.append(f"{name} is idle and may leave in {left:.0f} s")
    return False


def _let_go(batch: Batch, crews: Sequence[Crew], due: Sequence[_Idle]) -> bool:
    """Empty ones first, as many as may; of the others one, when none is being drained."""
    gone: set[str] = set()
    busy = any(crew.of("draining") for crew in crews)
    for row in sorted(due, key=lambda row: (not row.empty, _requested(batch, row.machine.node), row.machine.node)):
        crew, node = row.crew, row.machine.node
        why = held(batch, crew) or _kept(batch, crew, row, gone)
        if not why and not row.empty:
            if busy:
                why = "another machine is being drained"
            elif gone & row.used:
                why = "what would take its replicas leaves too"
        if why:
            crew.stays.append(f"{node} is idle and stays: {why}")
            continue
        drain(batch.view, crew, row.machine, _reason(crew, row))
        gone.add(node)
        busy = True
    return bool(gone)


def _kept(batch: Batch, crew: Crew, row: _Idle, gone: set[str]) -> str:
    if crew.staying <= crew.least:
        return f"the group keeps at least {crew.least}"
    spare = [name for name in crew.machines if name not in gone and name != row.machine.node and is_spare(batch, name)]
    if crew.spare and sum(name not in row.used for name in spare) < crew.spare:
        return f"{counted(crew.spare, 'machine')} of the group {'is' if crew.spare == 1 else 'are'} kept spare"
    return ""


def _reason(crew: Crew, row: _Idle) -> str:
    if crew.group.removing:
        return "the group is being removed"
    if crew.staying > crew.limit:
        return f"the group has more than {crew.limit}"
    idle_s = (crew.now_ms - row.machine.idle_since_ms) / 1000
    what = "empty" if row.empty else f"less than {crew.spec.utilization:.0%} of it requested, the rest fits elsewhere"
    return f"{what} for {idle_s:.0f} s"
