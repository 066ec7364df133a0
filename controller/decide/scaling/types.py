"""Facts in, step out: the shapes of the replica autoscaler.

Rules: `decide(facts, now_ms) -> ScaleStep` reads nothing else. A number that is negative, infinite or not a number is missing;
what is missing never scales in. Run twice on the same facts, with the first step's document, the second changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.autoscale import Autoscale
from model.documents import ScaleDoc, ScaleOrderDoc


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one service over the last minutes, oldest first: (Unix ms of the second's end, total over the replicas that
    spoke, how many of them spoke). cpu and memory in units of one replica's reservation, so that 1.0 is one replica's whole.

    `replicas` None in a row: the value is of the service as a whole (traffic, PromQL). `problem`: why there is nothing newer.
    `step_ms`: how far apart rows are when none is missing. `note`: why some replicas do not speak; for people only.
    """

    rows: tuple[tuple[int, float, int | None], ...] = ()
    problem: str = ""
    step_ms: int = 1_000
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScaleFacts:
    """One service at one moment. `scale`: replicas wanted now; `ready`: those that serve; `starting`: on their way, none
    that fails.

    `waiting`: callers held while it sleeps. `document` None: nothing was decided yet.
    """

    service_id: str
    name: str
    policy: Autoscale
    scale: int
    ready: int
    starting: int = 0
    waiting: int = 0
    series: Mapping[str, Series] = field(default_factory=dict)
    """By `ScalingMetric.name`."""
    document: ScaleDoc | None = None
    order: ScaleOrderDoc | None = None


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """`scale`: what the service's count is to be (unchanged in mode `recommend`, where `document.wanted` says what it would
    be); `document`: what to remember; `sentence`: why; `wake_at_ms`: when to decide again at the latest."""

    scale: int
    document: ScaleDoc
    sentence: str
    wake_at_ms: int
