"""The kinds of `x-autoscale` and `x-metrics`: what a value looks like, and its form in the record's units.

Rules: as in `kinds`. Shares become 0.6, rates are per second. Bounds, and what must fit together, are not checked here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from model.autoscale import MetricKind
from model.compose.kinds import COUNT, DURATION, INT, STR, Context, Enum, Field, Kind, ListOf, Num, Obj, Or
from model.compose.problems import Mark, Report, near
from model.compose.scalars import parse_bytes, parse_number
from model.compose.tree import items_of

SHARE_MAX: Final = 10
"""1000%: whoever writes 60 means 60%."""
_PER_S: Final = {"s": 1.0, "m": 60.0}
_RATE: Final = re.compile(r"(.+?)(?:/(s|m))?", re.ASCII)


def SHARE(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`60%` or 0.6 -> 0.6."""
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    number = parse_number(text.removesuffix("%")) if text else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1e6:
        return cx.bad(path, value, "a share such as 60%", mark)
    share = number / 100 if text.endswith("%") else float(number)
    return cx.bad(path, value, f"a share of at most {SHARE_MAX * 100}%, such as 60%", mark) if share > SHARE_MAX else share


def _per_second(amount: Kind, expected: str) -> Kind:
    """`50/s`, `3000/m` or a number -> per second. `amount` reads what stands before the slash."""

    def read(cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
        number = amount(Context(Report()), found[1] if found else value, path, mark)
        if number is None:
            return cx.bad(path, value, expected, mark)
        return float(number) / _PER_S[(found and found[2]) or "s"]

    return read


def _bytes(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return parse_bytes(value) if isinstance(value, str) else Num(0)(cx, value, path, mark)


def MODE(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """YAML takes `on` and `off` for true and false."""
    word = ("off", "on")[value] if isinstance(value, bool) else value
    return Enum(("on", "recommend", "off"))(cx, word, path, mark) or None


_RATE_TARGET: Final = _per_second(Num(0), "a number per second such as 50/s")
_BYTES_TARGET: Final = _per_second(_bytes, "a size per second such as 10M/s")


def _target(kind: Kind) -> Kind:
    return Or(Obj({"target": Field(kind)}, required=("target",)), kind)


TARGETS: Final[dict[MetricKind, Kind]] = {
    "cpu": _target(SHARE),
    "memory": _target(SHARE),
    "connections": _target(_RATE_TARGET),
    "inflight": _target(Num(0)),
    "bytes": _target(_BYTES_TARGET),
    "prometheus": Obj(
        {"query": Field(STR), "target": Field(Num(0)), "url": Field(STR)}, required=("query", "target"),
        what="a mapping with 'query' and 'target'",
    ),
    "scrape": Obj(
        {"metric": Field(STR), "target": Field(Num(0))}, required=("metric", "target"),
        what="a mapping with 'metric' and 'target'",
    ),
}  # fmt: skip
_EXAMPLES: Final[dict[str, str]] = {
    "cpu": "60%",
    "memory": "80%",
    "connections": "50/s",
    "inflight": "10",
    "bytes": "10M/s",
    "prometheus": "{query: sum(rate(x[30s])), target: 100}",
    "scrape": "{metric: jobs_waiting, target: 3}",
}
_METRIC: Final = Obj({name: Field(kind) for name, kind in TARGETS.items()}, what="a mapping such as cpu: 60%")


def METRIC(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    kinds = ", ".join(TARGETS)
    if isinstance(value, dict) and len(value) != 1:
        return cx.bad(path, value, f"one of {kinds} in each", mark)
    for name, _, at in items_of(value) if isinstance(value, dict) else ():
        if name not in TARGETS and not near(name, list(TARGETS)):
            cx.report.problem(f"{path}.{name}", f"unknown field '{name}': expected one of {kinds}", at)
            return None
    read = _METRIC(cx, value, path, mark)
    for name, target, at in items_of(value) if isinstance(value, dict) else ():
        if target is None and name in TARGETS:
            cx.report.problem(f"{path}.{name}", f"has no value, such as {_EXAMPLES[name]}", at)
    return read


_BOUNDS: Final = {"min": Field(COUNT), "max": Field(COUNT)}
POLICY: Final = Obj(
    {
        **_BOUNDS,
        "metrics": Field(ListOf(METRIC)),
        "scale_out": Field(
            Obj({"step": Field(SHARE), "at_least": Field(COUNT), "every": Field(DURATION), "tolerance": Field(SHARE)})
        ),
        "scale_in": Field(
            Obj(
                {
                    "window": Field(DURATION),
                    "step": Field(SHARE),
                    "every": Field(DURATION),
                    "tolerance": Field(SHARE),
                    "to_zero_after": Field(DURATION),
                }
            )
        ),
        "fallback": Field(
            Obj({"after": Field(INT), "replicas": Field(COUNT), "behavior": Field(Enum(("static", "current", "higher")))})
        ),
        "schedules": Field(
            ListOf(
                Obj(
                    {**_BOUNDS, "cron": Field(STR), "time_zone": Field(STR), "for": Field(DURATION)}, required=("cron", "for"),
                    what="a mapping with 'cron' and 'for'",
                )
            )
        ),
        "mode": Field(MODE),
        "activation": Field(_RATE_TARGET),
    },
    required=("max",),
    what="a mapping with 'max' and 'metrics'",
)  # fmt: skip
PORT: Final = Obj({"port": Field(INT), "path": Field(STR)}, required=("port",), what="a mapping with 'port'")
