"""/metrics of the autoscalers: what of each service is measured and wanted, the node groups' machines, what was decided.

Rules: of what nodes measure only the newest value is read, in the event loop's thread, a few services at a time; everything
else comes from documents. What is counted is what this controller wrote itself, so that sums over controllers are right.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter
from prometheus_client.core import Metric

from controller.api.families import gauge
from controller.loops.measuring import Measuring
from controller.loops.picture import Change, Snapshot
from controller.metrics import REGISTRY
from controller.samples.port import History, Samples
from controller.samples.store import COLUMNS
from model.autoscale import Autoscale, ScalingMetric
from model.autoscale_check import whole_of
from model.documents import MachinesDoc, MetricReading, NodeGroupDoc, ScaleDoc, ServiceDoc

AT_ONCE: Final = 50
SCALED: Final = Counter(
    "shoal_autoscale_decisions",
    "Decisions that changed a service's number of replicas.",
    ["service", "direction"],
    registry=REGISTRY,
)
MACHINES: Final = Counter(
    "shoal_node_group_changes",
    "Machines of node groups that were asked for (out) and that are gone (in).",
    ["group", "direction"],
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one service: the newest value of each metric (by name; not of those that nobody knows now), callers that are held."""

    values: Mapping[str, float]
    held: int


def count(changes: Iterable[Change]) -> None:
    """What autoscalers decided; for whoever tells of the picture's changes."""
    for change in changes:
        if change.own and change.kind == "scales" and change.new is not None:
            _count_scale(change.old, change.new)
        elif change.own and change.kind == "machines":
            _count_machines(change.name, change.old, change.new)


def _count_scale(old: ScaleDoc | None, new: ScaleDoc) -> None:
    last = new.last
    if last is not None and last.acted and last.wanted != last.before and (old is None or old.last != last):
        SCALED.labels(new.name, "out" if last.wanted > last.before else "in").inc()


def _count_machines(group: str, old: MachinesDoc | None, new: MachinesDoc | None) -> None:
    before, after = _names(old), _names(new)
    MACHINES.labels(group, "out").inc(len(after - before))
    MACHINES.labels(group, "in").inc(len(before - after))


def _names(doc: MachinesDoc | None) -> set[str]:
    return {machine.node for machine in doc.machines} if doc is not None else set()


# ---- what nodes measure


async def measured(snapshot: Snapshot, samples: Samples, measuring: Measuring) -> dict[str, Measured]:
    """By name, of services that scale themselves."""
    found: dict[str, Measured] = {}
    services: Mapping[str, ServiceDoc] = snapshot.of("services")
    for name, doc in services.items():
        if doc.spec.autoscale is not None:
            found[name] = Measured(_values(doc, doc.spec.autoscale, samples, measuring), samples.waiting(doc.id))
            if len(found) % AT_ONCE == 0:
                await asyncio.sleep(0)
    return found


def _values(doc: ServiceDoc, policy: Autoscale, samples: Samples, measuring: Measuring) -> dict[str, float]:
    history = samples.service(doc.id, samples.settled_ms() - samples.step_ms())
    values = {metric.name: _value(doc, metric, history, measuring) for metric in policy.metrics}
    return {name: value for name, value in values.items() if value is not None}


def _value(doc: ServiceDoc, metric: ScalingMetric, history: History, measuring: Measuring) -> float | None:
    """None when nobody knows it now."""
    if metric.kind not in COLUMNS:
        told = measuring.series(doc, metric)
        return told.rows[-1][1] if told.rows and not told.problem else None
    columns = [history[name][-1:] for name in COLUMNS[metric.kind]]
    newest = [number for column in columns for number in column if number is not None]
    whole = whole_of(metric.kind, doc.spec.reservations, doc.spec.container.limits) or 1.0
    return sum(newest) / whole if newest and len(newest) == len(columns) else None


# ---- families


