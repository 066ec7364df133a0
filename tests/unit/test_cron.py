"""Crontab lines and time zones: what they name, and what is said of those that name nothing."""

from datetime import UTC, datetime

import pytest

from model.cron import parse_cron, time_zone
from model.errors import BadInput


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("0 8 * * 1-5", "2026-11-23 08:00", "2026-11-22 08:00"),
        ("0 8 * * mon-fri", "2026-11-23 08:00", "2026-11-23 08:01"),
        ("*/15 9-17/4 * * *", "2026-11-22 13:45", "2026-11-22 14:45"),
        ("30 0 1,15 feb *", "2026-02-15 00:30", "2026-03-15 00:30"),
        ("0 0 * * 7", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("0 0 1 * sun", "2026-11-22 00:00", "2026-11-24 00:00"),  # either of the two is enough
        ("0 0 1 * sun", "2026-12-01 00:00", "2026-12-02 00:00"),
        ("0 0 1 * *", "2026-12-01 00:00", "2026-12-02 00:00"),
    ],
)
def test_a_line_names_its_minutes_and_no_others(text: str, yes: str, no: str) -> None:
    cron = parse_cron(text)
    for day, named in ((datetime.fromisoformat(yes), True), (datetime.fromisoformat(no), False)):
        assert (day.minute in cron.minutes and day.hour in cron.hours and cron.on(day)) == named


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *", "5-1 * * * *",
     "*/0 * * * *", "1,,2 * * * *", "-1 * * * *", "1.5 * * * *", "* * * foo *", "٣ * * * *", "9" * 5000 + " * * * *"],
)  # fmt: skip
def test_what_is_no_line_says_so_in_one(text: str) -> None:
    with pytest.raises(BadInput, match="cron ") as caught:
        parse_cron(text)
    assert len(str(caught.value)) < 300


def test_time_zones_by_name() -> None:
    assert time_zone("UTC") is UTC
    winter = datetime(2026, 1, 1, 12, tzinfo=time_zone("Europe/Berlin"))
    assert winter.utcoffset() != winter.replace(month=7).utcoffset()
    for name in ("", "Nowhere/City", "../etc/passwd", "/etc/passwd", "Europe", "a\0b"):
        with pytest.raises(BadInput, match="time zone"):
            time_zone(name)
