"""What is said of a service's policy: what it may do, what holds it back, what it did last. Pure text out of documents."""

from __future__ import annotations

from controller.decide.scaling import words
from controller.decide.scaling.bounds import bounds
from controller.decide.wording import counted
from model.autoscale import Autoscale, ScalingMetric
from model.documents import ScaleDoc, ScaleOrderDoc

_PAUSED = {
    "in": "paused: it does not scale in", "out": "paused: it does not scale out", "both": "paused: it keeps the count it has",
}  # fmt: skip


def policy_lines(policy: Autoscale, known: ScaleDoc | None, order: ScaleOrderDoc | None, now_ms: int) -> list[str]:
    """The policy first."""
    lines = [f"{_MODES[policy.mode]} {policy.min:,} to {counted(policy.max)} by {_targets(policy)}"]
    limits = bounds(policy, order, now_ms)
    if limits.schedules and (limits.least, limits.most) != (policy.min, policy.max):
        lines.append(f"now {limits.least:,} to {limits.most:,}: schedule {', '.join(limits.schedules)}")
    if order is not None and limits.floor:
        lines.append(f"at least {limits.floor:,} for another {lasting(order.floor_until_ms - now_ms)}: set by hand")
    if order is not None and order.paused:
        lines.append(f"{_PAUSED[order.paused]}: `shoal autoscale resume {order.name}`")
    if known is not None and known.last is not None and (known.last.wanted != known.last.before or known.failing):
        named = {metric.name for metric in policy.metrics}
        earlier = "" if all(row.metric in named for row in known.last.readings) else ", of an earlier policy"
        lines.append(f"last decision, {lasting(now_ms - known.last.at_ms)} ago{earlier}: {known.last.sentence}")
    return lines


_MODES = {"on": "scales itself from", "recommend": "only recommends, from", "off": "autoscaling is off: would scale from"}


def _targets(policy: Autoscale) -> str:
    return ", ".join(target(metric) for metric in policy.metrics) or "its schedules"


def target(metric: ScalingMetric) -> str:
    """`connections (50/s a replica)`."""
    name = f"{metric.kind} {words.short(metric.query)}" if metric.query else metric.kind
    return f"{name} ({words.amount(metric.kind, metric.target)} a replica)"


def lasting(ms: int) -> str:
    """`45 s`, `12 min`, `3 h`."""
    seconds = max(0, ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
