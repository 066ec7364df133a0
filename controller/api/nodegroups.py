"""Handlers about node groups: what is wanted is written here, what becomes of it is the leader's.

Rules: applying the same again writes nothing. A group with machines keeps its provider: another one could not delete them.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from controller.api.context import Api, Call
from controller.api.rows import Row, event_row, time_text
from controller.decide.machines.explain import explain_group, group_of, notes
from controller.decide.machines.types import GOING, ON_THE_WAY
from controller.decide.wording import counted
from model.autoscale import NodeGroupSpec
from model.documents import Machine, MachinesDoc, NodeGroupDoc
from model.errors import BadInput, Conflict
from model.nodegroups import group_problems


async def list_groups(api: Api, call: Call) -> list[Row]:
    view = api.view()
    return [_row(*group_of(view, name), api.now_ms()) for name in sorted(view.groups)]


async def get_group(api: Api, call: Call) -> Row:
    view, name = api.view(), call.path["name"]
    group, document = group_of(view, name)
    return {
        **_row(group, document, api.now_ms()),
        "spec": asdict(group.spec),
        "members": [_member(machine) for machine in document.machines],
        "notes": list(notes(view, api.settings, name, api.now_ms())),
        "history": [{"at": time_text(event.at_ms), "sentence": event.sentence} for event in document.history],
    }


def _row(group: NodeGroupDoc, document: MachinesDoc, now_ms: int) -> Row:
    spec, states = group.spec, [machine.state for machine in document.machines]
    return {
        "name": spec.name,
        "provider": spec.provider.kind,
        "state": _state(group, document, now_ms),
        "min": spec.min,
        "max": spec.max,
        "buffer": spec.buffer,
        "machines": len(states),
        "ready": states.count("ready"),
        "coming": sum(state in ON_THE_WAY for state in states),
        "leaving": sum(state in ("draining", *GOING) for state in states),
        "failures": document.failures,
        "back_off_until": time_text(document.back_off_until_ms),
        "cpus": spec.template.cpus,
        "memory_bytes": spec.template.memory_bytes,
        "labels": dict(spec.template.labels),
        "removing": group.removing,
        "decision": document.history[-1].sentence if document.history else "",
        "updated": time_text(group.updated_ms),
    }


def _state(group: NodeGroupDoc, document: MachinesDoc, now_ms: int) -> str:
    if group.removing:
        return "removing"
    left_s = (document.back_off_until_ms - now_ms) / 1000
    if left_s > 0:
        return f"{counted(document.failures, 'failure')}, waits {left_s:.0f} s"
    return "provider problem" if document.problems else "ok"


def _member(machine: Machine) -> Row:
    return {
        "node": machine.node,
        "id": machine.id,
        "state": machine.state,
        "since": time_text(machine.since_ms),
        "idle_since": time_text(machine.idle_since_ms),
        "message": machine.message,
    }


async def put_group(api: Api, call: Call) -> dict[str, Any]:
    spec: NodeGroupSpec = call.body
    name = call.path["name"]
    problems = group_problems(spec)
    if spec.name != name:
        problems.append(f"node group {name}: the body names {spec.name[:80]!r}")
    if problems:
        raise BadInput(problems[0], problems)
    fresh_id = api.random.token_hex(8)

    def change(old: NodeGroupDoc | None) -> NodeGroupDoc:
        if old is None:
            return NodeGroupDoc(fresh_id, spec, created_ms=api.now_ms(), updated_ms=api.now_ms())
        if old.removing:
            raise Conflict(f"node group {name} is being removed: wait until `shoal nodegroup ls` no longer shows it")
        machines = api.snapshot().of("machines").get(name)
        if old.spec.provider.kind != spec.provider.kind and machines is not None and machines.machines:
            raise Conflict(f"node group {name} has machines of provider {old.spec.provider.kind}: remove the group first")
        return old if old.spec == spec else replace(old, spec=spec, updated_ms=api.now_ms())

    old, new, revision = await api.edit("nodegroups", name, change)
    done = "created" if old is None else "unchanged" if old is new else "updated"
    return {"name": name, "id": new.id, "change": done, "index": revision}


async def remove_group(api: Api, call: Call) -> dict[str, Any]:
    """Its machines are drained and deleted by the leader, one after the other; the group goes with the last one. By force it
    goes at once: `forgotten` names the machines that may still be there."""
    name, force = call.path["name"], bool(call.query["force"])
    _, document = group_of(api.view(), name)

    def change(old: NodeGroupDoc | None) -> NodeGroupDoc | None:
        if old is None or (old.removing and old.forget >= force):
            return old
        return replace(old, removing=True, forget=old.forget or force, updated_ms=api.now_ms())

    _, _, revision = await api.edit("nodegroups", name, change)
    left = [f"{row.node} ({row.id})" if row.id else row.node for row in document.machines] if force else []
    return {"name": name, "index": revision, "forgotten": left}


async def explain(api: Api, call: Call) -> Row:
    name = call.path["name"]
    view = api.view()
    found = explain_group(view, api.settings, name, api.now_ms())
    _, document = group_of(view, name)
    events = [event_row(at, event) for at, event in enumerate(document.history, 1)]
    return {"name": name, "sentence": found.sentence, "lines": list(found.lines), "events": events}
