"""The loop's timers, by time and then in the order they were asked for.

Rules: timers wait in grains of time, in no order; a grain is sorted when its time comes. One heap of the tens of thousands that
wait in a large cluster would be gone through from top to bottom for each of them, and most are cancelled before they are due.
"""

from __future__ import annotations

import heapq
from typing import Final

from sim.handles import Timer

GRAINS: Final = 256
"""In a second."""
FAR_S: Final = 1e12
"""What is due later than this is in one grain: for ever."""
Row = tuple[float, int, Timer]


class Timers:
    """`add` gives each its number. Cancelled ones are left out when their grain's time comes, or when most are like them."""

    def __init__(self) -> None:
        self._number = 0
        self._open = -1
        """The newest grain that was begun; what falls into it, or before it, goes to `_ready`."""
        self._ready: list[Row] = []
        self._grains: dict[int, list[Row]] = {}
        self._order: list[int] = []
        self._held = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return self._held

    def add(self, due: float, timer: Timer) -> None:
        self._number += 1
        self._held += 1
        row = (due, self._number, timer)
        at = int(min(FAR_S, due) * GRAINS)
        if at <= self._open:
            heapq.heappush(self._ready, row)
        elif (grain := self._grains.get(at)) is not None:
            grain.append(row)
        else:
            self._grains[at] = [row]
            heapq.heappush(self._order, at)

    def next(self) -> list[Timer]:
        """Those that are due first, all of one time, taken out; empty: none waits."""
        found: list[Timer] = []
        due = 0.0
        while True:
            ready = self._ready
            while ready and (not found or ready[0][0] == due):
                timer = heapq.heappop(ready)[2]
                timer.heap = None
                self._held -= 1
                if timer.call is None:
                    self._cancelled -= 1
                else:
                    found.append(timer)
                    due = timer.due
            if found or not self._order:
                return found
            self._begin()

    def _begin(self) -> None:
        """The next grain."""
        self._open = heapq.heappop(self._order)
        self._ready = self._alive(self._grains.pop(self._open))
        self._ready.sort()

    def _alive(self, rows: list[Row]) -> list[Row]:
        alive = [row for row in rows if row[2].call is not None]
        self._cancelled -= len(rows) - len(alive)
        self._held -= len(rows) - len(alive)
        return alive

    def timer_cancelled(self) -> None:
        """A timer's, while it waits here."""
        self._cancelled += 1
        if self._cancelled > 100 and 2 * self._cancelled > self._held:
            self._ready = self._alive(self._ready)
            heapq.heapify(self._ready)
            for at, rows in self._grains.items():
                self._grains[at] = self._alive(rows)
