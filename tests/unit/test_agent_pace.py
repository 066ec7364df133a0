"""How often open connections are counted. Pure."""

from __future__ import annotations

import pytest

from agent.plan.pace import rest_s


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        ({}, {"a": 5}, 0.9),
        ({"a": 5}, {"a": 50, "b": 50}, 0.9),
        ({"a": 50, "b": 50}, {"a": 60, "b": 45}, 9.0),
        ({"a": 50}, {"b": 50}, 9.0),
        ({"a": 50}, {"a": 20}, 0.9),
        ({"a": 5}, {}, 0.9),
    ],
)
def test_a_count_that_moves_is_looked_at_again_soon(before: dict[str, int], now: dict[str, int], seconds: float) -> None:
    assert rest_s(0.009, before, now) == pytest.approx(seconds)


def test_a_long_pass_is_followed_by_half_a_minute_at_the_most() -> None:
    assert rest_s(0.5, {"a": 1}, {"a": 1}) == rest_s(0.5, {}, {"a": 1}) == 30.0
