"""The rule of `controller.decide.scaling` as a scaler: the function the controller calls, on samples as it would have them.

Rules: the load balancer's seconds are seen one second late; cpu is what replicas that serve use of what they may: it saturates.
What a replay has no data for (memory) is left out of the policy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controller.decide.scaling.rule import decide
from controller.decide.scaling.types import ScaleFacts, Series
from model.autoscale import Autoscale
from model.codec import encode
from model.documents import ScaleDoc

KEPT_S: Final = 62
LATE_S: Final = 1
FED: Final = frozenset({"connections", "inflight", "bytes", "prometheus", "scrape"})


def replayable(policy: Autoscale) -> Autoscale:
    """The policy with the metrics that a load can stand for."""
    return replace(policy, metrics=tuple(metric for metric in policy.metrics if metric.kind in FED or metric.kind == "cpu"))


class Ours:
    """`capacity`: units a second of a replica whose cpu is at its whole reservation. `start_ms`: Unix ms of second 0, for
    schedules. `writes`: how often the document changed; `bytes_max`: its largest size; `told`: each change with its sentence.
    """

    name = "shoal"
    every_s = 5

    def __init__(self, policy: Autoscale, capacity: float, start_ms: int = 0) -> None:
        self.policy, self.capacity, self.start_ms = replayable(policy), capacity, start_ms
        self.document: ScaleDoc | None = None
        self.writes = self.bytes_max = 0
        self.told: list[tuple[int, str]] = []
        self._second = 0
        self._load: list[tuple[int, float, int | None]] = []
        self._cpu: list[tuple[int, float, int | None]] = []
        self._fed = [metric.name for metric in self.policy.metrics if metric.kind in FED]
        self._cpu_name = next((metric.name for metric in self.policy.metrics if metric.kind == "cpu"), "")

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None:
        self._second += 1
        at_ms = self.start_ms + self._second * 1000
        self._load.append((at_ms, demand, None))
        if self._cpu_name:
            self._cpu.append((at_ms, served / self.capacity, ready))

    def decide(self, now_s: int, scale: int, ready: int) -> int:
        series = dict.fromkeys(self._fed, self._seen(self._load))
        if self._cpu_name:
            series[self._cpu_name] = self._seen(self._cpu)
        facts = ScaleFacts("replayed", "replayed", self.policy, scale, ready, scale - ready, 0, series, self.document)
        step = decide(facts, self.start_ms + now_s * 1000)
        if step.document is not self.document:
            self.document, self.writes = step.document, self.writes + 1
            self.bytes_max = max(self.bytes_max, len(encode(step.document)))
        if step.scale != scale:
            self.told.append((now_s, step.sentence))
        return step.scale

    @staticmethod
    def _seen(rows: list[tuple[int, float, int | None]]) -> Series:
        return Series(tuple(rows[-KEPT_S - LATE_S : -LATE_S]))
