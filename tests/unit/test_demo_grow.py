"""The demo's second half against a pretended cluster: it says so when something it promises does not happen."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy.demo_grow import MAX, MIN, ON_A_NODE, SERVICE, Second, Watch, problem_of, read, table
from deploy.demo_plot import plot


@dataclass
class World:
    """A cluster, its load and its time: one replica more or fewer a second, machines as they are needed."""

    most: int = MAX
    machines: bool = True
    shrinks: bool = True
    each: float = 10.0
    """Requests per second of one replica."""
    now_s: float = 0.0
    replicas: int = MIN
    served: int = 0
    failed: int = 0
    offered: float = 0.0
    silent: int = 0
    said: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.offered = 60.0

    def end(self) -> None:
        self.offered = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        self.now_s += seconds
        self.served += round(seconds * min(self.offered, self.replicas * self.each))
        if self.offered:
            self.replicas = min(self.most, self.replicas + 1)
        elif self.shrinks:
            self.replicas = max(MIN, self.replicas - 1)

    @property
    def nodes(self) -> int:
        return max(2, -(-self.replicas // ON_A_NODE)) if self.machines else 2

    def top(self) -> dict[str, Any] | None:
        if self.silent:
            self.silent -= 1
            return None
        service = {"name": SERVICE, "wanted": MAX if self.offered else self.replicas, "running": self.replicas}
        return {"services": [service], "nodes": [{"state": "ready"}] * self.nodes + [{"state": "down"}]}

    def play(self) -> str:
        self.watch = Watch(self.top, self, self.said.append, self)
        return problem_of(self.watch, self, 2)


def test_a_cluster_that_follows_has_no_problem() -> None:
    world = World(silent=2)
    assert world.play() == ""
    assert world.said[0].endswith("2 of 2 replicas on 2 nodes serve 0 requests/s")
    assert any("8 of 8 replicas on 4 nodes serve 60 requests/s" in line for line in world.said)
    assert (world.offered, world.watch.rows[-1].running, world.watch.rows[-1].nodes) == (0.0, MIN, 2)


@pytest.mark.parametrize(
    ("world", "problem"),
    [
        (World(most=5), "5 of 8 replicas run"),
        (World(machines=False), "8 of 8 replicas run, on 2 nodes, at first 2"),
        (World(each=100.0), "8 replicas serve"),
        (World(shrinks=False), "there are still 8 replicas on 4 nodes"),
        (World(replicas=0, most=0), "2 replicas of grow_web do not run"),
    ],
    ids=["too few", "no machines", "no more served", "stays large", "never there"],
)
def test_what_is_promised_and_does_not_happen_is_said(world: World, problem: str) -> None:
    world.shrinks = world.shrinks and world.most > 0
    assert problem in world.play()
    assert world.offered == 0.0, "the load has ended all the same"


ROWS = [Second(float(at), 36.0, 20.5, 0, 3, 2, 2) for at in range(12)]


def test_what_was_written_is_read() -> None:
    assert read(table(ROWS)) == ROWS


def test_the_picture_is_whole_and_has_a_line_for_each_thing() -> None:
    root = ET.fromstring(plot(ROWS))
    kinds = [element.get("class") for element in root.iter() if element.get("class")]
    assert (kinds.count("l"), kinds.count("a"), kinds.count("w")) == (3, 1, 1)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "replicas: wanted (dashed), running (line)" in words
