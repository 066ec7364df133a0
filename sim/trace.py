"""Every step of a run as a line: one digest of them all, and the last lines of each object for the story of a failure."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

from sim.loop import VirtualLoop

BATCH: Final = 512
"""Lines digested at once."""


class Trace:
    """`add(kind, about, text)`: this happened to `about` now. Nothing is added any more once the loop is closed."""

    def __init__(self, loop: VirtualLoop, keep: int = 400) -> None:
        self.lines = 0
        self._loop = loop
        self._keep = keep
        self._sum = hashlib.sha256()
        self._new: list[str] = []
        self._recent: deque[str] = deque(maxlen=keep)
        self._stories: dict[str, deque[str]] = {}

    def add(self, kind: str, about: str, text: str = "") -> None:
        if self._loop.over:
            return
        line = f"{self._loop.time():.6f} {kind} {about} {text}"
        self.lines += 1
        self._recent.append(line)
        story = self._stories.get(about)
        if story is None:
            story = self._stories[about] = deque(maxlen=self._keep)
        story.append(line)
        self._new.append(line)
        if len(self._new) >= BATCH:
            self._digest()

    def sha256(self) -> str:
        """Of all lines up to now, each ended by a line feed; in hexadecimal."""
        self._digest()
        return self._sum.hexdigest()

    def story(self, about: str) -> list[str]:
        """The last lines about this object, oldest first."""
        return [*self._stories.get(about, ())]

    def recent(self) -> list[str]:
        """The last lines about anything, oldest first."""
        return [*self._recent]

    def _digest(self) -> None:
        if self._new:
            self._new.append("")
            self._sum.update("\n".join(self._new).encode())
            self._new.clear()
