"""One service that the autoscaler's rule scales, for its tests: a clock, its metrics second by second, what the rule remembers.

Rules: every decision is taken twice, the second with what the first one remembers, and must change nothing; the document goes
through the codec each time it changes, as between two leaders.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from controller.decide.scaling.rule import decide
from controller.decide.scaling.types import ScaleFacts, ScaleStep, Series
from model.autoscale import Autoscale, ScalingMetric
from model.codec import decode, encode
from model.documents import ScaleDoc, ScaleOrderDoc

CONNECTIONS: Final = ScalingMetric("connections", 50.0)
NOW: Final = 1_000_000_000_000


class Service:
    """A service whose replicas start at once; `load` says what its metrics are, per second in all."""

    def __init__(self, scale: int, *metrics: ScalingMetric, **policy: Any) -> None:
        self.policy = Autoscale(**{"min": 1, "max": 100, "metrics": metrics or (CONNECTIONS,), **policy})
        self.scale = self.ready = scale
        self.starting = self.waiting = 0
        self.now_ms = NOW
        self.order: ScaleOrderDoc | None = None
        self.document: ScaleDoc | None = None
        self.rows: dict[str, list[tuple[int, float, int | None]]] = {}
        self.problems: dict[str, str] = {}
        self.written = 0
        self.follows = True
        self.told: list[tuple[int, str]] = []
        """(Seconds since it began, sentence) of each change."""

    def load(self, seconds: int, **values: float | None) -> Service:
        """So many seconds in which each metric has that total; None: nothing is heard of it. Decided every 5 s."""
        for _ in range(seconds):
            self.now_ms += 1000
            for name, value in values.items():
                if value is not None:
                    spoke = self.ready if name in ("cpu", "memory") else None
                    self.rows.setdefault(name, []).append((self.now_ms, value, spoke))
            if self.now_ms % 5000 == 0:
                self.decide()
        return self

    @property
    def kept(self) -> ScaleDoc:
        assert self.document is not None
        return self.document

    def facts(self) -> ScaleFacts:
        series = {name: Series(tuple(rows[-120:]), self.problems.get(name, "")) for name, rows in self.rows.items()}
        return ScaleFacts(
            "id", "web", self.policy, self.scale, self.ready, self.starting, self.waiting, series, self.document, self.order
        )

    def decide(self) -> ScaleStep:
        step = decide(self.facts(), self.now_ms)
        again = decide(replace(self.facts(), document=step.document), self.now_ms)
        assert again.document is step.document, "twice is once"
        assert again.scale == step.scale
        if step.scale != self.scale:
            self.told.append(((self.now_ms - NOW) // 1000, step.sentence))
        self.written += step.document is not self.document
        self.document = decode(ScaleDoc, encode(step.document)) if step.document is not self.document else self.document
        self.scale = step.scale
        self.ready = step.scale if self.follows else self.ready
        self.starting = step.scale - self.ready
        self.step = step
        return step