def scaling(snapshot: Snapshot, values: Mapping[str, Measured], now_ms: int) -> Iterator[Metric]:
    services: Mapping[str, ServiceDoc] = snapshot.of("services")
    policies = {name: doc.spec.autoscale for name, doc in sorted(services.items()) if doc.spec.autoscale is not None}
    known: Mapping[str, ScaleDoc] = snapshot.of("scales")
    documents = {name: known[name] for name in policies if name in known and known[name].id == services[name].id}
    fewest = (((name,), policy.min) for name, policy in policies.items())
    yield gauge("shoal_autoscale_replicas_min", "Fewest replicas the policy allows, schedules aside.", fewest, "service")
    most = (((name,), policy.max) for name, policy in policies.items())
    yield gauge("shoal_autoscale_replicas_max", "Most replicas the policy allows, schedules aside.", most, "service")
    wanted = (((name,), doc.wanted) for name, doc in documents.items())
    yield gauge("shoal_autoscale_replicas_wanted", "Replicas that are wanted; in mode recommend only said.", wanted, "service")
    yield from _metrics(policies, documents, values, now_ms)
    held = (((name,), values[name].held) for name in policies if name in values)
    yield gauge("shoal_service_held_callers", "Callers that nodes hold until a replica is ready.", held, "service")


def _metrics(
    policies: Mapping[str, Autoscale], documents: Mapping[str, ScaleDoc], values: Mapping[str, Measured], now_ms: int
) -> Iterator[Metric]:
    labels = ("service", "metric")
    targets = (((name, metric.name), metric.target) for name, policy in policies.items() for metric in policy.metrics)
    yield gauge("shoal_autoscale_metric_target", "What one replica should bear of it.", targets, *labels)
    newest = (((name, metric), value) for name in policies if name in values for metric, value in values[name].values.items())
    text = "What all replicas bear of it now, in the target's unit (cpu and memory in whole reservations)."
    yield gauge("shoal_autoscale_metric_value", text, newest, *labels)
    wanted = (((name, row.metric), row.wanted) for name, row in _readings(documents) if row.wanted is not None)
    yield gauge("shoal_autoscale_metric_wanted", "Replicas it wanted at the newest change.", wanted, *labels)
    failing = {(name, metric): since_ms for name, doc in documents.items() for metric, since_ms in doc.failing}
    names = [(name, metric.name) for name, policy in policies.items() for metric in policy.metrics]
    ages = ((key, max(0, now_ms - failing[key]) / 1000 if key in failing else 0.0) for key in names)
    yield gauge("shoal_autoscale_metric_failing_seconds", "For how long it has been missing; 0: it is not.", ages, *labels)


def _readings(documents: Mapping[str, ScaleDoc]) -> Iterator[tuple[str, MetricReading]]:
    for name, doc in documents.items():
        yield from ((name, reading) for reading in (doc.last.readings if doc.last is not None else ()))


def groups(snapshot: Snapshot, now_ms: int) -> Iterator[Metric]:
    """The node groups' machines."""
    specs: Mapping[str, NodeGroupDoc] = snapshot.of("nodegroups")
    documents: Mapping[str, MachinesDoc] = snapshot.of("machines")
    states = Counts((name, machine.state) for name, doc in documents.items() for machine in doc.machines)
    yield gauge("shoal_node_group_machines", "Machines of a group, by state.", states.items(), "group", "state")
    rows = sorted(specs.items())
    yield gauge("shoal_node_group_min", "Fewest machines.", (((name,), doc.spec.min) for name, doc in rows), "group")
    yield gauge("shoal_node_group_max", "Most machines.", (((name,), doc.spec.max) for name, doc in rows), "group")
    waits = (((name,), max(0, doc.back_off_until_ms - now_ms) / 1000) for name, doc in sorted(documents.items()))
    yield gauge("shoal_node_group_back_off_seconds", "For how long no machine is asked for, after failures.", waits, "group")
