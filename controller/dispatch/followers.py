"""Keeps the floor while a controller leads: who falls behind, who follows again, who is told, who has been late for too long.

Rules: what counts as behind stands in floor.py; here are only the clock and the one timer that it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.dispatch.floor import LATE_S, FloorBook
from controller.dispatch.session import NodeSession
from model.ports import Clock


class Followers:
    """`open` and `shut` with the reign; `settle` after each change of anything. `newest`: the number of the newest change."""

    def __init__(self, clock: Clock, newest: Callable[[], int], late_s: float = LATE_S) -> None:
        self._clock = clock
        self._newest = newest
        self._late_s = late_s
        self._floor = FloorBook(late_s)
        self._leads = False
        self._late: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._floor = FloorBook(self._late_s)
        self._leads = True

    def shut(self) -> None:
        self._leads = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def settle(self) -> None:
        """Tells those who wait how far everybody follows; asks again when somebody has been late for long enough."""
        if not self._leads:
            return
        now_s = self._clock.monotonic()
        for session in self._floor.settle(self._newest(), now_s):
            session.wake.set()
        at_s = self._floor.wake_at_s()
        if at_s is not None and self._late is None:
            self._late = asyncio.get_running_loop().call_later(max(0.0, at_s - now_s), self._somebody_is_late)

    def came(self, session: NodeSession) -> None:
        """It knows nothing yet."""
        self.fell_behind(session, 0)

    def fell_behind(self, session: NodeSession, follows: int) -> None:
        """There is news for it; until now it followed everything up to `follows`."""
        self._floor.fell_behind(session, follows, self._clock.monotonic())

    def was_told(self, session: NodeSession, whole: bool) -> None:
        """Everything there is for it is being sent. Who lost an endpoint of its own waits for the floor; of something `whole`,
        what is not in it any more may have been."""
        if session.lost or whole:
            self._floor.owe(session, max(session.lost, session.told))
            session.lost = 0
        self._floor.said(session)

    def acknowledged(self, session: NodeSession, number: int) -> None:
        session.take_ack(number)
        self._floor.counts(session, self._clock.monotonic())
        self.settle()

    def ready(self, session: NodeSession, is_ready: bool) -> None:
        """Its node's health has changed: nobody waits for one that is not ready."""
        if is_ready:
            self._floor.counts(session, self._clock.monotonic())
        else:
            self._floor.excuse(session)

    def gone(self, session: NodeSession) -> None:
        self._floor.gone(session)

    def _somebody_is_late(self) -> None:
        self._late = None
        self.settle()
