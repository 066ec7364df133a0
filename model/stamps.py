"""Moments as Docker and its tools read them."""

from __future__ import annotations

from datetime import datetime


def utc_text(moment: datetime, timespec: str = "auto") -> str:
    """RFC 3339 with `Z` for a moment in UTC; `timespec` as `datetime.isoformat` has it."""
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
