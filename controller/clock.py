"""The real clock and the real randomness behind the ports."""

from __future__ import annotations

import asyncio
import random
import secrets
import time


class RealClock:
    """Implements model.ports.Clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RealRandom:
    """Implements model.ports.Random. Ids and secrets come from the kernel, jitter need not."""

    def token_hex(self, nbytes: int) -> str:
        return secrets.token_hex(nbytes)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)
