"""What this controller counts as it goes, in Prometheus' words; what can be read off the cluster: controller/api/metrics.py.

Rules: units last in the names, in seconds and bytes; labels have a few values each, never a replica, a node or a service. What
is counted happened in this process, and begins at 0 with it. docs/metrics.md has the list.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, which nobody asks for
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_WORK_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

DECISIONS: Final = Counter("shoal_decisions", "Decisions made.", ["loop"], registry=REGISTRY)
DECISIONS_FAILED: Final = Counter(
    "shoal_decisions_failed",
    "Passes that are tried again: a conflict or an outage of the store (retry), or an error of the program (fault).",
    ["loop", "kind"],
    registry=REGISTRY,
)
DECISION_SECONDS: Final = Histogram(
    "shoal_decision_seconds",
    "Time to decide: for the loop `services` this is the scheduler at work.",
    ["loop"],
    buckets=_WORK_S,
    registry=REGISTRY,
)
PASS_SECONDS: Final = Histogram(
    "shoal_pass_seconds",
    "Time of a whole pass: look, decide, write to the store.",
    ["loop"],
    buckets=_WORK_S,
    registry=REGISTRY,
)
STORE_SECONDS: Final = Histogram(
    "shoal_store_request_seconds",
    "Time until the store has answered.",
    ["call"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
    registry=REGISTRY,
)
