"""Why a node group has these machines, in sentences, from a view. Pure text: the same decision as the leader's, without
what only the leader's memory holds."""

from __future__ import annotations

from controller.decide.explain import Explanation
from controller.decide.machines.decide import decide_machines
from controller.decide.machines.types import GOING, ON_THE_WAY, MachineFacts
from controller.decide.types import Settings, View
from controller.decide.wording import counted
from model.documents import Machine, MachinesDoc, NodeGroupDoc
from model.errors import NotFound


def group_of(view: View, name: str) -> tuple[NodeGroupDoc, MachinesDoc]:
    """Raises NotFound."""
    group = view.groups.get(name)
    if group is None:
        raise NotFound(f"no node group is called {name}: see `shoal nodegroup ls`")
    machines = view.machines.get(name)
    return group, machines if machines is not None and machines.id == group.id else MachinesDoc(group.id, name)


def notes(view: View, settings: Settings, name: str, now_ms: int) -> tuple[str, ...]:
    """Why machines stay, and why none come."""
    return decide_machines(MachineFacts(view, settings), now_ms).notes.get(name, ())


def explain_group(view: View, settings: Settings, name: str, now_ms: int) -> Explanation:
    """Raises NotFound."""
    group, document = group_of(view, name)
    spec, last = group.spec, document.history[-1].sentence if document.history else "it has made no machine yet"
    bounds = f"{spec.min} to {spec.max}{f', {spec.buffer} spare' if spec.buffer else ''}"
    lines = ["it is being removed: its machines leave, then it goes"] if group.removing else []
    left_s = (document.back_off_until_ms - now_ms) / 1000
    if left_s > 0:
        lines.append(f"{counted(document.failures, 'failure')} in a row: it makes no machine for another {left_s:.0f} s")
    lines += [_line(machine, now_ms) for machine in document.machines]
    lines += notes(view, settings, name, now_ms)
    return Explanation(name, f"{name}: {_count(document)} of {bounds}; {last}", tuple(lines))


def for_service(view: View, settings: Settings, service: str, now_ms: int) -> tuple[str, ...]:
    """What the node groups do for a service whose replicas wait for room; nothing when none waits."""
    decision = view.decisions.get(service)
    if not view.groups or decision is None or not decision.waiting:
        return ()
    refused = decide_machines(MachineFacts(view, settings), now_ms).refused
    lines = []
    for name in sorted(view.groups):
        said = [why for other, why in refused.get(name, ()) if other == service]
        lines += [f"node group {name}: {line}" for line in _for_service(group_of(view, name)[1], said, now_ms)]
    return tuple(lines)


def _for_service(document: MachinesDoc, refused: list[str], now_ms: int) -> list[str]:
    """Machines on their way, why there are no more, and what was wrong with the latest."""
    coming = [_line(machine, now_ms) for machine in document.machines if machine.state in ON_THE_WAY]
    failed = [row.sentence for row in document.history if row.sentence.startswith(f"{row.node} failed: ")]
    latest = [failed[-1].rpartition("; ")[0]] if document.failures and failed else []
    return [*coming, *refused, *latest, *document.problems]


def _count(document: MachinesDoc) -> str:
    coming = sum(machine.state in ON_THE_WAY for machine in document.machines)
    going = sum(machine.state in ("draining", *GOING) for machine in document.machines)
    more = [f"{coming} coming"] if coming else []
    more += [f"{going} leaving"] if going else []
    return counted(len(document.machines), "machine") + (f" ({', '.join(more)})" if more else "")


def _line(machine: Machine, now_ms: int) -> str:
    since_s = max(0, now_ms - machine.since_ms) / 1000
    named = f" ({machine.id})" if machine.id else ""
    return f"{machine.node}{named} is {machine.state} since {since_s:.0f} s{f': {machine.message}' if machine.message else ''}"
