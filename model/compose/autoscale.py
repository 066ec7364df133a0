"""`x-autoscale` and `x-metrics` of a service -> records. Labels `shoal.autoscale.*` of it or its deploy mean the same.

Rules: read with the kinds of the table of fields, so that a fault has file, line and field, and a key nobody knows its name.
Labels are the same mapping with dots: `shoal.autoscale.scale_in.window: 60s`, `shoal.autoscale.cpu: 60%` (a metric of its own),
`shoal.autoscale.metrics.0.cpu`. The policy stands in one place. What does not fit together is `model/autoscale_check.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from model.autoscale import (
    Autoscale,
    MetricKind,
    MetricsPort,
    ScaleIn,
    ScaleOut,
    ScalingFallback,
    ScalingMetric,
    ScalingMode,
    ScalingSchedule,
)
from model.autoscale_check import Where, metrics_port_problems, policy_problems, words
from model.compose.autoscale_kinds import POLICY, PORT, TARGETS
from model.compose.kinds import Context
from model.compose.problems import Mark, Report
from model.compose.scalars import duration_s
from model.compose.tree import Map, Seq, items_of, mark_of
from model.spec import Resources

AUTOSCALE: Final = "x-autoscale"
METRICS: Final = "x-metrics"
LABEL: Final = "shoal.autoscale."
_EMPTY: Final = "is empty: say max and metrics, such as {max: 5, metrics: [connections: 50/s]}, or leave it out"
_Json = Mapping[str, Any]


def autoscale_of(service: _Json) -> Autoscale | None:
    """The policy of a service that was checked."""
    places = _places(service, "")
    return _policy(POLICY(Context(Report()), places[0][1], "", Mark())) if places else None


def metrics_of(service: _Json) -> MetricsPort | None:
    """`x-metrics` of a service that was checked."""
    row = service.get(METRICS)
    return None if row is None else _port(PORT(Context(Report()), row, "", Mark()))


def without_labels(labels: _Json | None) -> dict[str, Any]:
    """A container's own labels: a policy changes no container."""
    return {name: value for name, value in (labels or {}).items() if not name.startswith(LABEL)}


def check_autoscale(service: _Json, at: str, report: Report, mode: str, reservations: Resources, limits: Resources) -> None:
    """Of a service whose other fields were read without a fault."""
    port = _check_port(service, at, report)
    if AUTOSCALE in (service.get("deploy") or {}):
        mark = mark_of(service["deploy"], AUTOSCALE)
        report.problem(f"{at}.deploy.{AUTOSCALE}", f"stands on the service itself: write {AUTOSCALE} beside 'deploy'", mark)
    places = _places(service, at)
    if AUTOSCALE in service and service[AUTOSCALE] is None:
        report.problem(f"{at}.{AUTOSCALE}", _EMPTY, mark_of(service, AUTOSCALE))
    for path, _, mark in places[1:]:
        report.problem(path, f"the policy stands in {places[0][0]} already: write it in one place", mark)
    before = len(report.problems)
    for path, labels in _labels(service, at):
        _check_numbers(labels, path, report)
    for path, value, mark in places[:1] if len(report.problems) == before else ():
        if value == {}:
            report.problem(path, _EMPTY, mark)
            return
        read = POLICY(Context(report), value, path, mark)
        if len(report.problems) == before:
            _check_repeated(read, path, report)
            for where, message in policy_problems(_policy(read), mode, reservations, limits, port):
                report.problem(path + words(where), message, _mark(read, where, mark))


def _check_repeated(read: Map, path: str, report: Report) -> None:
    """A later file may say a metric again, with another target; one file may not."""
    rows, seen = read.get("metrics") or Seq(), set[tuple[str, str]]()
    for index, row in enumerate(rows):
        mark, name = mark_of(rows, index), _metric(row).name
        if mark.file and (mark.file, name) in seen:
            report.problem(f"{path}.metrics[{index}]", f"{name} is named twice: write it once", mark)
        seen.add((mark.file, name))


def _check_port(service: _Json, at: str, report: Report) -> MetricsPort | None:
    if METRICS not in service:
        return None
    value, path, mark, before = service[METRICS], f"{at}.{METRICS}", mark_of(service, METRICS), len(report.problems)
    if value is None or value == {}:
        report.problem(path, "is empty: say where replicas tell metrics, such as {port: 9000}, or leave it out", mark)
        return None
    read = PORT(Context(report), value, path, mark)
    if len(report.problems) > before:
        return None
    port = _port(read)
    for where, message in metrics_port_problems(port):
        report.problem(path + words(where), message, _mark(read, where, mark))
    return port


def _places(service: _Json, at: str) -> list[tuple[str, Any, Mark]]:
    """(path, mapping, mark) of each place where the policy is written."""
    found: list[tuple[str, Any, Mark]] = []
    if service.get(AUTOSCALE) is not None:
        found.append((f"{at}.{AUTOSCALE}", service[AUTOSCALE], mark_of(service, AUTOSCALE)))
    for path, labels in _labels(service, at):
        if nested := _nested(labels):
            found.append((f"{path}.{LABEL.removesuffix('.')}", nested, nested.mark))
    return found


