"""Samples in memory: what nodes measure, put together by services, replicas and nodes.

Rules: a sample speaks for every step whose end lies in its interval, so each step gets each node once, whatever the nodes'
clocks and pauses. Traffic of one replica comes from many nodes, and is added up. Memory is bounded: the more there is to keep,
the shorter it is kept. A sample costs a few microseconds for each of its rows; reading costs by what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Final

from controller.decide.scaling.types import Series
from controller.samples.pace import sample_s
from controller.samples.port import KEPT_S, NODE_FIELDS, SERVICE_FIELDS, History
from controller.samples.ring import Ring, Table
from model.ports import Clock
from protos import node_pb2 as pb

FUTURE_MS: Final = 2_000
CLOCK_BACK_MS: Final = 10_000
"""A sample so much older than the node's last one: its clock was set."""
INTERVAL_MS_MAX: Final = 180_000
LATE_MS: Final = 500
SILENT_MS: Final = 30_000
"""So long after its last word it is not known what a node counts whose session is open."""
SERIES_S: Final = 90
LEAST_S: Final = 120
"""So much is kept of everything, however much there is."""
REPLICA_ROWS_MAX: Final = 2_000_000
SERVICE_ROWS_MAX: Final = 1_500_000
PROBLEM_MAX: Final = 200
_LOOK_EVERY_S: Final = 60.0
_TRAFFIC: Final = SERVICE_FIELDS.index("connections_per_s")
_THROTTLED: Final = SERVICE_FIELDS.index("throttled")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "cpu": ("cpu_cores",),
    "memory": ("memory_bytes",),
    "connections": ("connections_per_s",),
    "inflight": ("open",),
    "bytes": ("in_bytes_per_s", "out_bytes_per_s"),
}
"""What a metric of a policy is the sum of."""


