"""`x-priority` of a service, on itself or below its `deploy`: a whole number, 0 when there is none.

Rules: as in `check`. Text is taken as a number: that is how a variable comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model.compose.problems import Report, show
from model.compose.scalars import parse_int
from model.compose.tree import mark_of
from model.spec import PRIORITY_MAX

PRIORITY: Final = "x-priority"


def priority_of(service: Mapping[str, Any]) -> int:
    """The priority of a service that was checked."""
    return next((number for _, row in _places(service) if (number := _read(row[PRIORITY])) is not None), 0)


def check_priority(service: Mapping[str, Any], at: str, report: Report) -> None:
    places = _places(service)
    for path, row in places:
        number = _read(row[PRIORITY])
        if number is None or not -PRIORITY_MAX <= number <= PRIORITY_MAX:
            message = f"found {show(row[PRIORITY])}, expected a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
            report.problem(f"{at}.{path}{PRIORITY}", message, mark_of(row, PRIORITY))
    numbers = [_read(row[PRIORITY]) for _, row in places]
    if len(numbers) == 2 and numbers[0] != numbers[1] and None not in numbers:
        message = f"found {numbers[0]}, but deploy.{PRIORITY} says {numbers[1]}"
        report.problem(f"{at}.{PRIORITY}", message, mark_of(service, PRIORITY))


def _places(service: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    rows = (("", service), ("deploy.", service.get("deploy") or {}))
    return [(path, row) for path, row in rows if PRIORITY in row]


def _read(value: Any) -> int | None:
    """The number; None when it is none."""
    parsed: Any = parse_int(value) if isinstance(value, str) else value
    return parsed if isinstance(parsed, int) and not isinstance(parsed, bool) else None
