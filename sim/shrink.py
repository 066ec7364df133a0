"""The smallest list of faults that still fails.

Rules: delta debugging (ddmin): halves, then quarters, then ever smaller parts are left out as long as the rest still fails.
Every try is a whole run of the same seed with fewer faults, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
TRIES: Final = 80


def smallest(items: Sequence[T], fails: Callable[[tuple[T, ...]], bool], tries: int = TRIES) -> tuple[T, ...]:
    """A part of `items` of which nothing can be left out, or as far as `tries` calls of `fails` got. `items` itself fails."""
    left, parts = tuple(items), 2
    if tries > 0 and left:
        tries -= 1
        if fails(()):
            return ()
    while len(left) > 1 and tries > 0:
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            tries -= 1
            if fails(rest):
                left, parts = rest, max(2, parts - 1)
                break
            if tries <= 0:
                return left
        else:
            if size == 1:
                return left
            parts = min(len(left), parts * 2)
    return left
