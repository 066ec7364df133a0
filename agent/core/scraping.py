"""Metrics that replicas expose themselves and that their service's policy names: when they are read, what of them counts.

Rules: a replica that does not answer in time, or with too much, has said nothing. What it said elsewhere, before its service's
`x-metrics` changed, counts no longer. Only lines of the wanted names are parsed. Of a counter its rate per second counts, of
anything else the value; several series of one name are added up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from math import isfinite
from typing import Final, NamedTuple

from agent.core.metrics_replica import Limits, Page
from agent.plan.records import Life, ReplicaId, WantedService
from model.autoscale import MetricsPort
from model.errors import Unavailable
from model.ports import Clock

EVERY_S: Final = 5.0
LIMITS: Final = Limits(timeout_s=1.0, size_bytes=1 << 20)
AT_ONCE: Final = 8
STALE_S: Final = 3 * EVERY_S
PROBLEM_MAX: Final = 200
"""Characters of a problem: it is sent with every sample while it lasts."""

Read = Callable[[Life, MetricsPort, Limits], Awaitable[Page]]
"""What a replica answers. Raises Unavailable."""


class Found(NamedTuple):
    value: float
    counter: bool


class Scraper:
    """`look` from time to time; `values` and `problem` at any time."""

    def __init__(self, clock: Clock, read: Read) -> None:
        self._clock = clock
        self._read = read
        self._places: dict[ReplicaId, MetricsPort] = {}
        self._before: dict[ReplicaId, tuple[float, dict[str, Found]]] = {}
        self._values: dict[ReplicaId, tuple[float, dict[str, float]]] = {}
        self._problems: dict[ReplicaId, str] = {}
        self._limit = asyncio.Semaphore(AT_ONCE)

    @property
    def asks(self) -> bool:
        """Whether anybody is asked at all."""
        return bool(self._values or self._problems)

    def values(self, replica: ReplicaId) -> Mapping[str, float]:
        at, values = self._values.get(replica, (0.0, {}))
        return values if self._clock.monotonic() - at < STALE_S else {}

    def problem(self, replica: ReplicaId) -> str:
        """Why the last look at it found nothing, or not every metric: `shop_web.1: no metric jobs_waiting`; else empty."""
        return self._problems.get(replica, "")

    async def look(self, lives: Iterable[Life], services: Iterable[WantedService]) -> None:
        """Once at each of those that are asked."""
        wanted = {service.id: service for service in services if service.scraped}
        asked = {life.id: life for life in lives if life.id.service_id in wanted} if wanted else {}
        places = {replica: place for replica in asked if (place := wanted[replica.service_id].metrics) is not None}
        stay = {replica for replica, place in places.items() if self._places.get(replica, place) == place}
        for known in (self._before, self._values, self._problems):
            for replica in known.keys() - stay:
                del known[replica]
        self._places = places
        await asyncio.gather(*(self._look(life, wanted[life.id.service_id]) for life in asked.values()))

    async def _look(self, life: Life, service: WantedService) -> None:
        if (metrics := service.metrics) is None:
            return
        try:
            async with self._limit:
                page = await self._read(life, metrics, LIMITS)
            found = parsed(page.body.decode(errors="replace"), service.scraped)
        except (ValueError, Unavailable) as error:  # a parser's words may hold what the replica wrote
            why = error if isinstance(error, Unavailable) else f"port {metrics.port}: what it answers is no metrics"
            self._problems[life.id] = f"{life.name}: {why}"[:PROBLEM_MAX]
            return
        if missing := [name for name in service.scraped if name not in found]:
            self._problems[life.id] = f"{life.name}: no metric {', '.join(missing)}"[:PROBLEM_MAX]
        else:
            self._problems.pop(life.id, None)
        now = self._clock.monotonic()
        before_at, before = self._before.get(life.id, (0.0, {}))
        self._before[life.id] = now, found
        self._values[life.id] = now, rates(before, found, now - before_at)


def parsed(text: str, names: Collection[str]) -> dict[str, Found]:
    """The sums of the series of these names. Raises ValueError for what is no metrics."""
    from prometheus_client.parser import text_string_to_metric_families  # loads much, and few nodes need it

    lines = [line for line in text.splitlines() if _name(line) in names]
    found: dict[str, Found] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name in names and isfinite(sample.value):
                before = found[sample.name].value if sample.name in found else 0.0
                counts = family.type == "counter" or (family.type == "unknown" and sample.name.endswith("_total"))
                found[sample.name] = Found(before + sample.value, counts)
    return found


def _name(line: str) -> str:
    """Whose line it is: `jobs{queue="a"} 3`, `# TYPE jobs gauge`."""
    if line.startswith("#"):
        words = line.split(None, 3)
        return words[2] if len(words) > 2 and words[1] == "TYPE" else ""
    return line.partition("{")[0].partition(" ")[0]


def rates(before: Mapping[str, Found], after: Mapping[str, Found], seconds: float) -> dict[str, float]:
    """What counts of each; a counter read for the first time, or that went back, gives nothing."""
    values = {}
    for name, row in after.items():
        if not row.counter:
            values[name] = row.value
        elif name in before and row.value >= before[name].value and seconds > 0:
            values[name] = (row.value - before[name].value) / seconds
    return values
