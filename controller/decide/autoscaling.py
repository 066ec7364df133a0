"""One pass of the autoscaler: for each service that is due its facts, the rule's step, and what is written of it.

Rules: nothing is written when nothing changed. A service that is stopped, removed, or has no policy is not asked again until it
changes; every other one after `scale_every_ms`, or sooner when the rule says so. What the rule remembers of an earlier service
of the same name is not this one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.decide.attached import crowded
from controller.decide.scaling.rule import decide
from controller.decide.scaling.types import ScaleFacts, ScaleStep
from controller.decide.serving import ServingCounts
from controller.decide.types import Measured, Plan, Settings, View
from controller.decide.wording import listed
from model.documents import Event, ScaleDoc, ScaleOrderDoc, ServiceDoc

_NOTHING = Measured()


def scales_itself(doc: ServiceDoc | None) -> bool:
    """Whether the autoscaler has anything to do with it."""
    return doc is not None and doc.spec.autoscale is not None and not doc.stopped


def decide_scaling(view: View, due: Iterable[str], settings: Settings, now_ms: int, counts: ServingCounts) -> Plan:
    """The plan for the services named. `counts`: who serves; a cache, of the caller for its whole life."""
    scales: list[tuple[ScaleDoc, ServiceDoc]] = []
    events: list[Event] = []
    wakes: list[tuple[str, int]] = []
    for name in due:
        doc = view.services.get(name)
        if doc is None or not scales_itself(doc):
            continue
        step = decide(facts_of(view, doc, counts), now_ms)
        wakes.append((name, max(now_ms + 1, min(step.wake_at_ms, now_ms + settings.scale_every_ms))))
        before = known_of(view, doc)
        after = _scaled(doc, step, now_ms)
        if step.document != before or after is not doc:
            scales.append((step.document, after))
        if _is_news(before, step.document):
            events.append(Event(now_ms, "autoscaled", f"service/{name}", f"autoscaling: {step.sentence}"))
    sentence = listed([f"{document.name}: {document.last.sentence}" for document, _ in scales if document.last])
    return Plan(scales=tuple(scales), events=tuple(events), wakes=tuple(wakes), sentence=sentence)


def _is_news(before: ScaleDoc | None, after: ScaleDoc) -> bool:
    """Whether people are told. Not that a new service keeps its count as long as nothing is known of it."""
    if after.last is None or (before is not None and after.last == before.last):
        return False
    return before is not None or after.last.wanted != after.last.before or bool(after.failing)


def facts_of(view: View, doc: ServiceDoc, counts: ServingCounts) -> ScaleFacts:
    """Of a service with a policy; its load as the view has it measured."""
    assert doc.spec.autoscale is not None
    name, serving, measured = doc.spec.name, counts.of(view, doc), view.measured.get(doc.spec.name, _NOTHING)
    return ScaleFacts(
        doc.id, name, doc.spec.autoscale, doc.scale, serving.ready, serving.starting, measured.waiting, measured.series,
        known_of(view, doc), order_of(view, doc),
    )  # fmt: skip


def known_of(view: View, doc: ServiceDoc) -> ScaleDoc | None:
    known = view.scales.get(doc.spec.name)
    return known if known is not None and known.id == doc.id else None


def order_of(view: View, doc: ServiceDoc) -> ScaleOrderDoc | None:
    order = view.scale_orders.get(doc.spec.name)
    return order if order is not None and order.id == doc.id else None


def _scaled(doc: ServiceDoc, step: ScaleStep, now_ms: int) -> ServiceDoc:
    """The very document when its count stays, or when so many cannot have the addresses that are asked for."""
    if step.scale == doc.scale:
        return doc
    after = replace(doc, scale=step.scale, updated_ms=now_ms)
    return doc if crowded(after) else after
