"""How often nodes measure: so that all of them together send about as much, however many they are."""

from __future__ import annotations

from typing import Final

_NODES_PER_S: Final = 200
_STEPS_S: Final = (1, 2, 5, 10, 20, 30, 60)


def sample_s(nodes: int) -> int:
    """Whole seconds between two samples of a node: 1 for up to 200 nodes, 60 for 12,000 and more."""
    return next((step for step in _STEPS_S if nodes <= step * _NODES_PER_S), _STEPS_S[-1])