class MemorySamples:
    """See controller.samples.port.Samples."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.woken: Callable[[str], None] = lambda service_id: None
        """Told which service is called while it sleeps."""
        self.clear()

    def clear(self) -> None:
        self._step_s = 1
        self._spoke: Table[None] = Table(1, KEPT_S, KEPT_S)
        self._services: Table[str] = Table(len(SERVICE_FIELDS), SERVICE_ROWS_MAX, KEPT_S)
        self._replicas: Table[tuple[str, str]] = Table(len(SERVICE_FIELDS), REPLICA_ROWS_MAX, KEPT_S, "f")
        self._scraped: Table[tuple[str, str]] = Table(2, SERVICE_ROWS_MAX, KEPT_S)
        self._problems: dict[str, tuple[int, str]] = {}
        """Service id -> the newest of its replicas' problems with their metrics: Unix ms, text. Old ones are dropped."""
        self._nodes: Table[str] = Table(len(NODE_FIELDS) + 1, SERVICE_ROWS_MAX, KEPT_S)
        self._heard: dict[str, int] = {}
        self._apart_ms: dict[str, int] = {}
        """Of nodes with an open session that are not heard: how far their clock is from this one."""
        self._waiting: dict[str, dict[str, int]] = {}
        self._looked_s = self._clock.monotonic()
        self._settled: tuple[int, int] = (0, 0)
        self._silence: tuple[int, str] = (0, "")

    # ---- what comes in

    def take(self, node: str, samples: pb.Samples) -> None:
        at_ms, now_ms = samples.at_ms, self._now_ms()
        if not now_ms - KEPT_S * 1000 < at_ms <= now_ms + FUTURE_MS:
            self._apart_ms[node] = abs(at_ms - now_ms)
            return
        self._apart_ms.pop(node, None)
        if not 0 < samples.interval_ms <= INTERVAL_MS_MAX:
            return
        known = self._heard.get(node)
        begin_ms = at_ms - samples.interval_ms
        if known is not None and known - at_ms < CLOCK_BACK_MS:
            begin_ms = max(begin_ms, known)
        if begin_ms >= at_ms:
            return
        self._heard[node] = at_ms
        self._settled = (0, 0)
        self._silence = (0, "")
        new_pace = known is None and sample_s(len(self._heard)) != self._step_s
        if new_pace or self._clock.monotonic() - self._looked_s > _LOOK_EVERY_S:
            self._look()
        step_ms = self.step_ms()
        steps = range(begin_ms // step_ms + 1, at_ms // step_ms + 1)
        if steps:
            self._put(node, samples, steps)

    def _put(self, node: str, samples: pb.Samples, steps: range) -> None:
        self._spoke.add(None, 0, (1,), steps)
        if samples.HasField("node"):
            self._nodes.add(node, 0, (1, *_node_numbers(samples.node)), steps)
        for row in samples.replicas:
            if row.metrics_problem:
                told = f"{node}: {row.metrics_problem[:PROBLEM_MAX]}"
                self._problems[row.key.service_id] = samples.at_ms, told
            usage = _usage_numbers(row)
            if usage is not None:
                service_id, slot = row.key.service_id, row.key.slot
                self._services.add(service_id, 0, usage, steps)
                self._replicas.add((service_id, str(slot) if slot else node), 0, usage, steps)
                for metric in row.metrics:
                    if isfinite(metric.value):
                        self._scraped.add((service_id, metric.name), 0, (metric.value, 1), steps)
        for flow in samples.traffic:
            numbers = (flow.connections_per_s, flow.in_bytes_per_s, flow.out_bytes_per_s, flow.open)
            if _sound(numbers):
                self._services.add(flow.service_id, _TRAFFIC, numbers, steps)
                self._replicas.add((flow.service_id, self._suffix(flow.replica)), _TRAFFIC, numbers, steps)

    def _suffix(self, replica: str) -> str:
        """`3` of shop_web.3, a node's name of a global service's, `1` of a single container, whose name may hold dots too."""
        suffix = replica.rpartition(".")[2]
        if suffix.isdecimal():
            return suffix
        for at in [place for place, letter in enumerate(replica) if letter == "."]:
            if replica[at + 1 :] in self._nodes:
                return replica[at + 1 :]
        return "1"

    def wake(self, node: str, service_id: str, waiting: int) -> None:
        held = self._waiting.setdefault(service_id, {})
        if waiting:
            held[node] = waiting
            self.woken(service_id)
        else:
            held.pop(node, None)
        if not held:
            del self._waiting[service_id]

    def waiting(self, service_id: str) -> int:
        return sum(self._waiting.get(service_id, {}).values())

    def forget_node(self, node: str) -> None:
        self._heard.pop(node, None)
        self._apart_ms.pop(node, None)
        for service_id in [key for key, held in self._waiting.items() if node in held]:
            self.wake(node, service_id, 0)

    # ---- how much is kept

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _look(self) -> None:
        """From time to time: the pace, what is old, and how long things are kept."""
        self._looked_s = self._clock.monotonic()
        before_s, self._step_s = self._step_s, sample_s(len(self._heard))
        kept = KEPT_S // self._step_s
        self._problems = {key: row for key, row in self._problems.items() if self._now_ms() - row[0] < SERIES_S * 1000}
        oldest = self._now_ms() // self.step_ms() - kept
        for table in (self._spoke, self._services, self._replicas, self._scraped, self._nodes):
            if self._step_s != before_s:
                table.stretch(before_s, self._step_s)
            table.tend(oldest, kept, max(2, LEAST_S // self._step_s))

    # ---- what is told

    def step_ms(self) -> int:
        return self._step_s * 1000

    def settled_ms(self) -> int:
        return self._settled_step() * self.step_ms()

    def _settled_step(self) -> int:
        """The newest step that all have told who speak; who is late is waited for, but not for long."""
        now_ms, step_ms = self._now_ms(), self.step_ms()
        if self._settled[0] != now_ms:
            late_ms = now_ms - 2 * step_ms - LATE_MS
            told_ms = min((at_ms for at_ms in self._heard.values() if at_ms > late_ms), default=late_ms)
            self._settled = now_ms, min(told_ms, now_ms) // step_ms
        return self._settled[1]

    def _steps(self, since_ms: int) -> range:
        """Those that are told, and end after `since_ms`."""
        spoke = self._spoke.get(None) or Ring(1)
        first = max(spoke.first, since_ms // self.step_ms() + 1)
        return range(first, min(spoke.end, self._settled_step() + 1))

    def _has_spoken(self, step: int) -> bool:
        """Whether any node has."""
        ring = self._spoke.get(None)
        row = ring.row(step) if ring is not None else None
        return row is not None and row[0] > 0

    def service(self, service_id: str, since_ms: int = 0) -> History:
        return self._history(SERVICE_FIELDS, self._services.get(service_id), since_ms, self._service_row)

    def replica(self, service_id: str, slot: int, since_ms: int = 0, node: str = "") -> History:
        ring = self._replicas.get((service_id, str(slot) if slot else node))
        return self._history(SERVICE_FIELDS, ring, since_ms, self._service_row)

    def node(self, name: str, since_ms: int = 0) -> History:
        return self._history(NODE_FIELDS, self._nodes.get(name), since_ms, _node_row)

    def _history(
        self, fields: Sequence[str], ring: Ring | None, since_ms: int, row_of: Callable[[Ring, int], Sequence[float | None]]
    ) -> History:
        steps = self._steps(since_ms)
        ring = ring or Ring(len(fields))
        rows = [row_of(ring, step) for step in steps]
        columns = zip(*rows, strict=True) if rows else [()] * len(fields)
        times = [step * self.step_ms() for step in steps]
        return {"at_ms": times, **{name: list(column) for name, column in zip(fields, columns, strict=True)}}

    def _service_row(self, ring: Ring, step: int) -> Sequence[float | None]:
        """Traffic that no node has told of is none, as long as any node has spoken."""
        row = ring.row(step) or (0.0,) * len(SERVICE_FIELDS)
        replicas = row[0]
        usage: tuple[float | None, ...] = (None,) * (_TRAFFIC - 1)
        if replicas:
            usage = (*row[1:_THROTTLED], row[_THROTTLED] / replicas, *row[_THROTTLED + 1 : _TRAFFIC])
        if not self._has_spoken(step):
            return (None,) * len(SERVICE_FIELDS)
        return (replicas, *usage, *row[_TRAFFIC:])

    def series(self, service_id: str, kind: str, reservation: float, query: str = "") -> Series:
        steps = self._steps(self._now_ms() - 1000 * max(SERIES_S, 3 * self._step_s))
        if kind == "scrape":
            told = self._told(query, steps, self._scraped.get((service_id, query)), (0,), 1, 1.0)
            at_ms, why = self._problems.get(service_id, (0, ""))
            fresh = self._now_ms() - at_ms <= max(SILENT_MS, 3 * self.step_ms())
            if not fresh:
                return told
            return replace(told, problem=why) if told.problem else replace(told, note=why)
        columns = tuple(SERVICE_FIELDS.index(name) for name in COLUMNS.get(kind, ()))
        if not columns:
            return Series(problem=f"{kind} is not measured by nodes")
        if kind not in ("cpu", "memory"):
            return self._traffic(steps, self._services.get(service_id), columns)
        if not reservation > 0:
            return Series(problem=f"there is no reservation or limit of {kind} to compare with")
        return self._told(kind, steps, self._services.get(service_id), columns, 0, reservation)

    def _traffic(self, steps: range, ring: Ring | None, columns: Sequence[int]) -> Series:
        rows: list[tuple[int, float, int | None]] = []
        for step in steps:
            if self._has_spoken(step):
                row = (ring.row(step) if ring is not None else None) or (0.0,) * len(SERVICE_FIELDS)
                rows.append((step * self.step_ms(), sum(row[column] for column in columns), None))
        problem = self._apart() or self._problem(rows, "no node has sent measurements") or self._silent()
        return Series(tuple(rows), problem, self.step_ms())

    def _apart(self) -> str:
        """Whose callers nobody knows of because of a clock. Empty: none."""
        if not self._apart_ms:
            return ""
        node, ms = max(self._apart_ms.items(), key=lambda row: row[1])
        return f"the clocks of {node} and of the leading controller are {ms // 1000:,} s apart: set them right"

    def _silent(self) -> str:
        """Which node's callers nobody knows of: connections through it are missing in every row. Empty: none."""
        now_ms = self._now_ms()
        if self._silence[0] != now_ms:
            node, at_ms = min(self._heard.items(), key=lambda row: row[1], default=("", now_ms))
            silent = now_ms - at_ms > max(SILENT_MS, 3 * self.step_ms())
            self._silence = now_ms, f"{node} has told nothing of the last {(now_ms - at_ms) // 1000} s" if silent else ""
        return self._silence[1]

    def _told(self, name: str, steps: range, ring: Ring | None, columns: Sequence[int], count: int, unit: float) -> Series:
        """Of what replicas say; `count`: the column with how many."""
        rows: list[tuple[int, float, int | None]] = []
        for step in steps if ring is not None else ():
            row = ring.row(step) if ring is not None else None
            if row is not None and row[count]:
                rows.append((step * self.step_ms(), sum(row[column] for column in columns) / unit, int(row[count])))
        problem = self._problem(rows, f"no replica has told its {name}")
        return Series(tuple(rows), problem and (self._apart() or problem), self.step_ms())

    def _problem(self, rows: Sequence[tuple[int, float, int | None]], who: str) -> str:
        """Why there is nothing newer; empty when the newest is as new as it can be."""
        now_ms = self._now_ms()
        if not rows:
            return f"{who} yet"
        age_ms = now_ms - rows[-1][0]
        return f"{who} for {age_ms // 1000} s" if age_ms > 3 * self.step_ms() + LATE_MS else ""


def _sound(numbers: Sequence[float]) -> bool:
    return isfinite(sum(numbers)) and min(numbers) >= 0


def _usage_numbers(row: pb.ReplicaSample) -> Sequence[float] | None:
    """In the order of the columns, with a 1 for who speaks. Without its CPU a replica has said nothing."""
    numbers = (
        1.0, row.cpu_cores, row.throttled, row.memory_bytes, row.pids, row.rx_bytes_per_s, row.tx_bytes_per_s,
        row.read_bytes_per_s, row.write_bytes_per_s,
    )  # fmt: skip
    if _sound(numbers):
        return numbers
    return [number if _sound((number,)) else 0.0 for number in numbers] if _sound((row.cpu_cores,)) else None


def _node_numbers(row: pb.NodeSample) -> Sequence[float]:
    numbers = (
        row.cpu_cores, row.memory_bytes, row.rx_bytes_per_s, row.tx_bytes_per_s, row.read_bytes_per_s, row.write_bytes_per_s,
        row.disk_used_bytes, row.disk_bytes,
    )  # fmt: skip
    return numbers if _sound(numbers) else [number if _sound((number,)) else 0.0 for number in numbers]


def _node_row(ring: Ring, step: int) -> Sequence[float | None]:
    row = ring.row(step)
    return row[1:] if row is not None and row[0] else (None,) * len(NODE_FIELDS)
