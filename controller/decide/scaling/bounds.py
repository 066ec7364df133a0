"""Between which counts a service may move now: its policy, the schedules that are on, the floor a person set.

Rules: several schedules at once: the largest of each bound. A minimum above the maximum lifts it. A time of day that the clock
skips begins as much later as it skips; one that it repeats begins at its first turn, unless every hour is named.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from model.autoscale import Autoscale, ScalingSchedule
from model.cron import parse_cron, time_zone
from model.documents import ScaleOrderDoc
from model.errors import BadInput

_HOURS: Final = frozenset(range(24))
_DAY_S: Final = 86_400


class Bounds(NamedTuple):
    """`schedules`: crontab lines of those that are on; `floor`: a person's, 0 when none holds."""

    least: int
    most: int
    floor: int = 0
    schedules: tuple[str, ...] = ()


def bounds(policy: Autoscale, order: ScaleOrderDoc | None, now_ms: int) -> Bounds:
    on = [schedule for schedule in policy.schedules if is_on(schedule, now_ms)]
    least = max([schedule.min for schedule in on if schedule.min is not None], default=policy.min)
    most = max([schedule.max for schedule in on if schedule.max is not None], default=policy.max)
    most = max(most, least)
    floor = min(order.floor, most) if order is not None and order.floor_until_ms > now_ms else 0
    return Bounds(max(least, floor), most, floor, tuple(schedule.cron for schedule in on))


def reach(policy: Autoscale) -> tuple[int, int]:
    """The smallest and the largest count that it ever allows: what lies beyond makes no difference."""
    least = min([policy.min, *(schedule.min for schedule in policy.schedules if schedule.min is not None)])
    most = max([policy.max, *(count for row in policy.schedules for count in (row.min, row.max) if count is not None)])
    return least, max(least, most)


def is_on(schedule: ScalingSchedule, now_ms: int) -> bool:
    """Whether one of its times lies less than `for_s` back. A line or a time zone that cannot be read is never on."""
    now_s = now_ms / 1000
    try:
        today = datetime.fromtimestamp(now_s, UTC).astimezone(time_zone(schedule.time_zone)).toordinal()
        for day in range(today, today - int(schedule.for_s // _DAY_S) - 2, -1):
            times = _times(schedule.cron, schedule.time_zone, day)
            at = bisect_right(times, now_s)
            if at:
                return times[at - 1] > now_s - schedule.for_s
    except BadInput:
        pass
    return False


@lru_cache(maxsize=1024)
def _times(line: str, zone_name: str, day: int) -> tuple[float, ...]:
    """When it begins on that day of the zone's calendar, in Unix seconds, rising."""
    cron, zone, date = parse_cron(line), time_zone(zone_name), datetime.fromordinal(day)
    if not cron.on(date):
        return ()
    folds = (0, 1) if cron.hours == _HOURS else (0,)
    return tuple(sorted({
        date.replace(hour=hour, minute=minute, fold=fold, tzinfo=zone).timestamp()
        for hour in cron.hours for minute in cron.minutes for fold in folds
    }))  # fmt: skip
