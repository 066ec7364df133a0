"""One direction of a connection: what is sent arrives whole and in order, later, or not at all.

Rules: everything here is the world's doing (kernels and cables): it goes on while the processes at both ends are paused or
dead. A cut way loses packets; the sender's kernel resends them after 0.2, 0.6, 1.4, ... s, so what was sent arrives some time
after the way is whole again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sim.loop import VirtualLoop

LOW_S: Final = 0.0002
SPAN_S: Final = 0.0008
"""A calm way takes from LOW_S to LOW_S + SPAN_S."""
RESEND_S: Final = 0.2
RESEND_MAX_S: Final = 60.0
WINDOW: Final = 64
"""Messages on the way or unread before a writer has to wait."""


@dataclass(frozen=True, slots=True)
class End:
    """Why nothing more comes. `clean`: the other side closed the stream; what came before may still be read."""

    why: str
    clean: bool = False


GONE: Final = End("cannot be reached (connection reset)")

class Weather:
    """How long ways take. `slow`: place -> more seconds, from and to it, lowest and highest. `lossy`: place -> rate of loss."""

    def __init__(self) -> None:
        self.slow: dict[str, tuple[float, float]] = {}
        self.lossy: dict[str, float] = {}

    def delay_s(self, rng: random.Random, source: str, target: str) -> float:
        delay = LOW_S + SPAN_S * rng.random()
        if self.slow or self.lossy:
            for place in (source, target):
                if (more := self.slow.get(place)) is not None:
                    delay += rng.uniform(*more)
                if (rate := self.lossy.get(place)) is not None:
                    delay += _resent_after(rng, rate)
        return delay


def _resent_after(rng: random.Random, rate: float) -> float:
    late, wait = 0.0, RESEND_S
    while rng.random() < rate and late < RESEND_MAX_S:
        late, wait = late + wait, wait * 2
    return late


class Pipe:
    """From `source` to `target`. `cut`: nothing gets through now. `open`: somebody would take what arrives. `end`: what the
    receiver has seen of the end. `on_end` is called when the end arrives."""

    __slots__ = (
        "_due", "_loop", "_reader", "_rng", "_room", "_stalled", "_stalled_at", "_weather",
        "cut", "end", "inbox", "on_end", "open", "source", "target", "unread",
    )  # fmt: skip

    def __init__(
        self, loop: VirtualLoop, weather: Weather, rng: random.Random, source: str, target: str, on_end: Callable[[], None]
    ) -> None:
        self.source = source
        self.target = target
        self.cut = False
        self.open = True
        self.end: End | None = None
        self.inbox: deque[bytes] = deque()
        self.unread = 0
        self.on_end = on_end
        self._loop = loop
        self._weather = weather
        self._rng = rng
        self._due = 0.0
        self._stalled: deque[bytes | End] = deque()
        self._stalled_at = 0.0
        self._reader: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []

    # ---- the sender's side

    def send(self, item: bytes | End) -> None:
        self.unread += 1
        due = self._loop.time() + self._weather.delay_s(self._rng, self.source, self.target)
        # An end comes a little later: who waits for messages has read those before it.
        least = self._due if isinstance(item, bytes) else self._due + LOW_S
        self._due = due = max(due, least)
        self._loop.call_at(due, self._arrive, item, context=self._loop.world)

    async def room(self) -> None:
        """Until the receiver's window has room, or there is no receiver any more."""
        while self.unread >= WINDOW and self.open:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    # ---- the way

    def _arrive(self, item: bytes | End) -> None:
        if self._stalled or self.cut:
            if not self._stalled:
                self._stalled_at = self._loop.time()
            self._stalled.append(item)
        else:
            self._deliver(item)

    def mend(self) -> None:
        """What was stalled arrives with the first resend from now on."""
        self.cut = False
        if not self._stalled:
            return
        now, resend, wait = self._loop.time(), self._stalled_at, RESEND_S
        while resend < now:
            resend, wait = resend + wait, min(wait * 2, RESEND_MAX_S)
        self._loop.call_at(resend, self._resend, context=self._loop.world)

    def _resend(self) -> None:
        while self._stalled and not self.cut:
            self._deliver(self._stalled.popleft())

    def _deliver(self, item: bytes | End) -> None:
        if not self.open:
            return
        if isinstance(item, End):
            self.finish(item)
            return
        self.inbox.append(item)
        if self._reader is not None:
            _wake(self._reader)

    # ---- the receiver's side

    async def take(self) -> bytes | None:
        """The next message; None: nothing more comes, see `end`."""
        while not self.inbox:
            if self.end is not None or not self.open:
                return None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self.unread -= 1
        if self._room:
            self._make_room()
        return self.inbox.popleft()

    def finish(self, end: End) -> None:
        """The receiver sees the end now."""
        if self.end is None:
            self.end = end
            if not end.clean:
                self.inbox.clear()
            self.shut()
            self.on_end()

    def shut(self) -> None:
        """Nobody takes what arrives from now on; what has arrived may still be read."""
        self.open = False
        if self._reader is not None:
            _wake(self._reader)
        self._make_room()

    def _make_room(self) -> None:
        for waiter in self._room:
            _wake(waiter)
        self._room.clear()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
