"""The autoscaler keeps its promises: bounds, pauses and floors; no scale-in that the load or a silent sensor spoke against; no
scale-out beyond what anybody needed; `apply` leaves the count alone; nobody who calls a sleeping service waits for ever.

Rules: what is asked for is weighed against the load as the world knows it, in favour of the autoscaler wherever pictures may be
old or a node is in trouble. The rule's own code is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from model.autoscale import Autoscale
from model.documents import ScaleOrderDoc, ServiceDoc
from sim.checks.facts import LAG_S, Facts, Step
from sim.checks.ground import Checker, Ground
from sim.checks.settled import Missing
from sim.clock import EPOCH_S

CALM_S: Final = 75.0
"""So long nothing may have been wrong with a node for its callers to count."""
HOLE_S: Final = 35.0
"""So long without samples, and what it counts is not known (30 s by the rule, and the way there)."""
AVERAGES_S: Final = (30.0, 40.0, 50.0, 60.0)
LATE_S: Final = (0.0, 3.0, 6.0, 9.0)
"""How old a decision's newest sample may be."""
MARGIN: Final = 1.15
PEAK_S: Final = 75.0
SERVED_S: Final = 30.0


class Flow(Protocol):
    """The part of sim.load.Flow that is needed."""

    @property
    def since_s(self) -> float: ...
    @property
    def until_s(self) -> float: ...
    @property
    def node(self) -> str: ...
    @property
    def connections(self) -> float: ...


class Demand(Protocol):
    """What the world knows of the load."""

    def flows(self, service: str) -> Sequence[Flow]: ...

    def peak(self, service: str, since_s: float, until_s: float) -> float: ...

    def sensors_failed_s(self, node: str) -> float:
        """When something was last wrong with the node's; -1: never."""

    def missing_since_s(self, node: str) -> float | None:
        """Since when it sends no samples; None: it does."""


class NoDemand:
    """Nobody calls, nothing fails."""

    def flows(self, service: str) -> Sequence[Flow]:
        return ()

    def peak(self, service: str, since_s: float, until_s: float) -> float:
        return float("inf")

    def sensors_failed_s(self, node: str) -> float:
        return -1.0

    def missing_since_s(self, node: str) -> float | None:
        return None


class Scaling(Checker):
    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.demand: Demand = NoDemand()

    def wrote(self, step: Step) -> None:
        for change in step.changes:
            if change.kind != "services" or change.old is None or change.new is None or change.old.id != change.new.id:
                continue
            before, after = change.old, change.new
            if after.spec.autoscale is None or before.scale == after.scale:
                continue
            if "scales" in step.kinds:
                self._decided(step, before, after, after.spec.autoscale)
            elif before.spec != after.spec and before.spec.autoscale is not None:
                self._applied(step, before, after, after.spec.autoscale)

    def _applied(self, step: Step, before: ServiceDoc, after: ServiceDoc, policy: Autoscale) -> None:
        if after.scale != min(max(before.scale, policy.min), policy.max):
            self._bad(step, after, "count reset", f"{before.scale} -> {after.scale} by apply, {_bounds(policy)}")

    def _decided(self, step: Step, before: ServiceDoc, after: ServiceDoc, policy: Autoscale) -> None:
        name, said = after.spec.name, f"{before.scale} -> {after.scale}"
        if policy.mode != "on":
            self._bad(step, after, "scaled against its policy", f"{said} in mode {policy.mode}")
        orders = [_order(order, after) for order in self.facts.recently("scaleorders", name, step.at_s)]
        now_ms = (EPOCH_S + step.at_s) * 1000
        if not any(_allowed(order, policy, before.scale, after.scale, now_ms) for order in orders):
            told = ", or ".join(map(str, dict.fromkeys(orders)))
            self._bad(step, after, "scaled against its policy", f"{said} with {_bounds(policy)} and {told}")
        connections = next((metric.target for metric in policy.metrics if metric.kind == "connections"), 0.0)
        if connections and after.scale < before.scale:
            self._in(step, after, said, connections, policy)
        elif connections:
            self._out(step, after, said, connections, policy)

    def _in(self, step: Step, after: ServiceDoc, said: str, target: float, policy: Autoscale) -> None:
        name, at_s = after.spec.name, step.at_s
        flows = self.demand.flows(name)
        for node in dict.fromkeys(flow.node for flow in flows if flow.until_s > at_s - max(AVERAGES_S)):
            since_s = self.demand.missing_since_s(node)
            if since_s is not None and at_s - since_s > HOLE_S and self._heard(node, at_s):
                text = f"{said} while {node}, which has callers of it, has sent no samples for {at_s - since_s:.0f} s"
                self._bad(step, after, "scaled in on missing metrics", text)
        sound = [flow for flow in flows if self._heard(flow.node, at_s) and self._sound(flow.node, at_s)]
        for ago_s in (0.0, max(0.0, policy.scale_in.window_s - 2 * LAG_S)):
            need = min(_average(sound, at_s - ago_s - late_s, over_s) for late_s in LATE_S for over_s in AVERAGES_S)
            if need > max(1, after.scale) * target * MARGIN + 1:
                text = f"{said} while {need:.1f}/s came {ago_s:.0f} s before, {target:g}/s a replica"
                self._bad(step, after, "scaled in under load", text)
        lately = [flow for flow in sound if flow.until_s <= at_s - max(LATE_S)]
        if after.scale == 0 and _average(lately, at_s, max(LATE_S) + policy.scale_in.to_zero_after_s) > 0.1:
            self._bad(step, after, "put to sleep under load", f"{said} though somebody called")

    def _out(self, step: Step, after: ServiceDoc, said: str, target: float, policy: Autoscale) -> None:
        at_s, name = step.at_s, after.spec.name
        if any(self.demand.sensors_failed_s(node) > at_s - CALM_S for node in self.facts.docs["nodes"]):
            return
        floors = [row.floor for row in self.facts.recently("scaleorders", name, at_s) if row is not None]
        peak = self.demand.peak(name, at_s - PEAK_S, at_s)
        most = max([1, policy.min, *floors, peak * MARGIN / target])
        if after.scale >= most + 1:
            text = f"{said} though {peak:.1f}/s came at most, {target:g}/s a replica"
            self._bad(step, after, "scaled out beyond the load", text)

    def _heard(self, node: str, at_s: float) -> bool:
        return self.ground.calm(node, at_s, CALM_S) and self.ground.belongs(node, at_s)

    def _sound(self, node: str, at_s: float) -> bool:
        return self.demand.sensors_failed_s(node) <= at_s - CALM_S

    def _bad(self, step: Step, document: ServiceDoc, rule: str, text: str) -> None:
        self.bad(step.at_s, rule, f"service/{document.spec.name}", text)