def _labels(service: _Json, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, row in ((f"{at}.deploy.labels", service.get("deploy") or {}), (f"{at}.labels", service)):
        yield path, row.get("labels") or {}


def _check_numbers(labels: dict[str, Any], path: str, report: Report) -> None:
    """Entries of a list are numbered from 0 without a gap: who counts otherwise may have lost one."""
    lists: dict[str, dict[str, Mark]] = {}
    for name, _, mark in items_of(labels):
        words = name.split(".") if name.startswith(LABEL) else []
        for index, word in enumerate(words):
            if word.isdecimal():
                lists.setdefault(".".join(words[:index]), {}).setdefault(word, mark)
    for name, found in lists.items():
        for index, word in enumerate(sorted(found, key=_by_number)):
            if word != str(index):
                message = f"found number {word} where {index} comes next: number the entries 0, 1, 2 without a gap"
                report.problem(f"{path}.{name}.{word}", message, found[word])
                break


def _by_number(word: str) -> tuple[int, str]:
    """What orders decimals of any length as the numbers they are."""
    return len(word), word


def _nested(labels: dict[str, Any]) -> Map:
    """The mapping that labels with dots mean; empty when there are none."""
    tree, metrics = Map(), Map()
    for name, value, mark in items_of(labels):
        if not name.startswith(LABEL):
            continue
        words = name.removeprefix(LABEL).split(".")
        if not tree and not metrics:
            tree.mark = mark
        _set(metrics if words[0] in TARGETS else tree, words, value, mark)
    listed = _listed(tree)
    if metrics:
        rows = listed.get("metrics")
        listed.put("metrics", rows if isinstance(rows, Seq) else Seq(mark=metrics.mark), tree.mark)
        for name, value, mark in items_of(metrics):
            one = Map(mark=mark)
            one.put(name, value, mark)
            listed["metrics"].put(one, mark)
    return listed


def _set(tree: Map, words: list[str], value: Any, mark: Mark) -> None:
    for word in words[:-1]:
        inner = tree.get(word)
        if not isinstance(inner, Map):
            inner = Map(mark=mark)
            tree.put(word, inner, mark)
        tree = inner
    tree.put(words[-1], value, mark)


def _listed(tree: Map) -> Map:
    """Mappings whose keys are all numbers are lists."""
    result = Map(mark=tree.mark)
    for key, value, mark in items_of(tree):
        inner: Any = _listed(value) if isinstance(value, Map) else value
        if isinstance(inner, Map) and inner and all(word.isdecimal() for word in inner):
            rows = Seq(mark=mark)
            for word in sorted(inner, key=_by_number):
                rows.put(inner[word], inner.at(word))
            inner = rows
        result.put(key, inner, mark)
    return result


def _policy(row: _Json) -> Autoscale:
    fallback = row.get("fallback")
    return Autoscale(
        min=row.get("min", 1),
        max=row["max"],
        metrics=tuple({metric.name: metric for metric in map(_metric, row.get("metrics") or ())}.values()),
        scale_out=ScaleOut(**_times(row.get("scale_out"))),
        scale_in=ScaleIn(**_times(row.get("scale_in"))),
        fallback=None if fallback is None else ScalingFallback(**{key: item for key, item in fallback.items() if item != ""}),
        schedules=tuple(_schedule(entry) for entry in row.get("schedules") or ()),
        mode=cast(ScalingMode, row.get("mode") or "on"),
        activation=float(row.get("activation", 0.0)),
    )


def _metric(entry: _Json) -> ScalingMetric:
    ((kind, value),) = entry.items()
    row: _Json = value if isinstance(value, dict) else {"target": value}
    query = row.get("query") or row.get("metric") or ""
    return ScalingMetric(cast(MetricKind, kind), float(row["target"]), query, row.get("url") or "")


_TIMES: Final = frozenset({"every", "window", "to_zero_after"})


def _times(row: _Json | None) -> dict[str, Any]:
    """Durations in seconds under their name with `_s`."""
    return {f"{key}_s" if key in _TIMES else key: duration_s(value) if key in _TIMES else value
            for key, value in (row or {}).items()}  # fmt: skip


def _schedule(row: _Json) -> ScalingSchedule:
    return ScalingSchedule(row["cron"], duration_s(row["for"]), row.get("time_zone") or "UTC", row.get("min"), row.get("max"))


def _port(row: _Json) -> MetricsPort:
    return MetricsPort(row["port"], row.get("path") or "/metrics")


def _mark(value: Any, where: Where, mark: Mark) -> Mark:
    """The place of what `where` names, or of the nearest thing around it."""
    for word in where:
        if not isinstance(value, list) and not (isinstance(value, dict) and word in value):
            break
        mark, value = mark_of(value, word), cast(Any, value)[word]
    return mark
