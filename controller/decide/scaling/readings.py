"""What each metric of a policy says now: an average, and the count of replicas it wants.

Rules: a value that is negative, above VALUE_MAX or not a number is not there. A metric is known when it does not fail and the
last minute of it has no hole longer than HOLE_MS; what is not known may want more replicas, never fewer. Replicas that did not
speak are idle on the way up and at their target on the way down; where that turns the direction round, nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Final

from controller.decide.scaling.types import ScaleFacts, Series
from model.autoscale import Autoscale, ScalingMetric
from model.documents import MetricReading

AVERAGE_MS: Final = 60_000
BURST_MS: Final = 10_000
BURST: Final = 1.1
"""Ten seconds want more when they stand that much above the minute, and above what there is. Of fewer than there are they
have a say whenever they stand above the minute at all: else a step in load, once followed, would look like too much."""
HOLE_MS: Final = 30_000
"""Averages and holes are longer where samples come seldom, as those of thousands of nodes do."""
_AVERAGE_STEPS: Final = 2
_HOLE_STEPS: Final = 3
VALUE_MAX: Final = 1e15
COUNT_MAX: Final = 1_000_000
OF_REPLICAS: Final = frozenset({"cpu", "memory", "scrape"})
"""Kinds that only a replica can speak of: at zero they are silent, which is no failure."""
_ALMOST: Final = 1e-9
_NOTHING: Final = Series()


@dataclass(slots=True)
class Reading:
    """`value`: the average that counts, total over the replicas; `recent`: that of the last ten seconds; `spoke`: replicas in
    the newest row. `unknown`: why it is not known; `failing`: it also counts as a failure; `begins`: it is whole, but reaches
    back less than a minute (a new leader, a new metric). `burst`: `value` is that of ten seconds, which want otherwise.
    """

    metric: ScalingMetric
    value: float | None = None
    recent: float = 0.0
    spoke: int = 0
    wanted: int | None = None
    unknown: str = ""
    failing: bool = False
    begins: bool = False
    burst: bool = False

    def row(self) -> MetricReading:
        value = None if self.value is None else round(self.value, 3)
        return MetricReading(self.metric.name, value, self.spoke, self.wanted, self.unknown)


@dataclass(slots=True)
class _Minute:
    """The rows of the last minute added up. `silent`: replicas missing, added over the rows; `hole_ms`: the longest stretch
    without a row; `began_ms`: the oldest row in it; `older`: there are rows before it."""

    rows: int = 0
    total: float = 0.0
    silent: int = 0
    recent_rows: int = 0
    recent: float = 0.0
    newest: float = 0.0
    spoke: int = 0
    hole_ms: int = 0
    began_ms: int = 0
    older: bool = False


def read(facts: ScaleFacts, now_ms: int) -> list[Reading]:
    """A reading for each metric of the policy, in its order."""
    return [_reading(metric, facts.series.get(metric.name, _NOTHING), facts, now_ms) for metric in facts.policy.metrics]


def _reading(metric: ScalingMetric, series: Series, facts: ScaleFacts, now_ms: int) -> Reading:
    found = Reading(metric)
    silent = metric.kind in OF_REPLICAS
    if silent and facts.scale == 0:
        return found
    average_ms = max(AVERAGE_MS, _AVERAGE_STEPS * series.step_ms)
    minute = _minute(series.rows, facts.ready, now_ms, average_ms)
    if minute.rows and metric.target > 0 and isfinite(metric.target):
        _value(found, minute, facts)
    found.unknown = _why_unknown(minute, series, average_ms)
    found.failing = bool(found.unknown)
    if found.unknown and silent and facts.ready == 0:
        found.unknown, found.failing = "no replica is ready", False
    found.begins = not found.unknown and not minute.older and minute.began_ms > now_ms - average_ms // 2
    return found


def _minute(rows: Sequence[tuple[int, float, int | None]], ready: int, now_ms: int, average_ms: int) -> _Minute:
    """The hot loop of a decision: once per metric over a minute of rows, newest first."""
    since, burst_since = now_ms - average_ms, now_ms - BURST_MS
    found = _Minute()
    total, recent, count, recent_count, silent, hole, last = 0.0, 0.0, 0, 0, 0, 0, now_ms
    for at, value, spoke in reversed(rows):
        if at <= since:
            found.older = True
            break
        if at > now_ms or not 0.0 <= value <= VALUE_MAX:
            continue
        if count == 0:
            found.newest, found.spoke = value, ready if spoke is None else spoke
        if last - at > hole:
            hole = last - at
        last = at
        total += value
        count += 1
        if at > burst_since:
            recent += value
            recent_count += 1
        if spoke is not None and spoke < ready:
            silent += ready - max(0, spoke)
    if found.older:
        hole = max(hole, last - since)
    found.total, found.rows, found.recent, found.recent_rows = total, count, recent, recent_count
    found.silent, found.hole_ms, found.began_ms = silent, hole, last
    return found


def _value(found: Reading, minute: _Minute, facts: ScaleFacts) -> None:
    target, scale, policy = found.metric.target, facts.scale, facts.policy
    average, silent = minute.total / minute.rows, target * minute.silent / minute.rows
    recent = found.recent = minute.recent / minute.recent_rows if minute.recent_rows else minute.newest
    found.spoke = minute.spoke
    need = recent if recent > BURST * average else average
    found.wanted = _wanted(need, max(average, recent) + silent, target, scale, policy)
    found.burst = found.wanted != _wanted(average, average + silent, target, scale, policy)
    found.value = recent if found.burst else average


def _wanted(need: float, need_if_silent_are_busy: float, target: float, scale: int, policy: Autoscale) -> int:
    """The count for `need` in all, `target` per replica; the present count when it is near enough."""
    present = target * scale
    if need > present * (1 + policy.scale_out.tolerance):
        return _count(need / target)
    if max(need, need_if_silent_are_busy) >= present * (1 - policy.scale_in.tolerance):
        return scale
    return _count(need_if_silent_are_busy / target)


def _count(replicas: float) -> int:
    return COUNT_MAX if replicas >= COUNT_MAX else ceil(replicas - _ALMOST)


def _why_unknown(minute: _Minute, series: Series, average_ms: int) -> str:
    if series.problem:
        return series.problem
    if not minute.rows:
        return f"no sample in {average_ms // 1000} s"
    if minute.hole_ms > max(HOLE_MS, _HOLE_STEPS * series.step_ms):
        return f"no sample for {minute.hole_ms // 1000} s of the last {average_ms // 1000} s"
    return ""
