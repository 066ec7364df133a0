"""Gauges out of rows, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

Row = tuple[Sequence[str], float]
"""Values of the labels, and the value."""


def gauge(name: str, text: str, rows: Iterable[Row], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def one(name: str, text: str, value: float, **labels: str) -> Metric:
    return gauge(name, text, [(tuple(labels.values()), value)], *labels)
