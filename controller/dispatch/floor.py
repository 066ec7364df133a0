"""How far all sessions follow the endpoints, and who waits to hear it. Pure: time comes in.

Rules: a session is behind from the change it was not told yet until it has acknowledged what it was told. The floor is the
lowest number that one of those still follows, the newest number when none is behind; it never falls. Who stays behind for
`LATE_S` without a word, or whose node is no longer ready, holds nobody up until it acknowledges or is ready again: no drain
waits for ever.
An acknowledgement costs O(log sessions).
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Final

from controller.dispatch.session import NodeSession

LATE_S: Final = 5.0


class FloorBook:
    """`settle` after each change of anything else."""

    def __init__(self, late_s: float = LATE_S) -> None:
        self._late_s = late_s
        self._behind: dict[NodeSession, tuple[int, float]] = {}
        """What it follows and since when: in the order of `since`."""
        self._lowest: list[tuple[int, int, NodeSession]] = []
        self._owed: list[tuple[int, int, NodeSession]] = []
        self._excused: set[NodeSession] = set()
        self._order = count()
        self.number = 0

    def fell_behind(self, session: NodeSession, follows: int, now_s: float) -> None:
        """There is news for it; until now it followed everything up to `follows`."""
        if session not in self._behind and session not in self._excused:
            self._enter(session, follows, now_s)

    def counts(self, session: NodeSession, now_s: float) -> None:
        """It has acknowledged something, or its node is ready again; `session` says how far it is."""
        back = session in self._excused
        self._excused.discard(session)
        if session.current():
            self._behind.pop(session, None)
        elif back or (session in self._behind and session.acked > self._behind[session][0]):
            self._behind.pop(session, None)
            self._enter(session, session.acked, now_s)

    def said(self, session: NodeSession) -> None:
        """It was told what there was to tell; that may have been nothing."""
        if session.current():
            self._behind.pop(session, None)

    def excuse(self, session: NodeSession) -> None:
        """Nobody waits for it any more until it `counts` again."""
        self._behind.pop(session, None)
        self._excused.add(session)

    def gone(self, session: NodeSession) -> None:
        self._behind.pop(session, None)
        self._excused.discard(session)

    def owe(self, session: NodeSession, number: int) -> None:
        """It wants to hear when the floor has reached `number`."""
        heappush(self._owed, (number, next(self._order), session))

    def settle(self, newest: int, now_s: float) -> list[NodeSession]:
        """Moves the floor; the sessions that have to be told of it now (`session.floor`)."""
        while self._behind:
            session, (_, since_s) = next(iter(self._behind.items()))
            if now_s < since_s + self._late_s:
                break
            self.excuse(session)
        self.number = max(self.number, self._reached(newest))
        told: dict[NodeSession, None] = {}
        while self._owed and self._owed[0][0] <= self.number:
            session = heappop(self._owed)[2]
            session.floor = self.number
            told[session] = None
        return list(told)

    def wake_at_s(self) -> float | None:
        """When `settle` excuses the next one; None: nobody is behind."""
        first = next(iter(self._behind.values()), None)
        return None if first is None else first[1] + self._late_s

    def _enter(self, session: NodeSession, follows: int, now_s: float) -> None:
        self._behind[session] = (follows, now_s)
        heappush(self._lowest, (follows, next(self._order), session))

    def _reached(self, newest: int) -> int:
        while self._lowest:
            follows, _, session = self._lowest[0]
            if self._behind.get(session, (-1, 0.0))[0] == follows:
                return follows
            heappop(self._lowest)
        return newest
