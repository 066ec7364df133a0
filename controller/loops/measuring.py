"""What is known of a service's load now, for its autoscaler and for people who ask: samples of nodes, answers to queries."""

from __future__ import annotations

from controller.decide.scaling.types import Series
from controller.decide.types import Measured
from controller.prometheus.queries import Queries
from controller.samples.port import Samples
from model.autoscale import ScalingMetric
from model.autoscale_check import whole_of
from model.documents import ServiceDoc


class Measuring:
    """Only the leader knows anything. For the event loop's thread."""

    def __init__(self, samples: Samples, queries: Queries) -> None:
        self._samples = samples
        self._queries = queries

    def of(self, doc: ServiceDoc) -> Measured:
        """Of each metric that its policy names, and who waits for it."""
        metrics = doc.spec.autoscale.metrics if doc.spec.autoscale is not None else ()
        return Measured({metric.name: self.series(doc, metric) for metric in metrics}, self._samples.waiting(doc.id))

    def series(self, doc: ServiceDoc, metric: ScalingMetric) -> Series:
        """Of one metric."""
        if metric.kind == "prometheus":
            return self._queries.series(metric.url, metric.query)
        whole = whole_of(metric.kind, doc.spec.reservations, doc.spec.container.limits)
        return self._samples.series(doc.id, metric.kind, whole, metric.query)
