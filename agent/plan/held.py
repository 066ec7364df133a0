"""Who waits for services that sleep. Pure: time comes in, in seconds.

Rules: a caller counts from its first packet until it has been silent for `SILENT_S`: clients ask again every few seconds, one
that was served or gave up does not.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

SILENT_S: Final = 15.0
CALLERS_MAX: Final = 10_000
"""Of one service; more are not told apart."""


class HeldBook:
    """`took` notes one packet of one caller."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[Hashable, float]] = {}

    def took(self, service_id: str, caller: Hashable, now_s: float) -> None:
        callers = self._seen.setdefault(service_id, {})
        callers.pop(caller, None)
        if len(callers) < CALLERS_MAX:
            callers[caller] = now_s

    def released(self, service_id: str) -> None:
        """It sleeps no longer."""
        self._seen.pop(service_id, None)

    def services(self) -> tuple[str, ...]:
        return tuple(self._seen)

    def waiting(self, now_s: float) -> dict[str, int]:
        """Service id -> callers; those silent for too long are forgotten."""
        for service_id, callers in [*self._seen.items()]:
            for caller in [caller for caller, seen_s in callers.items() if seen_s <= now_s - SILENT_S]:
                del callers[caller]
            if not callers:
                del self._seen[service_id]
        return {service_id: len(callers) for service_id, callers in self._seen.items()}

    def wake_at_s(self) -> float | None:
        """When the next one will have been silent for too long; None: nobody waits."""
        firsts = [next(iter(callers.values())) for callers in self._seen.values() if callers]
        return min(firsts) + SILENT_S if firsts else None