def _bounds(policy: Autoscale) -> str:
    return f"min {policy.min} and max {policy.max}"


def _order(order: ScaleOrderDoc | None, document: ServiceDoc) -> ScaleOrderDoc:
    return order if order is not None and order.id == document.id else ScaleOrderDoc(document.id, document.spec.name)


def _floor(order: ScaleOrderDoc, policy: Autoscale, now_ms: float) -> int:
    """One that is about to end may have ended by the clock of whoever looked."""
    return min(order.floor, policy.max) if order.floor_until_ms > now_ms + LAG_S * 1000 else 0


def _allowed(order: ScaleOrderDoc, policy: Autoscale, before: int, after: int, now_ms: float) -> bool:
    if order.paused == "both" or order.paused == ("in" if after < before else "out"):
        return False
    return max(policy.min, _floor(order, policy, now_ms)) <= after <= policy.max


def _average(flows: Sequence[Flow], until_s: float, over_s: float) -> float:
    """Connections per second."""
    since_s = until_s - over_s
    return sum(flow.connections for flow in flows if flow.since_s >= since_s and flow.until_s <= until_s) / over_s


def unserved(waiting: Mapping[tuple[str, str], float], calm_s: float, facts: Facts, now_s: float) -> Iterator[Missing]:
    """Callers who wait for a replica of a service that has none. `calm_s`: when the last fault was over."""
    for (name, node), since_s in sorted(waiting.items()):
        document, order = facts.docs["services"].get(name), facts.docs["scaleorders"].get(name)
        paused = document is not None and _order(order, document).paused in ("out", "both")
        if document is not None and document.scale == 0 and not paused and now_s - max(since_s, calm_s) > SERVED_S:
            yield Missing("caller not served", f"service/{name}", f"on {node} it has waited for {now_s - since_s:.0f} s")


def high(facts: Facts, now_s: float) -> Iterator[Missing]:
    """Counts that are not back at the least, though the load is over."""
    for name, document in sorted(facts.docs["services"].items()):
        policy = document.spec.autoscale
        if policy is None or policy.mode != "on" or document.stopped:
            continue
        order = _order(facts.docs["scaleorders"].get(name), document)
        if order.paused:
            continue
        most = max(policy.min, order.floor if order.floor_until_ms > (EPOCH_S + now_s - LAG_S) * 1000 else 0)
        if not policy.min <= document.scale <= most:
            text = f"it has {document.scale} replicas, {most} are enough without load"
            yield Missing("scale not back", f"service/{name}", text)
