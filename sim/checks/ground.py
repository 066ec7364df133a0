"""What all checkers stand on, and the shape of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sim.checks.facts import Facts, Running, Step
from sim.checks.verdicts import Verdicts


def _always(node: str) -> float:
    return 0.0


@dataclass(slots=True)
class Ground:
    """`calm_since_s(node)`: since when nothing has been wrong with the node, its way to the leader or the leader; infinity
    while something is. Checkers that compare what an agent does with what the documents say ask it."""

    facts: Facts = field(default_factory=Facts)
    verdicts: Verdicts = field(default_factory=Verdicts)
    calm_since_s: Callable[[str], float] = _always
    believes: dict[str, Callable[[str, str], Sequence[str]]] = field(default_factory=dict)
    """Node -> (network, address) -> ids of the services whose connections it sends there."""

    full_disk_s: dict[str, float] = field(default_factory=dict)
    """Node -> when its disk was last full: what an agent could not write down it may not know after it was killed."""

    def belongs(self, node: str, at_s: float) -> bool:
        """It is in the cluster, and has been for longer than anybody may not know of it."""
        return None not in self.facts.recently("nodes", node, at_s)

    def calm(self, node: str, at_s: float, for_s: float) -> bool:
        return at_s - self.calm_since_s(node) >= for_s


class Checker:
    """One rule of safety. Told after the facts have taken it in."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.facts = ground.facts

    def bad(self, at_s: float, rule: str, about: str, text: str) -> None:
        self.ground.verdicts.add(at_s, rule, about, text)

    def wrote(self, step: Step) -> None:
        """A transaction has happened."""

    def started(self, now: Running) -> None:
        """A container runs."""

    def rewired(self, was: Running, now: Running, at_s: float) -> None:
        """A container that runs has got other addresses."""

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        """It runs no more. `why`: `stopped` (its agent ended it), `crashed`, `power`."""

    def volume_removed(self, name: str, copies: Sequence[str], at_s: float) -> None:
        """Whoever asked for it was told that it is gone; `copies`: nodes that have it now."""
