"""Generic resources: named counts that a node is said to have (`gpu` 2) and that replicas reserve.

Rules: few nodes have some, so they are looked at one by one, like ports, and are no part of a node's class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from model.spec import Counts

if TYPE_CHECKING:
    from scheduler.types import NodeFacts


class Stock:
    """What the nodes have left. `given`: by node name and kind how many are given away."""

    def __init__(self, given: Mapping[str, Mapping[str, int]]) -> None:
        self._given = {name: dict(kinds) for name, kinds in given.items()}

    def room(self, node: NodeFacts, wanted: Counts) -> int:
        """How many replicas that reserve so much the node can still take; `wanted` is not empty."""
        given = self._given.get(node.name, {})
        has = dict(node.generic)
        return max(min((has.get(kind, 0) - given.get(kind, 0)) // count for kind, count in wanted), 0)

    def lacking(self, node: NodeFacts, wanted: Counts) -> str:
        """The first kind of which there is not enough for one; empty when there is."""
        return next((kind for kind, count in wanted if not self.room(node, ((kind, count),))), "")

    def take(self, name: str, wanted: Counts, times: int) -> None:
        """So many replicas more on the node, or less."""
        given = self._given.setdefault(name, {})
        for kind, count in wanted:
            given[kind] = given.get(kind, 0) + count * times
