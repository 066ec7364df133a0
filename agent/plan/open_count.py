"""How many connections are open to each address: what the tables counted as opened, less what they counted as ended.

Rules: pure. That misses connections that went without a word (the kernel gave them up, or somebody deleted them) and those of
before the counts began. So it is compared with a pass over the kernel's own table now and then, and goes on from there. A
pass takes a moment, in which connections come and go: a difference that those explain changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Counts = Mapping[str, tuple[int, int]]
"""By address: how many, and their bytes."""
_NONE: Final = (0, 0)


class OpenCount:
    """`take` what the tables say; `correct` with what a pass found between two readings of them."""

    def __init__(self) -> None:
        self._missed: dict[str, int] = {}
        """What has to be added to opened less ended."""

    def take(self, opened: Counts, ended: Counts) -> dict[str, int]:
        """Addresses with any, and how many. Fewer than none there cannot be: their counts began anew, and what was known before
        is over."""
        found = {}
        for address, (begun, _) in opened.items():
            over = ended.get(address, _NONE)[0]
            now = begun - over + self._missed.get(address, 0)
            if now > 0:
                found[address] = now
            elif now < 0:
                self._missed.pop(address, None)
        return found

    def correct(self, before: tuple[Counts, Counts], after: tuple[Counts, Counts], passed: Mapping[str, int]) -> None:
        """`before`, `after`: opened and ended; `passed`: by address, how many are open in the kernel's table."""
        missed = {}
        for address, (begun, _) in after[0].items():
            over = after[1].get(address, _NONE)[0]
            moved = abs(begun - before[0].get(address, _NONE)[0]) + abs(over - before[1].get(address, _NONE)[0])
            found = passed.get(address, 0) - (begun - over)
            known = self._missed.get(address, 0)
            if abs(found - known) <= moved:
                found = known
            if found:
                missed[address] = found
        self._missed = missed
