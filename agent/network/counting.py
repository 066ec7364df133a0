"""What the load balancer's table has counted, read in threads: connections, packets, bytes, and how many connections are open.

Rules: synchronous. Open connections are looked at every other second, which halves what that costs; where nothing went to and
fro since the last look none has opened or ended, and nothing is read again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from agent.network.balance_port import Traffic
from agent.plan.balance import Row
from agent.plan.balance_book import FLOWS
from agent.plan.balance_rules import TABLE
from agent.plan.open_count import Counts, OpenCount
from agent.plan.pace import rest_s
from model.errors import RuntimeFailed
from model.ports import Clock

log = logging.getLogger(__name__)
LOOK_EVERY_S: Final = 1.5
"""At least: with what measures every second it is every other time."""
_NO_COUNT: Final = (0, 0)
_TABLE_NAME: Final = TABLE.split()[1]

Flows = tuple[Counts, Counts, Counts]
"""New connections, what goes to replicas, and what comes from them: packets and bytes by address."""
Turned = tuple[Counts, Counts]
"""Connections that opened and that ended."""


class Sets(Protocol):
    """What is needed of `agent.network.nft.Nft`."""

    def counts(self, table: str, name: str) -> dict[str, tuple[int, int]]: ...


class Table(Protocol):
    """What is needed of `agent.network.nfnl.Conntrack`."""

    def balanced(self, *, six: bool) -> dict[str, int]: ...


class Counting:
    """`flows`, and with them `still_open`."""

    def __init__(self, sets: Sets, conntrack: Table, clock: Clock) -> None:
        self._sets = sets
        self._conntrack = conntrack
        self._clock = clock
        self._lock = threading.Lock()
        self._open = OpenCount()
        self._known: Mapping[str, int] = {}
        self._flows: Flows | None = None
        self._turned: Turned = ({}, {})
        self._passed_at: Counts | None = None
        """What had been opened at the last pass."""
        self._next_look_s = self._next_pass_s = 0.0

    def flows(self, six: bool) -> Flows:
        """`six`: of IPv6 addresses, too."""
        begun, to, back = (self._read(name, six) for name in FLOWS)
        return begun, to, back

    def still_open(self, flows: Flows, six: bool) -> Mapping[str, int]:
        """Addresses with open connections, when `flows` has just been read."""
        with self._lock:  # of two sessions the older may be at it still
            now = self._clock.monotonic()
            if flows != self._flows and now >= self._next_look_s:
                self._flows, self._turned = flows, self._read_turned(six)
                self._known = self._open.take(*self._turned)
                self._next_look_s = now + LOOK_EVERY_S
            if now >= self._next_pass_s and (self._known or self._turned[0] != self._passed_at):
                self._pass(six)
            return self._known

    def _pass(self, six: bool) -> None:
        """Its cost is CPU seconds of this thread: on a busy machine it takes longer than it works."""
        before, begin = self._turned, time.thread_time()
        try:
            found = self._conntrack.balanced(six=six)
        except (RuntimeFailed, OSError) as error:
            log.warning("open connections cannot be compared with the kernel's: %s", error)
            return
        finally:
            self._next_pass_s = self._clock.monotonic() + rest_s(time.thread_time() - begin)
        self._turned = self._read_turned(six)
        self._passed_at = self._turned[0]
        self._open.correct(before, self._turned, found)
        self._known = self._open.take(*self._turned)

    def _read_turned(self, six: bool) -> Turned:
        """Those that ended are read first: what opens and ends meanwhile is open until the next look, not one too few."""
        ended = self._read("ended", six)
        return self._read("opened", six), ended

    def _read(self, name: str, six: bool) -> Counts:
        return self._read_one(name) | (self._read_one(f"{name}6") if six else {})

    def _read_one(self, name: str) -> dict[str, tuple[int, int]]:
        try:
            return self._sets.counts(_TABLE_NAME, name)
        except RuntimeFailed:  # somebody removed the table; it is back soon
            return {}


def summed(rows: Mapping[str, Row], flows: Flows, still_open: Mapping[str, int]) -> Iterator[Traffic]:
    """One row for each replica, of its addresses of both families together."""
    by_replica: dict[Row, list[str]] = {}
    for address, row in rows.items():
        by_replica.setdefault(row, []).append(address)
    begun, to, back = flows
    for row, addresses in by_replica.items():
        connections = packets_in = bytes_in = packets_out = bytes_out = open_now = 0
        for address in addresses:
            connections += begun.get(address, _NO_COUNT)[0]
            packets, size = to.get(address, _NO_COUNT)
            packets_in, bytes_in = packets_in + packets, bytes_in + size
            packets, size = back.get(address, _NO_COUNT)
            packets_out, bytes_out = packets_out + packets, bytes_out + size
            open_now += still_open.get(address, 0)
        yield Traffic(*row, connections, packets_in, bytes_in, packets_out, bytes_out, open_now)
