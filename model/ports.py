"""The ports: everything the pure core needs from outside, as Protocols.

Rules: each port has one real and one in-memory implementation that pass the same contract tests. Nothing in a decision
calls a port; shells do. Seconds are floats; `now` is Unix time so that it can be stored.
"""

from __future__ import annotations

from typing import Protocol

from model.store_port import (
    Delete,
    DeletePrefix,
    Entry,
    Guard,
    Listing,
    Op,
    Put,
    Store,
    TxnResult,
    WatchBatch,
)

__all__ = [
    "Clock", "Delete", "DeletePrefix", "Entry", "Guard", "Listing", "Op", "Put", "Random", "Store",
    "TxnResult", "WatchBatch",
]  # fmt: skip


class Clock(Protocol):
    """Time. `now` is Unix time in seconds, `monotonic` never goes back."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Random(Protocol):
    """Randomness: ids and jitter."""

    def token_hex(self, nbytes: int) -> str: ...

    def uniform(self, low: float, high: float) -> float: ...
