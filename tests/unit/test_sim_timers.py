"""The simulation's timers: the order is that of one heap, whatever was cancelled and whenever it was asked for."""

from __future__ import annotations

import random
from contextvars import Context

import pytest

from sim.handles import Timer
from sim.timers import Timers


def timer(timers: Timers, due: float) -> Timer:
    made = Timer(due, print, (), Context(), timers)
    timers.add(due, made)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_timers_come_by_time_and_then_in_the_order_they_were_asked_for(seed: int) -> None:
    rng, timers = random.Random(seed), Timers()
    waiting: list[tuple[float, int, Timer]] = []
    now, number = 0.0, 0
    for _ in range(600):
        for _ in range(rng.randrange(4)):
            number += 1
            due = now + rng.choice((0.0, 0.0005, 0.001, 0.5, rng.random(), 30 * rng.random()))
            waiting.append((due, number, timer(timers, due)))
        if waiting and rng.random() < 0.4:
            waiting.pop(rng.randrange(len(waiting)))[2].cancel()
        if waiting and rng.random() < 0.6:
            now = min(waiting)[0]
            expected = [row for row in sorted(waiting) if row[0] == now]
            assert timers.next() == [row[2] for row in expected]
            waiting = [row for row in waiting if row[0] != now]
    while waiting:
        assert timers.next()[0] is min(waiting)[2]
        now = min(waiting)[0]
        waiting = [row for row in waiting if row[0] != now]
    assert timers.next() == []
    assert len(timers) == 0


def test_what_is_due_never_waits_for_ever() -> None:
    timers = Timers()
    never, soon = timer(timers, float("inf")), timer(timers, 1.0)
    assert timers.next() == [soon]
    assert timers.next() == [never]
