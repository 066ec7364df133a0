"""What must hold in an autoscaling policy whoever wrote it, and what one replica's whole of a resource is.

Rules: pure; a problem is (where below the policy, one line): `("metrics", 0)`, `("max",)`, `()` for the policy as a whole.
Shapes are the reader's business (`model/compose/autoscale_kinds.py`, the API's types); bounds and what does not fit together
are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from model.autoscale import Autoscale, MetricsPort, ScalingMetric
from model.cron import parse_cron, time_zone
from model.errors import BadInput
from model.spec import Resources

Where = tuple[str | int, ...]
Problem = tuple[Where, str]

COUNT_MAX: Final = 1_000_000
DAY_S: Final = 86_400.0
METRICS_MAX: Final = 20
SCHEDULES_MAX: Final = 50
TEXT_MAX: Final = 2_000
STEP_MAX: Final = 10.0
_SHARES: Final = {"cpu": "cpus", "memory": "memory"}
_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}", re.ASCII)
_HOST: Final = re.compile(r"[^\s/@?#]+", re.ASCII)


def words(where: Where) -> str:
    """`.metrics[0].cpu`."""
    return "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in where)


def whole_of(kind: str, reservations: Resources, limits: Resources) -> float:
    """What 1.0 of a cpu or memory target is for one replica: cores or bytes, reserved, else limited; 0: neither, no share."""
    if kind not in _SHARES:
        return 0.0
    of: Callable[[Resources], float] = (lambda row: row.cpus) if kind == "cpu" else (lambda row: row.memory_bytes)
    return float(of(reservations) or of(limits))


def policy_problems(
    policy: Autoscale, mode: str, reservations: Resources, limits: Resources, metrics: MetricsPort | None
) -> Iterator[Problem]:
    """Everything that is wrong. `mode`, the resources and `metrics` are the service's."""
    if mode != "replicated":
        yield (), f"only a replicated service can be scaled, and this one is {mode}: leave it out"
    yield from _bounds((), policy.min, policy.max)
    yield from _metrics(policy, reservations, limits, metrics)
    yield from _steps(policy)
    yield from _fallback(policy)
    yield from _schedules(policy)
    yield from _within(("activation",), policy.activation, 0, math.inf)


def metrics_port_problems(port: MetricsPort) -> Iterator[Problem]:
    """Of `x-metrics`."""
    if not 1 <= port.port <= 65_535:
        yield ("port",), f"found {port.port}, expected a port from 1 to 65535"
    if not port.path.startswith("/") or len(port.path) > TEXT_MAX or re.search(r"[\s#]", port.path):
        yield ("path",), f"found {port.path[:80]!r}, expected a path that begins with /"


def _bounds(at: Where, low: int, high: int, said: str = "max") -> Iterator[Problem]:
    """`said`: the one of the two that is blamed when they do not fit together."""
    yield from _within((*at, "min"), low, 0, COUNT_MAX)
    yield from _within((*at, "max"), high, 1, COUNT_MAX)
    if 0 <= low <= COUNT_MAX and 1 <= high < low:
        yield (*at, said), f"found {high}, but min says {low}" if said == "max" else f"found {low}, but max says {high}"


def _metrics(policy: Autoscale, reservations: Resources, limits: Resources, metrics: MetricsPort | None) -> Iterator[Problem]:
    if len(policy.metrics) > METRICS_MAX:
        yield ("metrics",), f"found {len(policy.metrics)}, expected at most {METRICS_MAX}"
    if policy.mode != "off" and not policy.metrics and not policy.schedules:
        yield ("metrics",), "found nothing, expected a metric such as cpu: 60%, or schedules"
    names = [metric.name for metric in policy.metrics]
    for index, metric in enumerate(policy.metrics):
        at = ("metrics", index)
        if metric.name in names[:index]:
            yield at, f"{metric.name} is named twice: write it once"
        if not (math.isfinite(metric.target) and metric.target > 0):
            yield (*at, metric.kind), f"found {metric.target:g}, expected a target above 0"
        if metric.kind in _SHARES and not whole_of(metric.kind, reservations, limits):
            field = f"deploy.resources.reservations.{_SHARES[metric.kind]}"
            said = "is a share of what a replica reserves, or else may use at most, and this service says neither: say"
            yield (*at, metric.kind), f"{said} {field}, or limits"
        yield from _asked(metric, (*at, metric.kind), metrics)


