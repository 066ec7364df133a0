"""What the node and its replicas use, measured in steps and sent on the session.

Rules: nothing is kept but the last reading; what could not be sent is lost. Reading costs about 20 us for each replica, in
portions, so that nothing else of the agent waits long. A failing measurement ends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isnan, nan
from typing import Final

from agent.core.metrics_replica import read_replica
from agent.core.runner import Runner
from agent.core.scraping import EVERY_S as SCRAPE_EVERY_S
from agent.core.scraping import Scraper
from agent.network.balance_port import Traffic
from agent.plan import samples as plan
from agent.plan.records import Life, ReplicaId, sandbox_id
from agent.plan.samples import Counters, Link, MachineCounters, Moment
from model.ports import Clock
from protos import node_pb2 as pb

log = logging.getLogger(__name__)
PORTION: Final = 50
_NO_LINK: Final = Link(0, 0)
TOGETHER_S: Final = 1.0
"""Up to such steps all nodes measure when a second of the clock is over: what they tell of it is whole at once. Longer steps
are those of many nodes, which had better not all speak at the same moment."""
_AFTER_S: Final = 0.02
"""So long after it, lest the clock says it is not over yet."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything at one moment; the balancer's counts at their own."""

    at: Moment
    machine: MachineCounters
    counters: Mapping[str, Counters]
    """By container id."""
    traffic_at: Moment
    traffic: Mapping[tuple[str, str, str], Traffic]


