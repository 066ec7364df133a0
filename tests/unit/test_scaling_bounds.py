"""Schedules with time zones, and what they do to the bounds; the clock's changes included."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from controller.decide.scaling.bounds import bounds, is_on, reach
from model.autoscale import Autoscale, ScalingSchedule
from model.documents import ScaleOrderDoc

LISBON = ScalingSchedule("0 8 * * 1-5", 10 * 3600, "Europe/Lisbon", min=4)


def ms(text: str, zone: str = "Europe/Lisbon", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("2026-11-23 07:59:59", False),
        ("2026-11-23 08:00:00", True),
        ("2026-11-23 17:59:59", True),
        ("2026-11-23 18:00:00", False),
        ("2026-11-22 12:00:00", False),  # a Sunday
        ("2026-07-06 08:00:00", True),  # summer time: 07:00 in UTC
        ("2026-07-06 07:30:00", False),
    ],
)
def test_on_from_the_local_time_for_so_long(text: str, on: bool) -> None:
    assert is_on(LISBON, ms(text)) is on


def test_a_schedule_longer_than_a_day_reaches_back() -> None:
    weekend = ScalingSchedule("0 18 * * fri", 62 * 3600, "Europe/Lisbon", max=3)
    assert is_on(weekend, ms("2026-11-23 07:59:59"))
    assert not is_on(weekend, ms("2026-11-23 08:00:00"))
    assert not is_on(weekend, ms("2026-11-27 17:59:59"))


def test_it_lasts_as_long_as_said_also_when_the_clock_changes() -> None:
    night = ScalingSchedule("0 22 * * *", 8 * 3600, "Europe/Berlin", min=2)
    spring, autumn = ms("2026-03-28 22:00", "Europe/Berlin"), ms("2026-10-24 22:00", "Europe/Berlin")
    for begin in (spring, autumn):
        assert is_on(night, begin + 8 * 3_600_000 - 1)
        assert not is_on(night, begin + 8 * 3_600_000)


def test_a_time_that_the_clock_skips_comes_as_much_later() -> None:
    skipped = ScalingSchedule("30 2 * * *", 600, "Europe/Berlin", min=2)
    assert not is_on(skipped, ms("2026-03-29 03:29:59", "Europe/Berlin"))
    assert is_on(skipped, ms("2026-03-29 03:30:00", "Europe/Berlin"))


def test_a_time_that_the_clock_repeats_comes_once_but_every_hour_is_every_hour() -> None:
    once = ScalingSchedule("30 2 * * *", 600, "Europe/Berlin", min=2)
    hourly = ScalingSchedule("30 * * * *", 600, "Europe/Berlin", min=2)
    first, second = ms("2026-10-25 02:31", "Europe/Berlin"), ms("2026-10-25 02:31", "Europe/Berlin", fold=1)
    assert second - first == 3_600_000
    assert (is_on(once, first), is_on(once, second)) == (True, False)
    assert (is_on(hourly, first), is_on(hourly, second)) == (True, True)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Auckland", "Australia/Lord_Howe"])
def test_it_agrees_with_asking_every_minute(zone: str) -> None:
    """Minute by minute over days with a change of the clock: on exactly while the newest named minute is near enough."""
    schedule = ScalingSchedule("*/20 1-3,22 * * *", 900, zone, min=2)
    at = datetime(2026, 4, 4, tzinfo=ZoneInfo("UTC"))
    newest: datetime | None = None
    for _ in range(3 * 1440):
        local = at.astimezone(ZoneInfo(zone))
        again = local.fold and local.replace(fold=0).utcoffset() != local.utcoffset()
        if local.hour in (1, 2, 3, 22) and local.minute % 20 == 0 and not again:
            newest = at
        on = newest is not None and at - newest < timedelta(seconds=900)
        if local.utcoffset() == (local - timedelta(hours=3)).utcoffset():  # a skipped time may come later: its own test
            assert is_on(schedule, int(at.timestamp() * 1000)) is on, local
        at += timedelta(minutes=1)


def test_nonsense_is_never_on() -> None:
    assert not is_on(ScalingSchedule("whenever", 3600), ms("2026-11-23 08:00"))
    assert not is_on(ScalingSchedule("* * * * *", 3600, "Nowhere/City"), ms("2026-11-23 08:00"))


def test_bounds_are_the_policys_the_schedules_and_a_persons() -> None:
    policy = Autoscale(2, 10, schedules=(LISBON, ScalingSchedule("0 9 * * *", 3600, "Europe/Lisbon", min=6, max=30)))
    assert bounds(policy, None, ms("2026-11-23 07:00"))[:2] == (2, 10)
    assert bounds(policy, None, ms("2026-11-23 08:30"))[:2] == (4, 10)
    assert bounds(policy, None, ms("2026-11-23 09:30"))[:2] == (6, 30)
    floor = ScaleOrderDoc("id", "web", floor=7, floor_until_ms=ms("2026-11-23 08:40"))
    assert bounds(policy, floor, ms("2026-11-23 08:30"))[:3] == (7, 10, 7)
    assert bounds(policy, floor, ms("2026-11-23 08:40"))[:3] == (4, 10, 0)
    assert reach(policy) == (2, 30)


def test_a_schedule_may_raise_the_minimum_above_the_maximum_and_lower_the_maximum() -> None:
    at = ms("2026-11-23 08:30")
    assert bounds(Autoscale(1, 3, schedules=(LISBON,)), None, at)[:2] == (4, 4)
    small = ScalingSchedule("0 8 * * *", 3600, "Europe/Lisbon", max=2)
    assert bounds(Autoscale(1, 30, schedules=(small,)), None, at)[:2] == (1, 2)
