"""Why: this count, this node, this waiting; in sentences, for a service, a replica or a node, from a view.

Rules: pure text out of documents. A replica's node is explained by what stands there now and what else was possible; a waiting
slot by the reasons the scheduler gives today, not by an old sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from controller.decide.autoscaling import known_of, order_of
from controller.decide.batch import Batch
from controller.decide.pinning import with_digest
from controller.decide.ports import ports_of, published
from controller.decide.replicas import ReplicaRow, counts, replica_rows
from controller.decide.scaled import policy_lines
from controller.decide.types import Settings, View
from controller.decide.wording import counted, listed, spread_of
from controller.decide.work import Work, begin
from model.documents import ServiceDoc, ServicePlanDoc
from model.errors import NotFound
from model.spec import ServiceSpec
from model.states import FAILED, PENDING, REJECTED, RUNNING
from scheduler import MICRO
from scheduler.filters import reason
from scheduler.pool import Pool


@dataclass(frozen=True, slots=True)
class Explanation:
    """`sentence` is the answer, `lines` what stands behind it."""

    name: str
    sentence: str
    lines: tuple[str, ...] = ()


def explain_service(view: View, name: str, settings: Settings, now_ms: int) -> Explanation:
    """Raises NotFound."""
    doc = view.services.get(name)
    if doc is None:
        raise NotFound(f"service {name} does not exist")
    rows, count = replica_rows(view, service=name), counts(view, doc)
    lines = [_why_count(doc)]
    if doc.spec.autoscale is not None:
        lines += policy_lines(doc.spec.autoscale, known_of(view, doc), order_of(view, doc), now_ms)
    placed = [row.node for row in rows if row.node]
    if placed:
        lines.append(f"on nodes: {spread_of(placed)}")
    states = Counter(row.state for row in rows if row.state != RUNNING)
    lines += [f"{counted(number)} {state}" for state, number in sorted(states.items())]
    troubles = Counter(row.message.removeprefix(f"{row.name}: ") for row in rows if row.state in (REJECTED, FAILED))
    lines += [f"{counted(number)} cannot start: {why}" for why, number in troubles.most_common(3) if why]
    lines += [f"image: {with_digest(doc.spec)}"] if doc.spec.container.image_digest else []
    lines += _demands(doc.spec)
    lines += answers(doc, view.svcplans.get(name))
    waiting = Counter(row.message for row in rows if row.state == PENDING)
    lines += [f"{counted(number)} waiting: {why}" for why, number in waiting.most_common(5)]
    decision = view.decisions.get(name)
    lines += decision.notes if decision else ()
    if waiting or (decision and decision.notes):
        lines += _node_lines(view, doc, settings, now_ms)
    sentence = f"{name}: {count.running} of {count.wanted} running"
    last = decision.sentences[-1].sentence if decision and decision.sentences else ""
    return Explanation(name, f"{sentence}; {last}" if last else sentence, tuple(lines))


def explain_replica(view: View, name: str, settings: Settings, now_ms: int) -> Explanation:
    """Raises NotFound. With two holders of one slot (a node came back, an update) both are explained."""
    service = name if name in view.services else name.partition(".")[0]
    heads = [name[:at] for at in range(len(name)) if name[at] == "." and name[:at] in view.services]
    rows = [row for head in heads or [service] for row in replica_rows(view, service=head) if row.name == name]
    if not rows:
        raise NotFound(f"replica {name} does not exist")
    doc = view.services[rows[0].service]
    lines = [line for row in rows for line in _replica_lines(row)]
    lines += [*_demands(doc.spec), *_node_lines(view, doc, settings, now_ms, {row.node for row in rows})]
    return Explanation(name, lines[0], tuple(lines[1:]))


def explain_node(view: View, name: str) -> Explanation:
    """Raises NotFound."""
    node = view.nodes.get(name)
    if node is None:
        raise NotFound(f"node {name} does not exist")
    health, status, assigned = view.health.get(name), view.statuses.get(name), view.assignments.get(name)
    state = health.state if health else "unreachable"
    words = {"active": "takes replicas", "pause": "is paused: it keeps its replicas and gets no new ones"}
    words["drain"] = "is drained: its replicas move away"
    sentence = f"{name} is {state} and {words[node.availability]}"
    lines = [f"{state}: {health.message}"] if health and health.message else []
    if health is None:
        lines.append("it has never been ready: its agent has not opened a session with its whole status yet")
    running = {entry.name: entry.count for entry in (assigned.services if assigned else ())}
    lines.append(f"{counted(sum(running.values()))} of {counted(len(running), 'service')}")
    if status:
        asked = [view.services[service].spec.reservations for service in running if service in view.services]
        numbers = [running[service] for service in running if service in view.services]
        cpus = sum(want.cpus * number for want, number in zip(asked, numbers, strict=True))
        memory = sum(want.memory_bytes * number for want, number in zip(asked, numbers, strict=True))
        given: Counter[str] = Counter()
        for want, number in zip(asked, numbers, strict=True):
            given.update({kind: count * number for kind, count in want.generic})
        lines.append(
            f"reserved: {cpus:g} of {status.info.cpus:g} cpus, {_mb(memory)} of {_mb(status.info.memory_bytes)} memory"
            + "".join(f", {given[kind]} of {count} {kind}" for kind, count in node.generic)
        )
    holds = sorted(volume for volume, place in view.places.items() if name in place.nodes)
    if holds:
        lines.append(f"holds volumes: {listed(holds)}")
    return Explanation(name, sentence, tuple(lines))


def _why_count(doc: ServiceDoc) -> str:
    if doc.stopped:
        return "it is stopped: `shoal start` runs it again"
    if doc.spec.mode.startswith("global"):
        return "global: one replica on every eligible node"
    if doc.spec.single:
        return "a single container: one replica"
    if doc.spec.autoscale is not None and doc.spec.autoscale.mode == "on":
        return f"{counted(doc.scale)} wanted by its autoscaler"
    source = "as the file says" if doc.scale == doc.spec.replicas else f"the file says {doc.spec.replicas}, it was scaled since"
    return f"{counted(doc.scale)} wanted: {source}"


def _demands(spec: ServiceSpec) -> list[str]:
    want, placement, lines = spec.reservations, spec.placement, []
    parts = [f"{want.cpus:g} cpus"] if want.cpus else []
    parts += [f"{_mb(want.memory_bytes)} memory"] if want.memory_bytes else []
    parts += [f"{want.pids} pids"] if want.pids else []
    parts += [f"{count} {kind}" for kind, count in want.generic]
    if parts:
        lines.append(f"each replica reserves {', '.join(parts)}")
    rules = [*placement.constraints, *(f"spread over {label}" for label in placement.spread)]
    rules += [f"at most {placement.max_replicas_per_node} per node"] if placement.max_replicas_per_node else []
    rules += [f"only on {placement.node}"] if placement.node else []
    lines += [f"priority {spec.priority}"] if spec.priority else []
    return [*lines, *([f"placement: {'; '.join(rules)}"] if rules else [])]


def answers(doc: ServiceDoc, plan: ServicePlanDoc | None) -> list[str]:
    """Where the service answers: its networks with their VIPs, its published ports."""
    known = plan if plan is not None and plan.id == doc.id else ServicePlanDoc(doc.id, doc.spec.name)
    vips, lines = dict(known.vips), []
    names = [f"{row.network} (VIP {vips[row.network]})" if row.network in vips else row.network for row in doc.attachments]
    if names:
        lines.append(f"networks: {', '.join(names)}")
    ports = [f"{published(port)}{' on nodes with a replica' if port.local else ' on every node'}" for port in known.ports]
    ports += [f"{published(port)} on its replicas' nodes" for port in ports_of(doc) if port.mode == "host"]
    return [*lines, *([f"published: {', '.join(ports)}"] if ports else [])]


def _replica_lines(row: ReplicaRow) -> list[str]:
    if row.state == PENDING:
        return [f"{row.name} waits for a node: {row.message}"]
    after = f" after {counted(row.restarts, 'restart')}" if row.restarts else ""
    lines = [f"{row.name} is {row.state} on {row.node}{after}{f': {row.message}' if row.message else ''}"]
    if row.exit_code is not None:
        lines.append(f"its last exit code was {row.exit_code}")
    return lines


def _node_lines(view: View, doc: ServiceDoc, settings: Settings, now_ms: int, own: Collection[str] = ()) -> list[str]:
    """What each node says to one more replica of the service, today; `own`: where the replica that is explained is."""
    batch = Batch(view, settings, now_ms)
    work: Work = begin(batch, doc)
    if work.blocked:
        return [work.blocked]
    pool = Pool(batch.cluster(work.volumes, work.group.ports))
    held = Counter(held.node for slot in work.standing.slots.values() for held in slot.holders)
    bound = [(name, pool.volumes[name]) for name in work.volumes if pool.volumes.get(name)]
    why = {node.name: reason(pool, i, work.group, held[node.name]) for i, node in enumerate(pool.nodes)}
    for name, nodes in bound:
        elsewhere = f"volume {name} is on {listed(nodes)}"
        why.update({node: elsewhere for node, text in why.items() if not text and node not in nodes})
    free = [
        f"{node.name} ({held[node.name]} of this service, {left.replicas} in all, {left.cpus / MICRO:g} cpus free)"
        for node, left in zip(pool.nodes, pool.where, strict=True) if not why[node.name] and node.name not in own
    ]  # fmt: skip
    lines = [f"could also run on {listed(free)}"] if free else []
    refusing: dict[str, list[str]] = {}
    for name, text in why.items():
        if text:
            refusing.setdefault(text, []).append(name)
    return lines + [f"not on {listed(names)}: {text}" for text, names in refusing.items()]


def _mb(amount: int) -> str:
    return f"{amount / (1 << 20):,.0f} MiB"
