"""The controller's own metrics, in Prometheus' words. Counters live here; gauges are computed when they are asked for.

Rule: few and honest: what is counted happened in this process.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY: Final = CollectorRegistry()
DECISIONS: Final = Counter("shoal_decisions", "Passes of a decision loop", ["loop"], registry=REGISTRY)
DECISION_SECONDS: Final = Counter("shoal_decision_seconds", "Time spent in decisions, in seconds", ["loop"], registry=REGISTRY)
STORE_SECONDS: Final = Histogram(
    "shoal_store_request_seconds",
    "Time until the store answered",
    ["call"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
    registry=REGISTRY,
)
