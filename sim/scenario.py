"""What one run is made of: the seed, the sizes and the times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sim.faults import Fault

QUIET_SHARE: Final = 0.35
QUIET_S_MAX: Final = 240.0
BEGIN_S: Final = 20.0
LOAD_ENDS_S: Final = 45.0
LARGE: Final = 300
"""Nodes; of a larger cluster what costs nodes x nodes stays small (README.md), and the node timeout is longer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`minutes`: virtual ones, the quiet time at the end included. `fault_list`: these instead of `faults` from the seed.
    `quiet_s`: within this time after the last fault everything must be as it should (0: a part of the minutes).
    `node_timeout_s`: 0: what people choose for so many nodes. `scales`: services scale themselves with their load; None: in
    every fifth seed of a small cluster. `whole`: the run goes on to its last minute, and all must still be well
    then; else it ends as soon as all is well."""

    seed: int
    nodes: int = 5
    minutes: float = 10.0
    faults: int = 100
    controllers: int = 3
    fault_list: tuple[Fault, ...] | None = None
    quiet_s: float = 0.0
    node_timeout_s: float = 0.0
    scales: bool | None = None
    whole: bool = False

    @property
    def silence_s(self) -> float:
        """The node timeout."""
        return self.node_timeout_s or (10.0 if self.nodes <= LARGE else 60.0)

    @property
    def loaded(self) -> bool:
        return self.scales if self.scales is not None else self.nodes <= LARGE and self.seed % 5 == 0

    @property
    def total_s(self) -> float:
        return self.minutes * 60.0

    @property
    def bound_s(self) -> float:
        """The time for the spec to be reached when the faults have ended."""
        return self.quiet_s or min(QUIET_S_MAX, self.total_s * QUIET_SHARE)

    @property
    def begin_s(self) -> float:
        """When faults may begin: the cluster is up and has its first services."""
        return min(BEGIN_S, self.total_s / 10)

    @property
    def faults_until_s(self) -> float:
        return max(self.begin_s, self.total_s - self.bound_s)

    @property
    def load_until_s(self) -> float:
        """When nobody calls any more: what was asked for is forgotten a minute and a half later."""
        return max(self.begin_s, self.faults_until_s - LOAD_ENDS_S)

    def node_names(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))

    def controller_names(self) -> tuple[str, ...]:
        return tuple(f"c{number}" for number in range(1, self.controllers + 1))
