"""Every order of a small model's steps: breadth first, each state once.

Rules: generic and pure. A state says what can happen next and makes the state after it; two states with the same `key` are the
same. The way to a violation is told as the names of the steps, as few as there can be; the search is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

S = TypeVar("S", bound="State")


class State(Protocol):
    def steps(self) -> Sequence[str]:
        """Names of everything that can happen now; none: it is at rest."""

    def after(self: S, step: str) -> S:
        """A new state; this one stays as it is."""

    def key(self) -> object:
        """Hashable; equal for states that behave the same."""

    def wrong(self) -> str:
        """What must never be, in one line; empty when all is well."""

    def unfinished(self) -> str:
        """Of a state at rest: what is missing or left over; empty when it is as it should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """`states` different ones, `steps` between them, `rests` of them at rest; the farthest is `depth` steps away. `path` leads
    to the violation, if any."""

    states: int
    steps: int
    rests: int
    depth: int
    violation: str = ""
    path: tuple[str, ...] = ()


Path = tuple[str, "Path"] | tuple[()]
"""The last step, and how it came to that."""


def explore(start: State, states_max: int = 1_000_000) -> Found:
    """Stops at the first violation. Raises RuntimeError when there are more than `states_max` states."""
    seen = {start.key()}
    level: list[tuple[State, Path]] = [(start, ())]
    steps = rests = depth = 0
    while True:
        following: list[tuple[State, Path]] = []
        for state, path in level:
            names = state.steps()
            problem = state.wrong() or ("" if names else state.unfinished())
            if problem:
                return Found(len(seen), steps, rests, depth, problem, _told(path))
            steps += len(names)
            rests += not names
            for name in names:
                after = state.after(name)
                key = after.key()
                if key not in seen:
                    seen.add(key)
                    following.append((after, (name, path)))
            if len(seen) > states_max:
                raise RuntimeError(f"more than {states_max} states: the model is not small")
        if not following:
            return Found(len(seen), steps, rests, depth)
        level, depth = following, depth + 1


def _told(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    while path:
        name, path = path
        names.append(name)
    return tuple(reversed(names))
