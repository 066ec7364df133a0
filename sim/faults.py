"""What goes wrong, when, where and for how long: planned from the seed before the run begins.

Rules: pure. A plan is a tuple of records sorted by time, so that a run can be repeated with fewer of them. Two faults that
would undo each other (an agent killed while it is paused) never overlap on one target: the second one is drawn for another
moment. Every fault has ended when the planned time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Where = Literal["node", "controller", "store", "prometheus"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`target`: the name of a node or controller, or `*`. `for_s`: it is lifted after so many seconds (0: a moment).
    `amount`: how much, in the kind's own unit."""

    at_s: float
    kind: str
    target: str
    for_s: float = 0.0
    amount: float = 0.0

    @property
    def ends_s(self) -> float:
        return self.at_s + self.for_s

    def __str__(self) -> str:
        length = f" for {self.for_s:.1f} s" if self.for_s else ""
        amount = f" ({self.amount:g})" if self.amount else ""
        return f"{self.at_s:8.3f} s  {self.kind} {self.target}{amount}{length}"


@dataclass(frozen=True, slots=True)
class Kind:
    """`weight`: how often it is drawn. `short_s`, `long_s`: ranges of its length; one of the two is drawn. `amount`: range.
    `group`: of faults of one group only one at a time is on a target. `what`: for people."""

    name: str
    where: Where
    weight: float
    short_s: tuple[float, float]
    long_s: tuple[float, float]
    group: str
    what: str
    amount: tuple[float, float] = (0.0, 0.0)


_MOMENT: Final = (0.0, 0.0)
_SHORT: Final = (0.2, 4.0)
_LONG: Final = (8.0, 45.0)

KINDS: Final = (
    Kind("agent-kill", "node", 10, (0.1, 2.0), _LONG, "process", "SIGKILL of the agent; its containers run on"),
    Kind("agent-pause", "node", 6, _SHORT, _LONG, "process", "SIGSTOP of the agent"),
    Kind("power", "node", 6, (2.0, 8.0), (15.0, 60.0), "process", "the machine goes off and comes back without containers"),
    Kind("cut", "node", 8, _SHORT, _LONG, "way", "nothing goes between the node and the controllers"),
    Kind("cut-up", "node", 5, _SHORT, _LONG, "way", "the node is not heard, and hears"),
    Kind("cut-down", "node", 5, _SHORT, _LONG, "way", "the node is heard, and hears nothing"),
    Kind("slow", "node", 5, _SHORT, _LONG, "slow", "every message of the node takes so many seconds", (0.05, 3.0)),
    Kind("lossy", "node", 5, _SHORT, _LONG, "lossy", "so many of the node's packets are lost", (0.05, 0.5)),
    Kind("reset", "node", 6, _MOMENT, _MOMENT, "reset", "every connection of the node breaks"),
    Kind("node-clock", "node", 3, _MOMENT, _MOMENT, "clock", "the node's clock jumps by so many seconds", (-90.0, 90.0)),
    Kind("disk-full", "node", 4, _SHORT, _LONG, "disk", "nothing can be written on the node"),
    Kind("images-missing", "node", 4, _SHORT, _LONG, "images", "the registry has no image for the node"),
    Kind("create-fails", "node", 4, _SHORT, _LONG, "create", "the node's runtime creates no container"),
    Kind("slow-machine", "node", 3, _SHORT, _LONG, "machine", "whatever the node does takes so many seconds", (0.5, 6.0)),
    Kind("crash", "node", 8, _MOMENT, _MOMENT, "crash", "so many containers of the node end with code 1", (1.0, 3.0)),
    Kind("hang", "node", 4, _SHORT, _LONG, "hang", "the node's containers do not hear SIGTERM"),
    Kind("controller-kill", "controller", 5, (0.1, 2.0), _LONG, "process", "SIGKILL of the controller"),
    Kind("controller-pause", "controller", 5, (0.5, 6.0), _LONG, "process", "SIGSTOP of the controller"),
    Kind("controller-cut", "controller", 4, _SHORT, _LONG, "way", "no node reaches the controller"),
    Kind("controller-clock", "controller", 3, _MOMENT, _MOMENT, "clock", "its clock jumps by so many seconds", (-60.0, 60.0)),
    Kind("store-slow", "controller", 4, _SHORT, (5.0, 20.0), "slow", "its store calls take so many seconds", (0.05, 2.5)),
    Kind("store-unknown", "controller", 4, _SHORT, (5.0, 20.0), "unknown", "so many writes lose their answer", (0.1, 0.6)),
    Kind("store-conflict", "controller", 3, _SHORT, (5.0, 20.0), "conflict", "so many writes fail a guard", (0.1, 0.6)),
    Kind("store-away", "controller", 4, _SHORT, (5.0, 20.0), "away", "it cannot reach the store"),
    Kind("store-read-only", "controller", 3, _SHORT, (5.0, 20.0), "away", "it can read the store but not write"),
    Kind("watch-loses", "controller", 3, _SHORT, (5.0, 20.0), "watch", "so many of its watch's batches are lost", (0.1, 0.7)),
    Kind("watch-late", "controller", 3, _SHORT, (5.0, 20.0), "watch", "its watch is so many seconds late", (0.2, 5.0)),
    Kind("store-down", "store", 2, (0.5, 4.0), (5.0, 15.0), "away", "nobody reaches the store"),
)
SENSORS: Final = (
    Kind("samples-missing", "node", 5, _SHORT, (35.0, 70.0), "sensors", "the node sends no samples"),
    Kind("samples-late", "node", 3, _SHORT, _LONG, "sensors", "the node's samples come so many seconds late", (0.5, 8.0)),
    Kind("samples-wrong", "node", 3, _SHORT, _LONG, "sensors", "the node's samples are nonsense of that kind", (0.0, 3.99)),
    Kind("prometheus-slow", "prometheus", 3, _SHORT, _LONG, "prometheus", "it takes so many seconds to answer", (0.5, 10.0)),
    Kind("prometheus-away", "prometheus", 3, _SHORT, _LONG, "prometheus", "it does not answer"),
)  # fmt: skip
BY_NAME: Final = {kind.name: kind for kind in (*KINDS, *SENSORS)}
OF_LOAD: Final = (*(kind for kind in KINDS if kind.group != "clock"), *SENSORS)
"""Where services scale themselves: what nodes measure, they and the leader must agree on the time of."""
AGES_PICTURES: Final = frozenset(
    {"store-slow", "store-unknown", "store-away", "store-read-only", "store-down", "watch-loses", "watch-late"}
    | {"controller-pause"}
)
"""After these a controller may decide on an old picture until its mirror has compared itself."""
TRIES: Final = 20
LONG_SHARE: Final = 0.4


