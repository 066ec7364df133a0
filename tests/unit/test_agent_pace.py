"""How often the kernel's table of connections is gone over. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.plan.pace import REST_S_MIN, SHARE, rest_s

COSTS = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30)
ASKED = st.lists(st.floats(0.0, 120.0), min_size=1, max_size=60)
"""Seconds between two that ask."""


def passes(costs: list[float], asked: list[float]) -> list[tuple[float, float]]:
    """(when, CPU seconds), whoever asks: the next as soon as there is one who does and it has rested."""
    made, now, due, left = list[tuple[float, float]](), 0.0, 0.0, iter(costs)
    for wait in asked:
        now += wait
        if now >= due and (cost := next(left, None)) is not None:
            made.append((now, cost))
            now += cost  # at least so long
            due = now + rest_s(cost)
    return made


@given(COSTS, ASKED)
def test_over_any_window_passes_take_a_thousandth_of_a_core_and_one_pass(costs: list[float], asked: list[float]) -> None:
    made = passes(costs, asked)
    for first in range(len(made)):
        for last in range(first, len(made)):
            within = made[first : last + 1]
            window_s = within[-1][0] - within[0][0]
            assert sum(cost for _, cost in within[:-1]) <= window_s / SHARE + 1e-9
            assert len(within) - 1 <= window_s / REST_S_MIN


def test_a_pass_over_an_empty_table_rests_half_a_minute_and_a_long_one_longer() -> None:
    assert (rest_s(0.009), rest_s(0.2)) == (30.0, 200.0)
