"""Handlers about autoscaling: what each policy says now, what it did and why, pausing and going on.

Rules: what is measured now only the leader knows (`Route.leader`). Nothing is decided here: the rule that decides is asked what
it would say, and nothing of it is written.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from controller.api.context import Api, Call
from controller.api.rows import time_text
from controller.api.scale_orders import Paused, order
from controller.api.schemas import PauseBody
from controller.api.services import service_of
from controller.decide import scaled
from controller.decide.autoscaling import facts_of
from controller.decide.scaling import words
from controller.decide.scaling.bounds import bounds
from controller.decide.scaling.readings import OF_REPLICAS, Reading, read
from controller.decide.scaling.rule import decide
from controller.decide.scaling.types import ScaleFacts
from controller.decide.wording import counted
from model import codec
from model.documents import ScaleDecision, ServiceDoc
from model.errors import BadInput

Row = dict[str, Any]


async def list_autoscaled(api: Api, call: Call) -> list[Row]:
    found = (doc for _, doc in sorted(api.snapshot().of("services").items()))
    return [_row(api, _facts(api, doc)) for doc in found if doc.spec.autoscale is not None]


async def get_autoscaled(api: Api, call: Call) -> Row:
    doc = _scaling(service_of(api, call.path["name"]))
    facts, now_ms = _facts(api, doc), api.now_ms()
    known = facts.document
    lines = scaled.policy_lines(facts.policy, known, facts.order, now_ms)
    lines += [_metric_line(reading, facts) for reading in read(facts, now_ms)]
    if facts.starting or facts.ready < facts.scale:
        lines.append(f"{facts.ready:,} serve, {facts.starting:,} are on their way")
    said = "it is stopped: nothing is decided" if doc.stopped else decide(facts, now_ms).sentence
    return {
        **_row(api, facts),
        "policy": codec.to_plain(facts.policy),
        "sentence": f"{facts.name}: {said}",
        "lines": lines,
        "history": [_decision(row) for row in (known.history if known is not None else ())],
    }


def _scaling(doc: ServiceDoc) -> ServiceDoc:
    if doc.spec.autoscale is None:
        raise BadInput(f"service {doc.spec.name} does not scale itself: give it x-autoscale in its file")
    return doc


def _facts(api: Api, doc: ServiceDoc) -> ScaleFacts:
    measured = {doc.spec.name: api.measuring.of(doc)}
    return facts_of(replace(api.view(), measured=measured), doc, api.serving)


def _row(api: Api, facts: ScaleFacts) -> Row:
    now_ms, policy, said = api.now_ms(), facts.policy, facts.order
    limits, known = bounds(policy, said, now_ms), facts.document
    return {
        "service": facts.name,
        "mode": policy.mode,
        "min": limits.least,
        "max": limits.most,
        "now": facts.scale,
        "wanted": known.wanted if known is not None and policy.mode != "off" else facts.scale,
        "ready": facts.ready,
        "starting": facts.starting,
        "metrics": [_metric(reading, facts) for reading in read(facts, now_ms)],
        "paused": said.paused if said is not None else "",
        "floor": limits.floor,
        "floor_until": time_text(said.floor_until_ms) if said is not None and limits.floor else "",
        "last": _decision(known.last) if known is not None and known.last is not None and policy.mode != "off" else None,
    }


def _metric(reading: Reading, facts: ScaleFacts) -> Row:
    """`value` is what one replica bears of it, on average; `text` both in words."""
    metric, value = reading.metric, reading.value
    each = None if value is None else value / max(1, facts.scale)
    shown = "?" if each is None else words.amount(metric.kind, each)
    aside = " (not known now)" if reading.unknown and each is not None else ""
    return {
        "name": metric.name,
        "value": None if each is None else round(each, 4),
        "target": metric.target,
        "total": None if value is None else round(value, 4),
        "wanted": reading.wanted,
        "problem": reading.unknown,
        "text": f"{words.title(reading)} {shown} of {words.amount(metric.kind, metric.target)}{aside}",
    }


def _metric_line(reading: Reading, facts: ScaleFacts) -> str:
    why = f"{words.title(reading)}: {reading.unknown}" if reading.unknown else ""
    if reading.value is None:
        return why or f"{words.title(reading)}: nothing is known of it yet"
    aside, series = reading.unknown, facts.series.get(reading.metric.name)
    if not aside and reading.metric.kind in OF_REPLICAS and reading.spoke < facts.ready:
        aside = f"told by {reading.spoke:,} of {counted(facts.ready)}{f': {series.note}' if series and series.note else ''}"
    return f"{words.wish(reading)}{f' ({aside})' if aside else ''}"


def _decision(decision: ScaleDecision) -> Row:
    return {
        "at": time_text(decision.at_ms),
        "at_ms": decision.at_ms,
        "before": decision.before,
        "wanted": decision.wanted,
        "acted": decision.acted,
        "ready": decision.ready,
        "starting": decision.starting,
        "sentence": decision.sentence,
        "metrics": [asdict(row) for row in decision.readings],
    }


# ---- what people say


async def pause(api: Api, call: Call) -> Row:
    body: PauseBody = call.body
    doc = _scaling(service_of(api, call.path["name"]))
    return await order(api, doc, lambda said: replace(said, paused=_both(said.paused, body.direction)))


async def resume(api: Api, call: Call) -> Row:
    doc = _scaling(service_of(api, call.path["name"]))
    return await order(api, doc, lambda said: replace(said, paused=""))


def _both(known: Paused, more: Paused) -> Paused:
    return more if known in ("", more) else "both"
