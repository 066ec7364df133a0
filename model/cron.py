"""Times a crontab line names, `0 8 * * 1-5`, and time zones by name.

Rules: five fields (minute, hour, day of the month, month, day of the week with 0 and 7 as Sunday), each `*`, numbers, ranges,
steps (`*/15`, `9-17/2`) or a list of these; months and days of the week also by their first three letters. As in crontab, a
day matches when either of its two fields does, if both are said. What cannot be read raises BadInput with one line. The only
I/O is the machine's table of time zones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from model.errors import BadInput

_TEXT_MAX: Final = 200
_PART: Final = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))


@dataclass(frozen=True, slots=True)
class Cron:
    """`weekdays`: 0 is Sunday. `either`: both day fields are said, so one of them is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False

    def on(self, day: datetime) -> bool:
        """Whether it names a time on that day."""
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (in_month or in_week) if self.either else (in_month and in_week)


def parse_cron(text: str) -> Cron:
    """Raises BadInput."""
    fields = text.split() if len(text) <= _TEXT_MAX else []
    if len(fields) != len(_FIELDS):
        raise BadInput(f"cron {text[:80]!r}: expected five fields: minute, hour, day, month, day of the week, as 0 8 * * 1-5")
    minutes, hours, days, months, weekdays = (
        _field(text, field, *row) for field, row in zip(fields, _FIELDS, strict=True)
    )  # fmt: skip
    if fields[4].startswith("*") and min(days) > max(_LONGEST[month] for month in months):
        raise BadInput(f"cron {text!r}: no month that it names has a day {min(days)}: it would never begin")
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)


def time_zone(name: str) -> tzinfo:
    """`Europe/Lisbon`. Raises BadInput. UTC is there also on a machine without a table."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadInput(f"time zone {name[:80]!r}: there is none of this name: expected one such as Europe/Lisbon") from None


def _field(text: str, field: str, what: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise BadInput(f"cron {text!r}: {what} {part!r}: expected *, a number, a range such as 1-5, or a step such as */15")
        first = _number(match[1], what) if match[1] else low
        last = _number(match[2], what) if match[2] else high if match[1] is None or match[3] else first
        step = int(match[3]) if match[3] else 1
        if first is None or last is None or not low <= first <= last <= high or not 1 <= step <= high:
            raise BadInput(f"cron {text!r}: {what} {part!r}: expected numbers from {low} to {high}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(word: str, what: str) -> int | None:
    if word.isdecimal():
        return int(word) if len(word) <= 4 else None
    names = _MONTHS if what == "month" else _DAYS if what == "day of the week" else ()
    word = word.lower()
    return names.index(word) + (what == "month") if word in names else None
