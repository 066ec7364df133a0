"""What the default policy promises beside others, on made loads by the second; a smaller set than `bench.autoscale`'s."""

from __future__ import annotations

from sim.replay import made
from sim.replay.compare import SHARE, Case, compare, promised
from sim.replay.loads import Load
from sim.replay.policies import default

HOURS = 4
SEEDS = (11, 12)


def test_a_quarter_unserved_at_six_per_cent_more_cost_and_a_third_of_the_reversals() -> None:
    target = made.MEAN / 20
    case = Case(default(target), target, target / SHARE, against=("hpa", "kpa"))
    loads = [Load(kind, made.load(kind, seed, HOURS * 3600)) for kind in made.USUAL for seed in SEEDS]
    found = promised([compare(load, case) for load in loads])
    assert found["unserved, by the HPA's"] <= 0.25
    assert found["cost, by the HPA's"] <= 1.06
    assert found["reversals, by the KPA's"] <= 1 / 3
