"""One load under the rule and under others: the runs, and the figures of each.

Rules: all of them begin with the count the first second needs, and are held to the same bounds. The oracle knows each second
before it comes and pays for nothing it does not need: a cost of 1.1 is a tenth more than its.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from model.autoscale import Autoscale
from sim.replay.loads import Load
from sim.replay.ours import Ours
from sim.replay.rivals import Hpa, Kpa, Nomad
from sim.replay.service import DAY_S, Run, Scaler, oracle_cost, replay

SHARE: Final = 0.7
"""Of its capacity a replica bears at its target, when nothing else is said."""
RIVALS: Final = ("hpa", "kpa", "nomad")


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared. `target`: units a second that a replica should bear; `capacity`: that it can."""

    policy: Autoscale
    target: float
    capacity: float
    start_s: int = 5
    against: tuple[str, ...] = RIVALS


@dataclass(slots=True)
class Compared:
    """`runs`: the rule's first; `oracle`: replica seconds; `writes`: of the rule's document."""

    load: Load
    case: Case
    runs: list[Run] = field(default_factory=list)
    oracle: int = 0
    writes: int = 0
    told: list[tuple[int, str]] = field(default_factory=list)

    def rows(self) -> list[dict[str, float | str]]:
        """A row per scaler, for tables and programs."""
        return [self._row(run) for run in self.runs]

    def _row(self, run: Run) -> dict[str, float | str]:
        return {
            "policy": run.name, "unserved_percent": round(run.unserved_percent, 4), "cost": round(run.cost / self.oracle, 4),
            "actions_per_day": round(run.actions_per_day, 1), "reversals_per_day": round(run.reversals_per_day, 1),
            "most": max(count for _, count in run.counts),
        }  # fmt: skip

    @property
    def writes_per_day(self) -> float:
        return self.writes * DAY_S / len(self.load.demand)


def compare(load: Load, case: Case) -> Compared:
    found = Compared(load, case)
    least, most = max(1, case.policy.min), max(1, case.policy.max)
    ours = Ours(case.policy, case.capacity, load.start_ms)
    first = min(max(least, -int(-load.demand[0] // case.target)), most)
    scalers: list[Scaler] = [ours, *(rivals(case, least, most)[name] for name in case.against)]
    found.runs = [replay(scaler, load.demand, case.capacity, case.start_s, first) for scaler in scalers]
    found.oracle = max(1, oracle_cost(load.demand, case.target, least))
    found.writes, found.told = ours.writes, ours.told
    return found


def rivals(case: Case, least: int, most: int) -> Mapping[str, Scaler]:
    share = case.target / case.capacity
    return {
        "hpa": Hpa(share, case.capacity, least, most), "kpa": Kpa(case.target, least, most),
        "nomad": Nomad(share, case.capacity, least, most),
    }  # fmt: skip


def totals(compared: Sequence[Compared]) -> dict[str, dict[str, float]]:
    """By scaler, over several loads: all that stayed unserved in per cent of all demand, cost against all oracles', a day's
    actions and reversals on average."""
    found = {}
    for index, first in enumerate(compared[0].runs):
        runs = [one.runs[index] for one in compared]
        found[first.name] = {
            "unserved_percent": 100 * sum(run.unserved for run in runs) / sum(run.demanded for run in runs),
            "cost": sum(run.cost for run in runs) / sum(one.oracle for one in compared),
            "actions_per_day": sum(run.actions_per_day for run in runs) / len(runs),
            "reversals_per_day": sum(run.reversals_per_day for run in runs) / len(runs),
        }
    return found


def promised(compared: Sequence[Compared]) -> dict[str, float]:
    """Ours by theirs, over several loads: demand unserved and cost by the HPA's, reversals by the KPA's."""
    rows = totals(compared)
    ours, hpa, kpa = rows["shoal"], rows["hpa"], rows["kpa"]
    return {
        "unserved, by the HPA's": ours["unserved_percent"] / hpa["unserved_percent"],
        "cost, by the HPA's": ours["cost"] / hpa["cost"],
        "reversals, by the KPA's": ours["reversals_per_day"] / kpa["reversals_per_day"],
    }
