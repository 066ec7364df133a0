"""Chance from one seed: a stream of its own for each purpose, so that one draw more here shifts nothing there."""

from __future__ import annotations

import hashlib
import random


class Chance:
    """`stream(name)`: the same object for the same name, so that what starts again does not draw the same again."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, random.Random] = {}

    def stream(self, name: str) -> random.Random:
        found = self._streams.get(name)
        if found is None:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            found = self._streams[name] = random.Random(int.from_bytes(digest))
        return found