def _asked(metric: ScalingMetric, at: Where, metrics: MetricsPort | None) -> Iterator[Problem]:
    if metric.kind == "prometheus":
        if not metric.query.strip() or len(metric.query) > TEXT_MAX:
            yield (*at, "query"), f"expected PromQL of at most {TEXT_MAX} characters"
        if metric.url and (problem := url_problem(metric.url)):
            yield (*at, "url"), problem
        return
    if metric.kind == "scrape":
        if not _METRIC_NAME.fullmatch(metric.query):
            yield (*at, "metric"), f"found {metric.query[:80]!r}, expected the name of a metric such as jobs_waiting"
        if metrics is None:
            yield at, "is read from the replicas, and x-metrics does not say on which port: write x-metrics: {port: 9000}"
    elif metric.query:
        yield at, "takes no query"
    if metric.url:
        yield at, "takes no url"


def url_problem(url: str) -> str:
    """Why no Prometheus can be asked there; empty when one may be."""
    expected = f"found {url[:80]!r}, expected a URL such as http://prometheus:9090"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return expected
    if parts.scheme not in ("http", "https") or not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        return expected
    if re.search(r"[\s\x00-\x1f\x7f]", url) or len(url) > TEXT_MAX or parts.query or parts.fragment:
        return f"{expected}, without a query"
    return "found a name or password in it: leave them out" if "@" in parts.netloc else ""


def _steps(policy: Autoscale) -> Iterator[Problem]:
    out, back = policy.scale_out, policy.scale_in
    yield from _within(("scale_out", "step"), out.step, 0, STEP_MAX)
    yield from _within(("scale_out", "at_least"), out.at_least, 0, COUNT_MAX)
    if out.step == 0 and out.at_least == 0:
        yield ("scale_out",), "step and at_least are both 0: it could never scale out"
    yield from _within(("scale_out", "every"), out.every_s, 0.1, DAY_S, " s")
    yield from _within(("scale_out", "tolerance"), out.tolerance, 0, 0.99)
    yield from _within(("scale_in", "window"), back.window_s, 0, DAY_S, " s")
    yield from _within(("scale_in", "step"), back.step, 0.001, 1)
    yield from _within(("scale_in", "every"), back.every_s, 0.1, DAY_S, " s")
    yield from _within(("scale_in", "tolerance"), back.tolerance, 0, 0.99)
    yield from _within(("scale_in", "to_zero_after"), back.to_zero_after_s, 0, 7 * DAY_S, " s")


def _fallback(policy: Autoscale) -> Iterator[Problem]:
    fallback = policy.fallback
    if fallback is None:
        return
    yield from _within(("fallback", "after"), fallback.after, 1, 10_000)
    yield from _within(("fallback", "replicas"), fallback.replicas, 0, COUNT_MAX)
    if fallback.behavior == "static" and not fallback.replicas:
        yield ("fallback", "replicas"), "found 0, but behavior static holds this count: say how many"
    if fallback.replicas > policy.max:
        yield ("fallback", "replicas"), f"found {fallback.replicas}, but max says {policy.max}"


def _schedules(policy: Autoscale) -> Iterator[Problem]:
    if len(policy.schedules) > SCHEDULES_MAX:
        yield ("schedules",), f"found {len(policy.schedules)}, expected at most {SCHEDULES_MAX}"
    for index, row in enumerate(policy.schedules):
        at = ("schedules", index)
        low, high = policy.min if row.min is None else row.min, policy.max if row.max is None else row.max
        if row.min is None and row.max is None:
            yield at, "says neither min nor max: say what holds meanwhile"
        elif row.min is None:
            yield from _bounds(at, low, high, "max")
        else:
            yield from _bounds(at, low, high, "min")
        yield from _within((*at, "for"), row.for_s, 1, 31 * DAY_S, " s")
        for field, text, read in (("cron", row.cron, parse_cron), ("time_zone", row.time_zone, time_zone)):
            try:
                read(text)
            except BadInput as error:
                yield (*at, field), str(error)


def _within(at: Where, number: float, low: float, high: float, unit: str = "") -> Iterator[Problem]:
    if not (math.isfinite(number) and low <= number <= high):
        expected = f"{low:g} to {high:,.12g}" if math.isfinite(high) else f"{low:g} or more"
        yield at, f"found {number:,.12g}{unit}, expected {expected}{unit}"
