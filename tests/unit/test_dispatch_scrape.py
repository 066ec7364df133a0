"""What a policy wants asked of replicas is told to their nodes, also when only the policy has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from agent.core import wire
from agent.plan.desired import merge
from agent.plan.records import Desired
from controller.dispatch.desired import Composer, PeerBook, SpecBook, Wanted, WayBook
from model.autoscale import Autoscale, MetricsPort, ScalingMetric
from model.documents import Assigned, AssignedService, ServiceDoc
from model.spec import ContainerSpec, ServiceSpec

NOTHING = cast(Any, None)
PLAIN = ServiceSpec("shop_web", ContainerSpec("web"))
METRICS = (ScalingMetric("scrape", 5, "jobs"), ScalingMetric("cpu", 0.6), ScalingMetric("scrape", 9, "lag"))
SCRAPED = replace(PLAIN, autoscale=Autoscale(metrics=METRICS), metrics=MetricsPort(9100, "/m"))


def test_a_policy_that_changes_without_a_version_reaches_the_node() -> None:
    books, specs = WayBook(), SpecBook()
    document = ServiceDoc("s1", PLAIN, 1)
    specs.add(document)
    composer, known = Composer(specs, PeerBook()), set[tuple[str, int]]()
    entry = AssignedService.of("s1", "shop_web", [Assigned(1, 1, 5)])
    held, sent = Desired(), None
    told = []
    for spec in (PLAIN, SCRAPED, replace(SCRAPED, autoscale=Autoscale(metrics=METRICS[1:])), replace(SCRAPED, metrics=None)):
        want = Wanted(1, (entry,), (books.of(entry, replace(document, spec=spec)),))
        message = composer.message("n1", sent, want, known, NOTHING)
        assert message is not None
        held, sent = merge(held, wire.desired_message(message)), want
        told.append((held.services[0].scraped, held.services[0].metrics))
    assert told == [
        ((), None), (("jobs", "lag"), MetricsPort(9100, "/m")), (("lag",), MetricsPort(9100, "/m")), ((), None),
    ]  # fmt: skip
    assert len(held.specs) == 1, "no spec was sent again"