class Sampler:
    """`async for samples in sampler.every(1.0)`: one session's; the next one begins anew."""

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._core = runner.core
        self._ports = runner.ports
        self._clock = clock
        self._scraper = Scraper(clock, partial(read_replica, runner))
        self._known: dict[str, tuple[pb.ReplicaSample, str]] = {}
        """By container id, of those that were sampled last: see `_begun`."""
        self._problem = ""

    async def every(self, seconds: float) -> AsyncGenerator[pb.Samples, None]:
        """In equal steps; a step that took too long is left out."""
        before: Reading | None = None
        due, scrape_due = self._clock.monotonic(), 0.0
        if seconds <= TOGETHER_S:
            due -= (self._clock.now() - _AFTER_S) % seconds
        scraping: asyncio.Task[None] | None = None
        try:
            while True:
                now = self._clock.monotonic()
                if now >= scrape_due and (scraping is None or scraping.done()):
                    scrape_due = now + SCRAPE_EVERY_S
                    scraping = asyncio.ensure_future(self._scraper.look(self._running(), self._core.desired.services))
                after = await self._try_read()
                if before is not None and after is not None and (found := self._samples(before, after)) is not None:
                    yield found
                before = after
                now = self._clock.monotonic()
                due += seconds * max(1, -(-(now - due) // seconds))
                await self._clock.sleep(due - now)
        finally:
            if scraping is not None:
                scraping.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await scraping

    def _running(self) -> list[Life]:
        return [life for life in self._core.lives.values() if life.stage == "running"]

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    async def _try_read(self) -> Reading | None:
        try:
            reading = await self._read()
            self._problem = ""
        except Exception as error:  # whatever it is, the session goes on
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                self._problem = problem
                log.warning("nothing was measured: %s", problem)
            return None
        return reading

    async def _read(self) -> Reading:
        at, machine = self._moment(), self._ports.machine.read()
        ids = [life.container_id for life in self._running()]
        counters: dict[str, Counters] = {}
        for begin in range(0, len(ids), PORTION):
            counters |= self._ports.runtime.sampled(ids[begin : begin + PORTION])
            await asyncio.sleep(0)
        traffic_at = self._moment()
        traffic = {(row.service_id, row.replica, row.address): row for row in await self._ports.balance.load()}
        return Reading(at, machine, counters, traffic_at, traffic)

    # ---- from two readings

    def _samples(self, before: Reading, after: Reading) -> pb.Samples | None:
        seconds = plan.passed_s(before.at, after.at)
        if isnan(seconds):
            return None
        found = pb.Samples(at_ms=round(after.at.unix_s * 1000), interval_ms=round(seconds * 1000))
        _put_machine(found.node, before.machine, after.machine, seconds)
        self._put_replicas(found, before, after, seconds)
        traffic_s = plan.passed_s(before.traffic_at, after.traffic_at)
        if not isnan(traffic_s):
            for replica, flown in _traffic(before, after, traffic_s).items():
                row = found.traffic.add()
                row.service_id, row.replica = replica
                row.connections_per_s, row.in_bytes_per_s, row.out_bytes_per_s, row.open = flown
        return found

    def _put_replicas(self, found: pb.Samples, before: Reading, after: Reading, seconds: float) -> None:
        known, self._known, rate, asks = self._known, {}, plan.rate, self._scraper.asks
        links_before, links_after = before.machine.sandboxes, after.machine.sandboxes
        for life in self._running():
            name = life.container_id
            was, now = before.counters.get(name), after.counters.get(name)
            if was is None or now is None or now.cpu_s < was.cpu_s:
                continue
            begun, links = self._known[name] = known.get(name) or _begun(life)
            row = found.replicas.add()  # all in one with keywords takes twice as long
            row.CopyFrom(begun)
            row.cpu_cores, row.memory_bytes, row.pids = rate(was.cpu_s, now.cpu_s, seconds), now.memory_bytes, now.pids
            row.read_bytes_per_s, row.write_bytes_per_s = now.read_bytes_per_s, now.write_bytes_per_s
            if now.periods != was.periods:
                row.throttled = plan.held_back(was, now)
            earlier, link = links_before.get(links, _NO_LINK), links_after.get(links, _NO_LINK)
            row.rx_bytes_per_s = rate(earlier.rx_bytes, link.rx_bytes, seconds)
            row.tx_bytes_per_s = rate(earlier.tx_bytes, link.tx_bytes, seconds)
            if asks:
                self._put_metrics(row, life.id)

    def _put_metrics(self, row: pb.ReplicaSample, replica: ReplicaId) -> None:
        for name, value in self._scraper.values(replica).items():
            row.metrics.add(name=name, value=value)
        row.metrics_problem = self._scraper.problem(replica)


def _begun(life: Life) -> tuple[pb.ReplicaSample, str]:
    """What all samples of a life begin with, and how the links of its sandbox do."""
    key = pb.ReplicaKey(service_id=life.id.service_id, slot=life.id.slot, created_ms=life.id.created_ms)
    return pb.ReplicaSample(key=key), plan.sandbox_link(sandbox_id(life.id))


def _put_machine(row: pb.NodeSample, before: MachineCounters, after: MachineCounters, seconds: float) -> None:
    row.cpu_cores = plan.rate(before.cpu_s, after.cpu_s, seconds)
    row.memory_bytes = after.memory_bytes
    row.rx_bytes_per_s = plan.rate(before.way_out.rx_bytes, after.way_out.rx_bytes, seconds)
    row.tx_bytes_per_s = plan.rate(before.way_out.tx_bytes, after.way_out.tx_bytes, seconds)
    row.read_bytes_per_s = plan.rate(before.read_bytes, after.read_bytes, seconds)
    row.write_bytes_per_s = plan.rate(before.write_bytes, after.write_bytes, seconds)
    row.disk_used_bytes, row.disk_bytes = after.disk_used_bytes, after.disk_bytes


def _traffic(before: Reading, after: Reading, seconds: float) -> dict[tuple[str, str], tuple[float, float, float, int]]:
    """By service and replica as `_flown`, of those with any. What was read once gives nothing: it may have counted for an
    earlier agent."""
    sums: dict[tuple[str, str], tuple[float, float, float, int]] = {}
    for key, row in after.traffic.items():
        was = before.traffic.get(key)
        if row.open or (was is not None and row != was):
            replica, flown = key[:2], _flown(was, row, seconds)
            if (more := sums.get(replica)) is not None:
                flown = (flown[0] + more[0], flown[1] + more[1], flown[2] + more[2], flown[3] + more[3])
            sums[replica] = flown
    return sums


def _flown(was: Traffic | None, row: Traffic, seconds: float) -> tuple[float, float, float, int]:
    """New connections, bytes to and bytes from it per second; open ones."""
    if was is None:
        return nan, nan, nan, row.open
    return (
        plan.rate(was.connections, row.connections, seconds),
        plan.rate(was.bytes_in, row.bytes_in, seconds),
        plan.rate(was.bytes_out, row.bytes_out, seconds),
        row.open,
    )