def plan_faults(
    rng: Random, nodes: Sequence[str], controllers: Sequence[str], duration_s: float, count: int,
    kinds: Sequence[Kind] = KINDS, begin_s: float = 0.0,
) -> tuple[Fault, ...]:
    """`count` faults between `begin_s` and `duration_s`, all of them over by then; fewer only when there is no room left."""
    targets = {"node": list(nodes), "controller": list(controllers), "store": ["*"], "prometheus": ["*"]}
    usable = [kind for kind in kinds if targets[kind.where]]
    weights = [kind.weight for kind in usable]
    busy: dict[tuple[str, str], list[tuple[float, float]]] = {}
    found: list[Fault] = []
    for _ in range(count):
        for _ in range(TRIES):
            (kind,) = rng.choices(usable, weights)
            fault = _draw(rng, kind, targets[kind.where], begin_s, duration_s)
            if fault is not None and _fits(busy, kind, fault):
                busy.setdefault((kind.group, fault.target), []).append((fault.at_s, fault.ends_s))
                found.append(fault)
                break
    return tuple(sorted(found, key=lambda fault: (fault.at_s, fault.kind, fault.target)))


def _draw(rng: Random, kind: Kind, targets: Sequence[str], begin_s: float, duration_s: float) -> Fault | None:
    low_s, high_s = kind.long_s if rng.random() < LONG_SHARE else kind.short_s
    for_s = round(rng.uniform(low_s, min(high_s, max(low_s, (duration_s - begin_s) / 2))), 3)
    last_s = duration_s - for_s
    if last_s <= begin_s:
        return None
    at_s = round(rng.uniform(begin_s, last_s), 3)
    amount = round(rng.uniform(*kind.amount), 3) if kind.amount[1] else 0.0
    return Fault(at_s, kind.name, targets[rng.randrange(len(targets))], for_s, amount)


def _fits(busy: dict[tuple[str, str], list[tuple[float, float]]], kind: Kind, fault: Fault) -> bool:
    """Nothing of its group is on its target at the time; a second is left between two."""
    spans = busy.get((kind.group, fault.target), ())
    return all(fault.ends_s + 1.0 <= begin or end + 1.0 <= fault.at_s for begin, end in spans)
