"""What becomes of each machine, from what its provider said and what the cluster sees.

Rules:
- A machine that works is believed because its node is ready, whatever the provider's list says. One that the list omits is gone
  only when its node is down too.
- One that is deleted is gone when a list that was asked for later no longer has it (or no list can be had).
- One whose `create` never succeeded and that a later list omits is gone, even when its `delete` fails.
- What a provider lists under a name that this group has given and the cluster does not know is deleted; other names are left
  alone and told.
- For nodes of groups the leader writes `NodeDoc.availability` beside the API, guarded by the document's revision: it drains
  those it takes away. What a person says is respected: a machine somebody has drained or paused is left as it is, and one
  somebody has activated while it was drained here stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controller.decide.machines.types import GROUP_LABEL, Crew, Listed, MachineFacts, Outcome
from controller.decide.standing import has_ended
from controller.decide.types import View
from controller.decide.wording import listed as some
from model.documents import AssignedService, Machine, NodeDoc, ServiceDoc
from model.states import ASSIGNED, PREPARING, RUNNING, STARTING

LIVE: Final = frozenset({ASSIGNED, PREPARING, STARTING, RUNNING})
SHOWN_CHARACTERS: Final = 60
"""Of a name that a provider made up."""
DRAIN_MS: Final = 1_000
"""So long at least a machine is drained: what was being placed there at that moment has come by then."""


def live(facts: MachineFacts, crew: Crew, held: str) -> None:
    """One step of every machine. `held`: why nothing may be taken out of the cluster now, or ""."""
    listed = {row.node: row for row in crew.memory.report.machines}
    crew.problems += _problems(crew)
    for machine in list(crew.machines.values()):
        match machine.state:
            case "creating" | "joining":
                _arrive(facts.view, crew, machine, listed.get(machine.node))
            case "ready":
                _work(facts.view, crew, machine, listed, held)
            case "draining":
                _leave(facts.view, crew, machine, held)
            case _:
                _go(facts.view, crew, machine, listed)
    _strangers(facts.view, crew, listed)
    if crew.problems and not crew.before.problems:
        crew.say(crew.problems[0])


def _problems(crew: Crew) -> list[str]:
    """A new leader that has heard nothing yet believes who led before."""
    report = crew.memory.report
    if not report.tried_ms:
        return list(crew.before.problems)
    return [*report.missing, *([f"its provider gives no list: {report.problem}"] if report.problem else [])]


def node_state(view: View, node: str) -> str:
    """`ready`, `unreachable`, `down`, or "" for none that was ever ready."""
    health = view.health.get(node)
    return health.state if health is not None and node in view.nodes else ""


def drained_by(view: View, machine: Machine) -> str:
    """What a person has said about the node of a machine that works: `pause`, `drain`, or ""."""
    node = view.nodes.get(machine.node)
    return node.availability if node is not None and node.availability != "active" else ""


def ended_ms(view: View, node: str, doc: ServiceDoc, entry: AssignedService) -> int | None:
    """Since when all that a service has there has ended for good; None: it has not."""
    status = view.statuses.get(node)
    known = {(row.slot, row.created_ms): row for row in (status.replicas if status else ()) if row.service_id == doc.id}
    rows = [known.get((replica.slot, replica.created_ms)) for replica in entry.replicas]
    if not all(has_ended(row, doc.spec.container.restart) for row in rows):
        return None
    return max((row.since_ms for row in rows if row is not None), default=None)


def is_spent(view: View, node: str, doc: ServiceDoc, entry: AssignedService) -> bool:
    """Whether it is a job of every node that has ended there: that it leaves means nothing for the other nodes."""
    return doc.spec.mode == "global-job" and ended_ms(view, node, doc, entry) is not None


def is_empty(view: View, node: str) -> bool:
    """Whether nothing runs or is about to run there. What a stopped service left is nothing."""
    assigned, status = view.assignments.get(node), view.statuses.get(node)
    for entry in assigned.services if assigned else ():
        service = view.services.get(entry.name)
        if service is None or service.id != entry.service_id or service.stopped:
            continue
        if not is_spent(view, node, service, entry):
            return False
    return not any(row.state in LIVE for row in (status.replicas if status else ()))


# -- on the way --------------------------------------------------------------------------------------------------------


def _arrive(view: View, crew: Crew, machine: Machine, row: Listed | None) -> None:
    """`since_ms` stays that of the beginning: it is the whole way that has its time."""
    made = crew.memory.outcomes.get(("create", machine.node))
    said = made if made is not None and made.at_ms >= machine.since_ms else None
    if node_state(view, machine.node) == "ready":
        crew.failures = 0
        crew.added_ms = crew.now_ms
        crew.move(machine, "ready", f"{machine.node} has joined", id=_id(machine, said, row), made=True)
        _welcome(view, crew, machine.node)
        return
    end_ms = machine.since_ms + round(crew.spec.provision_s * 1000)
    if said is not None and not said.ok:
        crew.fail(machine, said.message)
        if not said.begun:
            crew.drop(machine)
    elif crew.now_ms >= end_ms:
        what = "is not made" if machine.state == "creating" else "has not joined"
        crew.fail(machine, f"it {what} after {crew.spec.provision_s:g} s")
    elif machine.state == "creating" and (said is not None or row is not None):
        crew.set(machine, state="joining", id=_id(machine, said, row), made=True)
        crew.wake(end_ms)
    else:
        crew.wake(end_ms)


def _id(machine: Machine, said: Outcome | None, row: Listed | None) -> str:
    return machine.id or (said.id if said else "") or (row.id if row else "")


def _welcome(view: View, crew: Crew, node: str) -> None:
    """It gets the labels that placement was reckoned with, whatever the provider did with them; and how much less than promised
    it has is remembered, or another one like it would be added for what does not fit."""
    status, template = view.statuses.get(node), crew.spec.template
    if status is not None and status.info.cpus and template.cpus and template.memory_bytes:
        crew.seen = (min(1.0, status.info.cpus / template.cpus), min(1.0, status.info.memory_bytes / template.memory_bytes))
    document: NodeDoc = crew.nodes.get(node, view.nodes[node])
    labels = {**dict(document.labels), **template_labels(crew)}
    if labels != dict(document.labels):
        crew.nodes[node] = replace(document, labels=tuple(sorted(labels.items())))


def template_labels(crew: Crew) -> dict[str, str]:
    return {**dict(crew.spec.template.labels), GROUP_LABEL: crew.spec.name}


# -- at work -----------------------------------------------------------------------------------------------------------


def _work(view: View, crew: Crew, machine: Machine, listed: dict[str, Listed], held: str) -> None:
    name = machine.node
    if name not in view.nodes:
        crew.move(machine, "deleting", f"{name} is deleted: its node was removed from the cluster")
        return
    omitted = crew.memory.report.at_ms > machine.since_ms and name not in listed
    if node_state(view, name) != "down":
        crew.set(machine, message="the provider does not list it" if omitted else "")
        return
    health = view.health[name]
    end_ms = health.since_ms + round(crew.spec.provision_s * 1000)
    vanished = omitted and crew.memory.report.at_ms > health.since_ms
    why = "the provider no longer lists it" if vanished else f"down for {crew.spec.provision_s:g} s"
    if not vanished and crew.now_ms < end_ms:
        crew.set(machine, message="its node is down")
        crew.wake(end_ms)
        return
    if stays := held or holds(view, crew, name):
        crew.set(machine, message=f"its node is down ({why}) and stays in the cluster: {stays}")
        return
    crew.gone.append(name)
    crew.move(machine, "deleting", f"{name} is deleted: {why}")


def holds(view: View, crew: Crew, node: str) -> str:
    """The local volumes that keep a node in the cluster."""
    names = [] if crew.spec.remove_volumes else sorted(name for name, doc in view.places.items() if node in doc.nodes)
    return f"it holds volume {some(names)}" if names else ""


# -- leaving -----------------------------------------------------------------------------------------------------------


def drain(view: View, crew: Crew, machine: Machine, why: str) -> None:
    """Nothing new goes there, what is there moves; then it is deleted."""
    crew.nodes[machine.node] = replace(view.nodes[machine.node], availability="drain")
    crew.move(machine, "draining", f"{machine.node} is drained: {why}", why)


def take_back(view: View, crew: Crew, machine: Machine, why: str) -> None:
    """A machine that was leaving stays."""
    crew.nodes[machine.node] = replace(view.nodes[machine.node], availability="active")
    crew.move(machine, "ready", f"{machine.node} stays: {why}")
    crew.added_ms = crew.now_ms


def _leave(view: View, crew: Crew, machine: Machine, held: str) -> None:
    name = machine.node
    document = view.nodes.get(name)
    if document is None:
        crew.move(machine, "deleting", f"{name} is deleted: its node was removed from the cluster")
    elif document.availability != "drain":
        crew.move(machine, "ready", f"{name} stays: somebody has set it to {document.availability}")
    elif stays := held or holds(view, crew, name):
        crew.set(machine, message=f"drained, and stays in the cluster: {stays}")
    elif crew.now_ms < machine.since_ms + DRAIN_MS:
        crew.wake(machine.since_ms + DRAIN_MS)
    elif is_empty(view, name) or node_state(view, name) == "down":
        crew.gone.append(name)
        crew.move(machine, "deleting", f"{name} is empty and leaves the cluster")


# -- gone --------------------------------------------------------------------------------------------------------------


def _go(view: View, crew: Crew, machine: Machine, listed: dict[str, Listed]) -> None:
    name = machine.node
    asked = crew.memory.outcomes.get(("delete", name))
    done = asked if asked is not None and asked.at_ms >= machine.since_ms else None
    begun = done is not None or ("delete", name) in crew.memory.calling
    if machine.state == "failed" and not begun and node_state(view, name) == "ready":
        crew.failures = 0
        crew.move(machine, "ready", f"{name} has joined after all")
        _welcome(view, crew, name)
        return
    if name in view.nodes:  # it came too late, or its agent joined again
        crew.gone.append(name)
    if done is None:
        return
    if not done.ok:
        crew.set(machine, message=f"cannot be deleted: {done.message}")
        if not machine.made and crew.memory.report.at_ms > machine.since_ms and name not in listed:
            crew.say(f"{name} is gone: it was never made, and is not listed", name)
            crew.drop(machine)
    elif crew.memory.report.tried_ms > done.at_ms:
        if name in listed and not crew.memory.report.problem:
            crew.set(machine, message="the provider says that it is deleted, and lists it still")
        else:
            crew.drop(machine)
            crew.say(f"{name} is gone", name)


def _strangers(view: View, crew: Crew, listed: dict[str, Listed]) -> None:
    if crew.memory.report.at_ms <= crew.removed_ms:
        return  # what went meanwhile is still in it
    unknown = []
    for name, row in listed.items():
        if name in crew.machines:
            continue
        number = name.removeprefix(f"{crew.spec.name}-")
        ours = number != name and number.isdigit() and 0 < int(number) <= crew.before.number
        if ours and node_state(view, name) == "ready":
            crew.machines[name] = Machine(name, "ready", crew.now_ms, row.id, made=True)
            crew.say(f"{name} works and is listed: it belongs to the group again", name)
        elif ours:
            unknown_here = "the cluster no longer knows it"
            crew.machines[name] = Machine(name, "deleting", crew.now_ms, row.id, message=unknown_here, made=True)
            crew.say(f"{name} is deleted: the provider lists it, and the cluster no longer knows it", name)
        else:
            unknown.append(name)
    if unknown:
        shown = sorted(name[:SHOWN_CHARACTERS] for name in unknown)
        crew.problems.append(f"the provider also lists {some(shown)}, which this group has not made: left alone")
