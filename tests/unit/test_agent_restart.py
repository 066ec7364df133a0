"""The restart policy: what follows an exit, and when."""

from __future__ import annotations

import pytest

from agent.plan.records import Attempts
from agent.plan.restart import Again, after_exit, after_failure, backoff_s
from model.spec import RestartPolicy

ANY = RestartPolicy()


def row(policy: RestartPolicy, count: int, *, ran_s: float = 1.0, code: int | None = 1) -> list[float]:
    """Waits of `count` exits in a row, time standing still."""
    waits, attempts = [], Attempts()
    for _ in range(count):
        again = after_exit(policy, attempts, code, ran_s, 100.0)
        if again is None:
            break
        waits.append(again.at - 100.0)
        attempts = again.attempts
    return waits


def test_the_first_restart_is_at_once_then_slower_and_slower() -> None:
    assert row(ANY, 10) == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_run_that_lasts_begins_the_row_anew() -> None:
    assert row(ANY, 4, ran_s=10.0) == [0, 0, 0, 0]


def test_a_delay_that_was_asked_for_is_kept() -> None:
    assert row(RestartPolicy(delay_s=5.0), 3) == [5, 5, 5]


@pytest.mark.parametrize(
    ("condition", "code", "again"),
    [
        ("any", 0, True), ("any", 1, True), ("any", None, True), ("on-failure", 0, False), ("on-failure", 3, True),
        ("on-failure", None, True), ("none", 1, False), ("none", 0, False),
    ],
)  # fmt: skip
def test_the_condition_decides(condition: str, code: int | None, again: bool) -> None:
    assert bool(row(RestartPolicy(condition), 1, code=code)) is again  # type: ignore[arg-type]


def test_no_more_than_max_attempts() -> None:
    assert len(row(RestartPolicy(max_attempts=3), 10)) == 3
    assert row(RestartPolicy(max_attempts=0), 10) == []


def test_attempts_count_within_the_window_only() -> None:
    policy = RestartPolicy(max_attempts=2, window_s=60.0)
    attempts = Attempts(failures=1, at=(10.0, 100.0))
    assert after_exit(policy, attempts, 1, 1.0, 120.0) is not None
    assert after_exit(policy, Attempts(failures=1, at=(90.0, 100.0)), 1, 1.0, 120.0) is None


def test_a_start_that_fails_waits_and_one_that_cannot_work_waits_longer() -> None:
    soon, late = after_failure(ANY, Attempts(), False, 0.0), after_failure(ANY, Attempts(), True, 0.0)
    assert isinstance(soon, Again)
    assert isinstance(late, Again)
    assert (soon.at, late.at) == (1.0, 15.0)
    assert after_failure(ANY, Attempts(failures=9), True, 0.0) == Again(60.0, Attempts(failures=10))
    assert after_failure(RestartPolicy("none"), Attempts(), False, 0.0) is None


def test_back_off_has_a_ceiling() -> None:
    assert max(backoff_s(count) for count in range(2000)) == 60.0
