"""The ports Clock and Random on the virtual loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Final

from sim.loop import VirtualLoop

EPOCH_S: Final = 1_767_225_600.0
"""2026-01-01 00:00 UTC."""


class SimClock:
    """One machine's clock: `jump` sets its Unix time forward or back, as an operator or NTP does; waits do not notice."""

    def __init__(self, loop: VirtualLoop, epoch_s: float = EPOCH_S) -> None:
        self.offset = 0.0
        self._loop = loop
        self._epoch_s = epoch_s

    def now(self) -> float:
        return self._epoch_s + self._loop.time() + self.offset

    def monotonic(self) -> float:
        return self._loop.time()

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        self.offset += seconds


class SimRandom:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_hex(self, nbytes: int) -> str:
        return self._rng.randbytes(nbytes).hex()

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)
