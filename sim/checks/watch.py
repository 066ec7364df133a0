"""All checkers of safety behind one door: told of every transaction and every container, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.store_port import Op
from sim.checks.addresses import Addresses
from sim.checks.capacity import Capacity
from sim.checks.containers import Containers
from sim.checks.draining import Draining
from sim.checks.endpoints import Endpoints
from sim.checks.facts import Box, Facts, Step
from sim.checks.ground import Checker, Ground
from sim.checks.jobs import Jobs
from sim.checks.leaders import Leaders
from sim.checks.placing import Placing
from sim.checks.removing import Removing
from sim.checks.scaling import Demand, Scaling
from sim.checks.silence import Silence
from sim.checks.updating import Updating
from sim.checks.verdicts import Violation
from sim.checks.volumes import Volumes

CHECKERS: tuple[type[Checker], ...] = (
    Leaders, Silence, Capacity, Placing, Volumes, Removing, Updating, Containers, Jobs, Addresses, Endpoints, Draining,
    Scaling,
)  # fmt: skip


class Checks:
    """`now_s` gives the virtual time, `calm_since_s` is that of `Ground`."""

    def __init__(self, now_s: Callable[[], float], calm_since_s: Callable[[str], float] | None = None) -> None:
        self.ground = Ground() if calm_since_s is None else Ground(calm_since_s=calm_since_s)
        self._now_s = now_s
        self._checkers = [make(self.ground) for make in CHECKERS]

    @property
    def facts(self) -> Facts:
        return self.ground.facts

    @property
    def violations(self) -> tuple[Violation, ...]:
        return tuple(self.ground.verdicts.found)

    def bad(self, rule: str, about: str, text: str) -> None:
        """What the world itself saw go wrong."""
        self.ground.verdicts.add(self._now_s(), rule, about, text)

    def volume_removed(self, name: str, copies: Sequence[str]) -> None:
        """It was accepted that it goes; the nodes that have one now, of the cluster's."""
        for checker in self._checkers:
            checker.volume_removed(name, copies, self._now_s())

    def load_is(self, demand: Demand) -> None:
        """Who knows what callers do."""
        for checker in self._checkers:
            if isinstance(checker, Scaling):
                checker.demand = demand

    def node_joined(self, node: str, cpus: float, memory_bytes: int) -> None:
        """How much the machine has."""
        self.facts.capacity[node] = (cpus, memory_bytes)

    def wrote(self, place: str, ops: Sequence[Op], revision: int) -> Step:
        """A transaction that was applied, by the controller `place`."""
        step = self.facts.take(place, ops, revision, self._now_s())
        for checker in self._checkers:
            checker.wrote(step)
        return step

    def container_started(self, node: str, box: Box) -> None:
        now = self.facts.start(node, box, self._now_s())
        for checker in self._checkers:
            checker.started(now)

    def container_rewired(self, node: str, box: Box) -> None:
        """It has other addresses now."""
        was, now = self.facts.change(node, box)
        for checker in self._checkers:
            checker.rewired(was, now, self._now_s())

    def container_ended(self, node: str, box: Box, code: int | None, why: str) -> None:
        at_s = self._now_s()
        was = self.facts.end(node, box, at_s)
        if was is not None:
            for checker in self._checkers:
                checker.ended(was, code, why, at_s)
