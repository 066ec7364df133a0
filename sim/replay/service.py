"""One service under a load: replicas that need time to start, what they serve, what stays unserved.

Rules: time is whole seconds. A replica serves at most `capacity` units a second; what is above is lost. One that starts costs
as much as one that serves; on the way in those that start go first, the youngest first, and the rest at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

REVERSAL_S: Final = 600
DAY_S: Final = 86_400


class Scaler(Protocol):
    """An autoscaler. `sense` comes every second, before `decide`, which comes every `every_s` seconds.

    `demand`: units offered in the second that has just ended; `served`: of them; `ready`, `starting`: replicas in it.
    `decide` gives the count to have from the second `now_s` on.
    """

    name: str
    every_s: int

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None: ...

    def decide(self, now_s: int, scale: int, ready: int) -> int: ...


@dataclass(slots=True)
class Run:
    """What became of one load under one scaler. `counts`: (second, replicas wanted from then on); `ready`: (second, replicas
    that serve from then on); `cost`: replica seconds."""

    name: str
    seconds: int
    demanded: float
    unserved: float
    cost: int
    counts: list[tuple[int, int]] = field(default_factory=list)
    ready: list[tuple[int, int]] = field(default_factory=list)

    @property
    def unserved_percent(self) -> float:
        return 100 * self.unserved / self.demanded if self.demanded else 0.0

    @property
    def actions_per_day(self) -> float:
        return (len(self.counts) - 1) * DAY_S / self.seconds

    @property
    def reversals_per_day(self) -> float:
        """Changes against the direction of the one before, at most ten minutes after it."""
        moves = [(at, count > before) for (_, before), (at, count) in pairwise(self.counts)]
        turned = sum(up != before and at - earlier <= REVERSAL_S for (earlier, before), (at, up) in pairwise(moves))
        return turned * DAY_S / self.seconds


def replay(scaler: Scaler, demand: Sequence[float], capacity: float, start_s: int, first: int) -> Run:
    """`demand` units a second, one value a second; `first` replicas serve when it begins."""
    scale, ready, cost, unserved = first, first, 0, 0.0
    coming: deque[tuple[int, int]] = deque()
    counts, serving, every = [(0, first)], [(0, first)], scaler.every_s
    for second, offered in enumerate(demand):
        if coming and coming[0][0] <= second:
            ready += coming.popleft()[1]
            serving.append((second, ready))
        served = min(offered, ready * capacity)
        unserved += offered - served
        cost += scale
        scaler.sense(offered, served, ready, scale - ready)
        if (second + 1) % every:
            continue
        wanted = scaler.decide(second + 1, scale, ready)
        if wanted == scale:
            continue
        if wanted > scale:
            coming.append((second + 1 + start_s, wanted - scale))
        else:
            gone = scale - wanted - _recalled(coming, scale - wanted)
            if gone:
                ready -= gone
                serving.append((second + 1, ready))
        scale = wanted
        counts.append((second + 1, scale))
    return Run(scaler.name, len(demand), sum(demand), unserved, cost, counts, serving)


def _recalled(coming: deque[tuple[int, int]], count: int) -> int:
    """How many of `count` were still starting; they are taken out, the newest first."""
    left = count
    while coming and left:
        at, some = coming.pop()
        if some > left:
            coming.append((at, some - left))
        left -= min(some, left)
    return count - left


def oracle_cost(demand: Sequence[float], target: float, least: int) -> int:
    """Replica seconds of who knows each second before it comes and keeps every replica at its target."""
    return sum(max(least, -int(-units // target)) for units in demand)
