"""A load from a file: CSV, also gzipped, with a column of times, as units of demand for each second.

Rules: three kinds are told apart by what is in them. Records of intervals (a count per minute) become a rate that holds until
the next record. Records by the second are added up. Rows without a column of demand are arrivals, one each. A stretch without a
record has no demand. What cannot be read is said with file and line.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Final, TextIO

from model.errors import BadInput
from sim.replay import made

MADE: Final = "made:"
DEMAND: Final = frozenset({"value", "requests", "request_count", "count", "demand", "load", "rps", "connections", "hits"})
SECONDS_MAX: Final = 400 * 86_400
_MS_FROM: Final = 1e11
_GAP: Final = 2.5
"""A record counts for so many usual intervals at most."""

_EXAMPLE: Final = "2024-05-01 12:00:00,338"
_POLICY: Final = re.compile(r"['\"]?(services|x-autoscale|metrics)['\"]?\s*:")

Row = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Load:
    """`demand`: units in each second from `start_ms` (Unix) on; `how`: what was made of the file, in words."""

    name: str
    demand: Sequence[float]
    start_ms: int = 0
    how: str = ""

    @property
    def mean(self) -> float:
        return sum(self.demand) / len(self.demand)


def load_of(word: str, column: str = "") -> Load:
    """The load of a file, or a made one: `made:spikes`, `made:spikes/7` (its seed). Raises BadInput."""
    return _made(word) if word.startswith(MADE) else read_load(Path(word), column)


def busiest(load: Load, hours: float) -> Load:
    """So many hours of it, those with most demand; all of it when it is no longer."""
    length = max(1, int(hours * 3600))
    if length >= len(load.demand):
        return load
    best = now = sum(load.demand[:length])
    first = 0
    for second in range(length, len(load.demand)):
        now += load.demand[second] - load.demand[second - length]
        if now > best:
            best, first = now, second - length + 1
    how = f"{load.how}; the busiest {hours:g} h"
    return replace(load, demand=load.demand[first : first + length], start_ms=load.start_ms + first * 1000, how=how)


def _made(word: str) -> Load:
    kind, _, seed = word.removeprefix(MADE).partition("/")
    if kind not in made.KINDS or not (seed or "1").isdecimal():
        raise BadInput(f"{word}: expected {MADE}KIND or {MADE}KIND/SEED, with one of {', '.join(made.KINDS)}")
    return Load(word, made.load(kind, int(seed or 1)), 0, "a day made from a seed, by the second")


def read_load(path: Path, column: str = "") -> Load:
    """The load of a file. `column`: whose values are the demand; empty: found by its name. Raises BadInput."""
    try:
        with _opened(path) as file:
            rows, what = _rows(path, file, column)
    except BadInput:
        _refuse_policy(path)
        raise
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}: expected CSV, plain or gzipped") from error
    if not rows:
        _refuse_policy(path)
        raise BadInput(f"{path}: no record in it: expected rows such as {_EXAMPLE}")
    rows.sort(key=lambda row: row[0])
    length = int(rows[-1][0]) - int(rows[0][0])
    if length > SECONDS_MAX:
        raise BadInput(f"{path}: spans {length // 86_400:,} days: at most {SECONDS_MAX // 86_400} can be replayed")
    gap = median(after[0] - row[0] for row, after in pairwise(rows)) if len(rows) > 1 else 1.0
    if what == "arrivals" or gap < 2:
        return Load(path.name, _counted(rows), int(rows[0][0]) * 1000, f"{what}, added up by the second")
    how = f"{what} of {gap:g} s, as a rate that holds until the next"
    return Load(path.name, _held(rows, gap), int(rows[0][0]) * 1000, how)


def _refuse_policy(path: Path) -> None:
    """Of a file that is no load: the usual slip is to name the Compose file in its place. Raises BadInput for one."""
    found = ""
    with suppress(OSError, EOFError, UnicodeDecodeError, zlib.error):
        if path.is_file():  # what was read from a pipe is gone
            with _opened(path) as file:
                found = next((match[1] for line in file if (match := _POLICY.match(line))), "")
    if found:
        what = "a Compose file" if found == "services" else "a policy"
        trace = f"a trace is CSV, a time and a demand in each row, such as {_EXAMPLE}"
        raise BadInput(f"{path}: looks like {what}: {trace}; write: shoal autoscale replay TRACE --policy {path}")


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(path: Path, file: TextIO, column: str) -> tuple[list[Row], str]:
    """(time in seconds, units) of each record, and what they are."""
    lines: Iterable[tuple[int, list[str]]] = enumerate(csv.reader(file), 1)
    first = next((row for row in lines if row[1]), None)
    if first is None:
        return [], ""
    header = [cell.strip().lower() for cell in first[1]]
    if _time(first[1][0]) is not None:
        lines, header = chain([first], lines), []
    index = _demand_column(path, header, len(first[1]), column)
    rows = list(_values(path, lines, index))
    what = "arrivals" if index is None else f"records ({header[index]})" if header else "records"
    return rows, what


def _demand_column(path: Path, header: Sequence[str], width: int, column: str) -> int | None:
    """Which column holds the demand; None: each row is one arrival."""
    if column:
        if column.lower() not in header:
            known = ", ".join(header[1:]) or "none, it has no heading"
            raise BadInput(f"{path}: no column {column!r}: there are {known}")
        return header.index(column.lower())
    named = [index for index, name in enumerate(header) if index and name in DEMAND]
    return named[0] if named else 1 if width == 2 else None


def _values(path: Path, lines: Iterable[tuple[int, list[str]]], index: int | None) -> Iterator[Row]:
    for number, line in lines:
        if not line:
            continue
        at = _time(line[0])
        if at is None:
            raise BadInput(f"{path}:{number}: {line[0][:40]!r} is no time: expected 2024-05-01 12:00:00, or Unix seconds")
        units = 1.0 if index is None else _number(line[index]) if index < len(line) else None
        if units is None:
            raise BadInput(f"{path}:{number}: expected a number of units from 0 up in column {(index or 0) + 1}")
        yield at, units


def _time(cell: str) -> float | None:
    """Unix seconds; also of Unix milliseconds. Without a time zone: UTC."""
    number = _number(cell)
    if number is not None:
        return number / 1000 if number >= _MS_FROM else number
    try:
        found = datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _counted(rows: Sequence[Row]) -> list[float]:
    first = int(rows[0][0])
    found = [0.0] * (int(rows[-1][0]) - first + 1)
    for at, units in rows:
        found[int(at) - first] += units
    return found


def _held(rows: Sequence[Row], gap: float) -> list[float]:
    first = int(rows[0][0])
    found = [0.0] * (int(rows[-1][0] + gap) - first)
    for (at, units), (after, _) in zip(rows, [*rows[1:], (rows[-1][0] + gap, 0.0)], strict=True):
        if after <= at:
            continue
        until = after if after - at <= _GAP * gap else at + gap
        begin, end = int(at) - first, int(until) - first
        found[begin:end] = [units / (until - at)] * (end - begin)
    return found
