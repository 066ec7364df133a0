"""Which nodes a controller asks: one that is down gives an answer at once and no waiting."""

from __future__ import annotations

from typing import Any

import pytest

from controller.agents import Agents
from model.documents import NodeDoc, NodeHealthDoc
from model.errors import NotFound, Unavailable


class Picture:
    """Two nodes, one of them down."""

    def snapshot(self) -> Picture:
        return self

    def of(self, kind: str) -> dict[str, Any]:
        nodes = {"n1": NodeDoc("n1", "1"), "n2": NodeDoc("n2", "2")}
        known: dict[str, dict[str, Any]] = {"nodes": nodes, "health": {"n2": NodeHealthDoc("n2", "down")}}
        return known.get(kind, {})


async def test_a_node_that_is_down_is_not_waited_for() -> None:
    agents = Agents.__new__(Agents)
    agents._picture = Picture()  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="node n2 is down, it cannot be asked: see `shoal explain n2`"):
        await agents.stub("n2")
    with pytest.raises(Unavailable, match="n1 has not reported yet"):
        await agents.stub("n1")
    with pytest.raises(NotFound):
        await agents.stub("n3")
