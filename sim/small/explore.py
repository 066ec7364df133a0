"""Every order of a small model's steps: depth first, each state once.

Rules: generic and pure. A state says what can happen next and makes the state after it; two states with the same `key` are the
same. The way to a violation is told as the names of the steps; the search is deterministic.
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
    """`states` different ones, `steps` between them, `rests` of them at rest. `path` leads to the violation, if any."""

    states: int
    steps: int
    rests: int
    violation: str = ""
    path: tuple[str, ...] = ()


def explore(start: State, states_max: int = 1_000_000) -> Found:
    """Stops at the first violation. Raises RuntimeError when there are more than `states_max` states."""
    seen = {start.key()}
    stack: list[tuple[State, tuple[object, ...]]] = [(start, ())]
    steps = rests = 0
    while stack:
        state, path = stack.pop()
        names = state.steps()
        problem = state.wrong() or ("" if names else state.unfinished())
        if problem:
            return Found(len(seen), steps, rests, problem, _told(path))
        rests += not names
        for name in reversed(names):
            steps += 1
            following = state.after(name)
            key = following.key()
            if key in seen:
                continue
            if len(seen) >= states_max:
                raise RuntimeError(f"more than {states_max} states: the model is not small")
            seen.add(key)
            stack.append((following, (name, path)))
    return Found(len(seen), steps, rests)


def _told(path: tuple[object, ...]) -> tuple[str, ...]:
    names: list[str] = []
    while path:
        name, path = path  # type: ignore[assignment]
        names.append(str(name))
    return tuple(reversed(names))
