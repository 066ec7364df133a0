"""Which changes the autoscaler looks at at once, also when the leader's own API wrote them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from controller.decide.types import Settings
from controller.loops.loop import Shell
from controller.loops.measuring import Measuring
from controller.loops.picture import Change
from controller.loops.scaling import ScalingLoop
from model.autoscale import Autoscale, ScalingMetric
from model.documents import ScaleOrderDoc, ServiceDoc
from model.spec import ContainerSpec, ServiceSpec

SPEC = ServiceSpec("web", ContainerSpec("web:1"), autoscale=Autoscale(1, 5, (ScalingMetric("connections", 10.0),)))
WEB = ServiceDoc("id-web", SPEC, 1)


def looked_at(old: Any, new: Any, kind: str = "services", *, own: bool = True) -> bool:
    loop = ScalingLoop(cast(Shell, None), Settings(), cast(Measuring, None))
    loop.take([Change(kind, "web", old, new, 1, own)])
    return bool(len(loop.queue))


@pytest.mark.parametrize("own", [True, False])
def test_what_people_write_is_looked_at_at_once_through_whichever_controller(own: bool) -> None:
    assert looked_at(None, WEB, own=own), "a new service"
    assert looked_at(WEB, replace(WEB, spec=replace(SPEC, autoscale=Autoscale(2, 5))), own=own), "another policy"
    assert looked_at(replace(WEB, stopped=True), WEB, own=own), "started"
    assert looked_at(None, ScaleOrderDoc("id-web", "web", "in"), "scaleorders", own=own), "an order"


def test_its_own_count_does_not_wake_it() -> None:
    assert not looked_at(WEB, replace(WEB, scale=3, updated_ms=7))
    assert looked_at(WEB, replace(WEB, scale=3), own=False)


def test_services_without_a_policy_are_none_of_its_business() -> None:
    assert not looked_at(None, replace(WEB, spec=replace(SPEC, autoscale=None)), own=False)
