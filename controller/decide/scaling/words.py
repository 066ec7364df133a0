"""The sentence of a decision: `4 -> 7 replicas: connections 338/s of 50/s a replica want 7; at most +4 in 15 s`.

Rules: one line, the metric that decided first, then whatever held the count back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controller.decide.scaling.readings import Reading
from controller.decide.wording import counted

QUERY_MAX: Final = 60
_PLURAL: Final = ("connections", "bytes")
_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def head(before: int, after: int) -> str:
    return counted(after) if before == after else f"{before:,} -> {counted(after)}"


def title(reading: Reading) -> str:
    """`cpu`, `prometheus sum(rate(x[30s]))`."""
    return f"{reading.metric.kind} {short(reading.metric.query)}" if reading.metric.query else reading.metric.kind


def wish(reading: Reading) -> str:
    """`connections 338/s of 50/s a replica want 7`."""
    kind, target = reading.metric.kind, reading.metric.target
    said = f"{title(reading)} {amount(kind, reading.value or 0)} of {amount(kind, target)} a replica"
    over, verb = " over 10 s" if reading.burst else "", "want" if kind in _PLURAL else "wants"
    return f"{said}{over} {verb} {reading.wanted:,}"


def not_known(readings: Sequence[Reading]) -> list[str]:
    """`cpu and memory are not known: no replica is ready`: a line for each reason."""
    reasons = dict.fromkeys(reading.unknown for reading in readings)
    alike = {reason: [reading for reading in readings if reading.unknown == reason] for reason in reasons}
    return [f"{named(rows)} not known: {reason}" for reason, rows in alike.items()]


def named(readings: Sequence[Reading]) -> str:
    """`cpu is`, `cpu and memory are`."""
    verb = "are" if len(readings) > 1 or readings[0].metric.kind in _PLURAL else "is"
    return f"{' and '.join(map(title, readings))} {verb}"


def amount(kind: str, value: float) -> str:
    if kind in ("cpu", "memory"):
        return f"{number(value * 100)}%"
    if kind == "bytes":
        return next((f"{number(value / size)} {unit}/s" for size, unit in _SIZES if value >= size), f"{number(value)} B/s")
    return f"{number(value)}/s" if kind == "connections" else number(value)


def number(value: float) -> str:
    """Three digits that count, or all of a whole part; below one two digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def short(query: str) -> str:
    return query if len(query) <= QUERY_MAX else f"{query[:QUERY_MAX]}..."


def callers(waiting: int) -> str:
    return f"{waiting:,} caller{'' if waiting == 1 else 's'} waiting"
