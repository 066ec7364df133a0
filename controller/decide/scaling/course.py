"""Which count a service is to have now: the largest wish, within steps and bounds, with the reasons in words.

Rules: up at once; down to the largest count wanted within the window, only while every metric is known; zero after a time below
activation, when nothing wants more than one. Bounds hold at once, without steps. A pause holds against all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.decide.scaling import memory, words
from controller.decide.scaling.bounds import Bounds
from controller.decide.scaling.readings import OF_REPLICAS, Reading
from controller.decide.scaling.types import ScaleFacts
from model.autoscale import ScalingFallback


@dataclass(slots=True)
class Case:
    """One decision on its way. `fallen`: metrics that have failed for long enough; `wanted`: the largest wish; `parts`: the
    reasons so far."""

    facts: ScaleFacts
    now_ms: int
    readings: list[Reading]
    bounds: Bounds
    steps: memory.Rows
    fallen: frozenset[str] = frozenset()
    recommended: memory.Rows = ()
    quiet_since_ms: int = 0
    wanted: int = 0
    parts: list[str] = field(default_factory=list)


def wish(case: Case) -> int:
    """The largest count of all metrics; the reason of the one that wins becomes the first part. Without metrics the minimum."""
    if not case.readings:
        case.parts.append("no metric: the minimum holds")
        return case.bounds.least
    best, whose = -1, case.readings[0]
    for reading in case.readings:
        count = _count(case, reading)
        if count > best:
            best, whose = count, reading
    if whose.metric.name in case.fallen:
        case.parts.append(f"{words.named([whose])} not known: the fallback is {best:,}")
    elif whose.wanted is not None:
        case.parts.append(words.wish(whose))
    return max(best, case.facts.scale) if unknown(case) else best


def unknown(case: Case) -> list[Reading]:
    """Those that hold the count where it is."""
    return [reading for reading in case.readings if reading.unknown and reading.metric.name not in case.fallen]


def _count(case: Case, reading: Reading) -> int:
    fallback = case.facts.policy.fallback
    if fallback is not None and reading.metric.name in case.fallen:
        return _fallback(fallback, case.facts.scale)
    return reading.wanted or 0


def _fallback(fallback: ScalingFallback, scale: int) -> int:
    if fallback.behavior == "static":
        return fallback.replicas
    return scale if fallback.behavior == "current" else max(scale, fallback.replicas)


def deciding(readings: Sequence[Reading]) -> list[Reading]:
    """Who says whether it is used: not cpu and memory, which are never quite idle, unless there is nothing else."""
    return [reading for reading in readings if reading.metric.kind not in ("cpu", "memory")] or list(readings)


def active(reading: Reading, activation: float) -> bool:
    """At or above activation; where that is zero, anything at all."""
    return reading.recent >= activation if activation > 0 else reading.recent > 0


def result(case: Case) -> int:
    """The count to have; with `case.wanted`, `recommended` and `quiet_since_ms` known."""
    scale, limits = case.facts.scale, case.bounds
    if scale == 0 and limits.least == 0:
        count = _woken(case)
    elif scale < limits.least:
        case.parts.append(_least_words(case))
        count = max(limits.least, _out(case))
    elif scale > limits.most:
        case.parts.append(f"at most {limits.most:,} are allowed")
        count = limits.most
    else:
        count = _out(case) if case.wanted > scale else _in(case)
    if count <= scale:
        kept = "no fewer while " if count == scale > 0 else ""
        case.parts += [f"{kept}{said}" for said in words.not_known(unknown(case))]
    return _paused(case, count)


def _paused(case: Case, count: int) -> int:
    order, scale = case.facts.order, case.facts.scale
    against = {"in": count < scale, "out": count > scale, "both": count != scale}
    if order is None or not order.paused or not against[order.paused]:
        return count
    case.parts.append(f"{count:,} when it is no longer paused ({order.paused})")
    return scale


def _woken(case: Case) -> int:
    """From zero: callers wait, or a metric that speaks without replicas is at activation."""
    facts = case.facts
    awake = [
        reading for reading in case.readings
        if reading.metric.name in case.fallen
        or (reading.metric.kind not in OF_REPLICAS and reading.value is not None and active(reading, facts.policy.activation))
    ]  # fmt: skip
    goal = max([1 if facts.waiting else 0, *(_count(case, reading) for reading in awake)])
    if facts.waiting:
        case.parts[:] = [words.callers(facts.waiting)]
    elif not goal:
        case.parts[:] = ["asleep until the first caller"]
    return _stepped_out(case, goal)


def _out(case: Case) -> int:
    return _stepped_out(case, max(case.wanted, case.facts.scale))


def _stepped_out(case: Case, goal: int) -> int:
    rule, scale = case.facts.policy.scale_out, case.facts.scale
    if goal > case.bounds.most:
        goal = case.bounds.most
        case.parts.append(f"at most {goal:,} are allowed")
    base, step = memory.room_out(case.steps, scale, rule, case.now_ms)
    if goal > base + step:
        goal = max(base + step, scale)
        case.parts.append(f"at most +{step:,} in {rule.every_s:g} s")
    return goal


def _in(case: Case) -> int:
    rule, scale = case.facts.policy.scale_in, case.facts.scale
    held = memory.largest(case.recommended, case.now_ms, rule.window_s)
    sleeps = _sleeps(case, held)
    least = 0 if sleeps else max(case.bounds.least, 1)
    goal = 0 if sleeps else max(held, least)
    if goal >= scale or _unsure(case):
        _why_kept(case, held, goal)
        return scale
    if sleeps:
        case.parts[:] = [f"unused for {rule.to_zero_after_s:g} s"]  # whatever is left of its load wants no replica of its own
    elif goal > held:
        case.parts.append(_least_words(case))
    elif held > case.wanted:
        case.parts.append(f"at most {held:,} were wanted in {rule.window_s:g} s")
    base, step = memory.room_in(case.steps, scale, rule, case.now_ms)
    if goal < base - step:
        goal = min(base - step, scale)
        case.parts.append(f"at most -{step:,} in {rule.every_s:g} s")
    return goal


def _unsure(case: Case) -> bool:
    return any(reading.begins for reading in case.readings) or bool(unknown(case))


def _sleeps(case: Case, held: int) -> bool:
    since, after_s = case.quiet_since_ms, case.facts.policy.scale_in.to_zero_after_s
    return bool(since) and held <= 1 and case.now_ms - since >= after_s * 1000


def _why_kept(case: Case, held: int, goal: int) -> None:
    scale = case.facts.scale
    if case.wanted >= scale:
        return
    begins = next((reading for reading in case.readings if reading.begins), None)
    if goal < scale and begins is not None:
        case.parts.append(f"no fewer until {words.named([begins])} known for a minute")
    elif held >= scale:
        case.parts.append(f"fewer only when this lasts for {case.facts.policy.scale_in.window_s:g} s")
    else:
        case.parts.append(_least_words(case))


def _least_words(case: Case) -> str:
    limits = case.bounds
    if limits.floor and limits.floor == limits.least:
        return f"{limits.floor:,} were set by hand"
    if limits.schedules and limits.least > case.facts.policy.min:
        return f"at least {limits.least:,} by the schedule {limits.schedules[0]}"
    if limits.least:
        return f"at least {limits.least:,} by the policy"
    return f"the last one stays until it is unused for {case.facts.policy.scale_in.to_zero_after_s:g} s"
