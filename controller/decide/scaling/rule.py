"""The rule: facts of one service and now in, its count, what to remember and the sentence out.

Rules: the document changes only when something that matters did: a steady service writes nothing. Who goes on with the document
decides the same. The history is bounded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controller.decide.scaling import memory, words
from controller.decide.scaling.bounds import bounds, reach
from controller.decide.scaling.course import Case, active, deciding, result, wish
from controller.decide.scaling.readings import read
from controller.decide.scaling.types import ScaleFacts, ScaleStep
from model.documents import ScaleDecision, ScaleDoc

DECIDE_MS: Final = 5_000
OFF_MS: Final = 60_000
HISTORY_MAX: Final = 20
TROUBLES_MS: Final = 60_000
"""A sensor that comes and goes is told of once in so long."""


def decide(facts: ScaleFacts, now_ms: int) -> ScaleStep:
    """What the count is to be, what to remember, why. The very document of the facts when nothing that matters has changed."""
    old = facts.document or ScaleDoc(facts.service_id, facts.name, facts.scale)
    if facts.policy.mode == "off":
        return _off(facts, old, now_ms)
    case = Case(facts, now_ms, read(facts, now_ms), bounds(facts.policy, facts.order, now_ms), old.steps)
    failing = _failing(case, old)
    case.fallen = _fallen(case, failing)
    case.wanted = wish(case)
    low, high = reach(facts.policy)
    level = min(max(case.wanted, low), high)
    case.recommended = memory.remember(old.recommended, level, facts.scale, now_ms, facts.policy.scale_in.window_s)
    case.quiet_since_ms = _quiet_since(case, old)
    count = result(case)
    acts = facts.policy.mode == "on"
    if not acts:
        case.parts.append("only recommended")
    sentence = f"{words.head(facts.scale, count)}: {'; '.join(case.parts)}"
    document = replace(
        old, wanted=count, recommended=case.recommended, failing=failing, quiet_since_ms=case.quiet_since_ms,
        steps=_steps(case) if acts and count != facts.scale else old.steps,
    )  # fmt: skip
    document = _told(case, document, old, ScaleDecision(now_ms, facts.scale, count, sentence, acted=acts))
    return ScaleStep(count if acts else facts.scale, _same(facts, document), sentence, now_ms + DECIDE_MS)


def _off(facts: ScaleFacts, old: ScaleDoc, now_ms: int) -> ScaleStep:
    """Nothing is decided and nothing remembered: what is wanted meanwhile will not be known when it is on again."""
    document = ScaleDoc(facts.service_id, facts.name, facts.scale, last=old.last, history=old.history)
    sentence = f"{words.head(facts.scale, facts.scale)}: autoscaling is off"
    return ScaleStep(facts.scale, _same(facts, document), sentence, now_ms + OFF_MS)


def _same(facts: ScaleFacts, document: ScaleDoc) -> ScaleDoc:
    return facts.document if facts.document == document else document


def _failing(case: Case, old: ScaleDoc) -> tuple[tuple[str, int], ...]:
    """Since when each metric fails."""
    since = dict(old.failing)
    names = dict.fromkeys(reading.metric.name for reading in case.readings if reading.failing)
    return tuple((name, since.get(name, case.now_ms)) for name in names)


def _fallen(case: Case, failing: tuple[tuple[str, int], ...]) -> frozenset[str]:
    """Those that would have failed `after` times by now, a decision every DECIDE_MS."""
    fallback = case.facts.policy.fallback
    if fallback is None:
        return frozenset()
    return frozenset(name for name, at in failing if case.now_ms - at >= (fallback.after - 1) * DECIDE_MS)


def _quiet_since(case: Case, old: ScaleDoc) -> int:
    """Since when nobody needs the service; 0: somebody does, nobody can say, or it may not sleep."""
    facts = case.facts
    if case.bounds.least or not facts.scale or facts.waiting or not case.readings:
        return 0
    if any(row.unknown or active(row, facts.policy.activation) for row in deciding(case.readings)):
        return 0
    return old.quiet_since_ms or case.now_ms


def _steps(case: Case) -> memory.Rows:
    policy = case.facts.policy
    return memory.stepped(case.steps, case.facts.scale, case.now_ms, policy.scale_out, policy.scale_in)


def _other_troubles(case: Case, last: ScaleDecision) -> bool:
    if case.now_ms - last.at_ms < TROUBLES_MS:
        return False
    return {row.metric.name for row in case.readings if row.unknown} != {row.metric for row in last.readings if row.problem}


def _told(case: Case, document: ScaleDoc, old: ScaleDoc, decision: ScaleDecision) -> ScaleDoc:
    """`last` is written when the count changes, or when other metrics are unknown than it says, then once a minute at most; the
    history holds the changes."""
    changed = decision.wanted != (decision.before if decision.acted else old.wanted)
    if not changed and old.last is not None and not _other_troubles(case, old.last):
        return document
    facts = case.facts
    readings = tuple(reading.row() for reading in case.readings)
    decision = replace(decision, readings=readings, ready=facts.ready, starting=facts.starting)
    history = old.history if not changed or decision == old.last else (*old.history, decision)[-HISTORY_MAX:]
    return replace(document, last=decision, history=history)
