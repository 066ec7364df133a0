"""The checker of the autoscaler: a history made by hand for each rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from model import codec
from model.autoscale import Autoscale, ScaleIn, ScalingMetric
from model.documents import ScaleDoc, ScaleOrderDoc, key
from model.store_port import Put
from sim.chance import Chance
from sim.checks.facts import LAG_S
from sim.checks.scaling import Flow, high, unserved
from sim.clock import EPOCH_S
from sim.faults import SENSORS, plan_faults
from sim.load import Flow as Counted
from sim.run import simulate
from sim.scenario import Scenario
from tests.sim.history import History

POLICY = Autoscale(1, 6, (ScalingMetric("connections", 10.0),), scale_in=ScaleIn(window_s=20.0))


class Demand:
    """`per_s` through n1 for two minutes, and who is silent since when."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.per_s = self.peak_per_s = 0.0
        self.silent: dict[str, float] = {}
        self.failed: dict[str, float] = {}

    def flows(self, service: str) -> Sequence[Flow]:
        now = self.history.at_s
        return [Counted(now - ago - 1, now - ago, "n1", self.per_s) for ago in range(120) if self.per_s]

    def peak(self, service: str, since_s: float, until_s: float) -> float:
        return self.peak_per_s

    def sensors_failed_s(self, node: str) -> float:
        return self.failed.get(node, -1.0)

    def missing_since_s(self, node: str) -> float | None:
        return self.silent.get(node)


@pytest.fixture
def seen() -> History:
    found = History()
    found.service("web", 3, autoscale=POLICY)
    return found


@pytest.fixture
def demand(seen: History) -> Demand:
    made = Demand(seen)
    seen.checks.load_is(made)
    return made


def decide(seen: History, scale: int) -> list[str]:
    """The autoscaler writes a count; the rules that are broken by now."""
    after = replace(seen.checks.facts.docs["services"]["web"], scale=scale)
    documents = (("scales", ScaleDoc("id-web", "web", scale)), ("services", after))
    seen.write(*(Put(key(kind, "web"), codec.encode(document)) for kind, document in documents))
    return seen.rules


def order(seen: History, **said: object) -> None:
    seen.put("scaleorders", "web", replace(ScaleOrderDoc("id-web", "web"), **said))  # type: ignore[arg-type]


def test_within_bounds(seen: History) -> None:
    assert decide(seen, 6) == decide(seen, 1) == []
    assert decide(seen, 7) == ["scaled against its policy"]


def test_never_below_the_least(seen: History) -> None:
    assert decide(seen, 0) == ["scaled against its policy"]


@pytest.mark.parametrize(("paused", "scale", "bad"), [("in", 2, 1), ("in", 4, 0), ("out", 4, 1), ("both", 2, 1)])
def test_a_pause_holds(seen: History, paused: str, scale: int, bad: int) -> None:
    order(seen, paused=paused)
    seen.later(LAG_S + 1)
    assert decide(seen, scale) == bad * ["scaled against its policy"]


def test_a_floor_holds_until_its_time(seen: History) -> None:
    order(seen, floor=3, floor_until_ms=round((EPOCH_S + seen.at_s + 60) * 1000))
    seen.later(LAG_S + 1)
    assert decide(seen, 2) == ["scaled against its policy"]


def test_a_floor_whose_time_is_over_is_none(seen: History) -> None:
    order(seen, floor=3, floor_until_ms=round((EPOCH_S + seen.at_s + 60) * 1000))
    seen.later(60)
    assert decide(seen, 2) == []


def test_no_scale_in_under_load(seen: History, demand: Demand) -> None:
    demand.per_s = 25.0
    assert decide(seen, 3) == []
    assert decide(seen, 2) == ["scaled in under load"]


def test_load_that_the_leader_may_not_know_is_held_against_nobody(seen: History, demand: Demand) -> None:
    demand.per_s, demand.failed = 25.0, {"n1": seen.at_s - 10}
    assert decide(seen, 2) == []


def test_no_scale_in_while_a_node_with_callers_is_silent(seen: History, demand: Demand) -> None:
    demand.per_s, demand.failed, demand.silent = 1.0, {"n1": seen.at_s}, {"n1": seen.at_s - 40}
    assert decide(seen, 2) == ["scaled in on missing metrics"]


def test_no_scale_out_beyond_the_load(seen: History, demand: Demand) -> None:
    demand.peak_per_s = 38.0
    assert decide(seen, 5) == []
    assert decide(seen, 6) == ["scaled out beyond the load"]


def test_no_sleep_while_somebody_calls(seen: History, demand: Demand) -> None:
    seen.change("web", spec=replace(seen.checks.facts.docs["services"]["web"].spec, autoscale=replace(POLICY, min=0)))
    demand.per_s = 1.0
    assert decide(seen, 0) == ["put to sleep under load"]


def test_apply_leaves_the_count(seen: History) -> None:
    spec = seen.checks.facts.docs["services"]["web"].spec
    seen.change("web", spec=replace(spec, autoscale=replace(POLICY, max=2)), scale=2)
    assert seen.rules == []
    seen.change("web", spec=replace(spec, replicas=5), scale=5)
    assert seen.rules == ["count reset"]


def test_what_is_missing_at_the_end(seen: History) -> None:
    facts = seen.checks.facts
    assert [row.rule for row in high(facts, seen.at_s)] == ["scale not back"]
    order(seen, paused="in")
    assert not [*high(facts, seen.at_s)]
    seen.change("web", scale=0)
    waiting = {("web", "n1"): seen.at_s - 40}
    assert [row.rule for row in unserved(waiting, seen.at_s - 35, facts, seen.at_s)] == ["caller not served"]
    assert not [*unserved(waiting, seen.at_s - 20, facts, seen.at_s)]


@pytest.mark.parametrize("seed", range(6, 12))
def test_sensors_that_fail_break_nothing(seed: int) -> None:
    scenario = Scenario(seed, 4, 6.0, scales=True)
    rng = Chance(seed).stream("sensors")
    until_s, begin_s = scenario.faults_until_s, scenario.begin_s
    faults = plan_faults(rng, scenario.node_names(), scenario.controller_names(), until_s, 12, SENSORS, begin_s)
    result = simulate(replace(scenario, fault_list=faults))
    assert not result.violations, "\n".join([*map(str, result.violations), *result.story])
