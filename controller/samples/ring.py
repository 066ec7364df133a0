"""Rows of numbers over time, in one array.

Rules: a row for each step of time (its number is the time of its end divided by the step's length), in order and without gaps;
what nobody wrote is zero. The oldest rows go when there are more than are kept, which is less the more rings there are.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, Generic, Literal, TypeVar

NOWHERE: Final = -1
KEYS_MAX: Final = 300_000
"""Rings of a table; more is nonsense."""
K = TypeVar("K")


class Ring:
    """`first` is the step of the oldest row; `values` holds `width` numbers of each row, one row after the other."""

    __slots__ = ("first", "values", "width")

    def __init__(self, width: int, kind: Literal["d", "f"] = "d") -> None:
        self.width = width
        self.first = 0
        self.values: array[float] = array(kind)

    @property
    def end(self) -> int:
        """The step after the newest row."""
        return self.first + len(self.values) // self.width

    def place(self, step: int, kept: int) -> int:
        """Where the step's row begins in `values`, made if it is new; NOWHERE for a step older than the oldest row."""
        ahead = step - self.end
        if ahead >= 0:
            self._extend(step, ahead + 1, kept)
        elif step < self.first:
            return NOWHERE
        return (step - self.first) * self.width

    def _extend(self, step: int, more: int, kept: int) -> None:
        rows = len(self.values) // self.width
        if not rows or more >= kept:
            self.first, self.values, more = step, self.values[:0], 1
        elif rows + more > kept + kept // 4:  # not with every row
            gone = rows + more - kept
            del self.values[: gone * self.width]
            self.first += gone
        self.values.frombytes(bytes(more * self.width * self.values.itemsize))

    def add(self, step: int, column: int, numbers: Sequence[float], kept: int) -> None:
        """To the step's row, from `column` on."""
        begin = self.place(step, kept)
        if begin == NOWHERE:
            return
        values = self.values
        for place, number in enumerate(numbers, begin + column):
            values[place] += number

    def row(self, step: int) -> Sequence[float] | None:
        """None: there is no such row."""
        if not self.first <= step < self.end:
            return None
        begin = (step - self.first) * self.width
        return self.values[begin : begin + self.width]

    def stretched(self, old_s: int, new_s: int) -> Ring:
        """The same rows in steps of another length: each new one is the old one that holds its end."""
        made = Ring(self.width)
        made.values = self.values[:0]
        steps = range((self.first - 1) * old_s // new_s + 1, (self.end - 1) * old_s // new_s + 1) if self.values else range(0)
        for step in steps:
            made.values.extend(self.row(-(-step * new_s // old_s)) or ())
        made.first = steps.start if steps else 0
        return made


class Table(Generic[K]):
    """Rings of one shape. `rows_max`: of all of them together, but for the least that each keeps."""

    def __init__(self, width: int, rows_max: int, kept: int, kind: Literal["d", "f"] = "d") -> None:
        self._width, self._rows_max, self._kept, self._kind = width, rows_max, kept, kind
        self._rings: dict[K, Ring] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._rings

    def get(self, key: K) -> Ring | None:
        return self._rings.get(key)

    def add(self, key: K, column: int, numbers: Sequence[float], steps: range) -> None:
        ring = self._rings.get(key)
        if ring is None:
            if len(self._rings) >= KEYS_MAX:
                return
            ring = self._rings[key] = Ring(self._width, self._kind)
        for step in steps:
            ring.add(step, column, numbers, self._kept)

    def tend(self, oldest: int, kept: int, least: int) -> None:
        """Rings that end before `oldest` go; of each at most `kept` rows stay, of very many fewer, but `least`."""
        for key in [key for key, ring in self._rings.items() if ring.end <= oldest]:
            del self._rings[key]
        self._kept = min(kept, max(least, self._rows_max // max(1, len(self._rings))))

    def stretch(self, old_s: int, new_s: int) -> None:
        self._rings = {key: ring.stretched(old_s, new_s) for key, ring in self._rings.items()}
