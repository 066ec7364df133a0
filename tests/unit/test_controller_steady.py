"""Who sets the controller's clock makes no node silent."""

from __future__ import annotations

from controller.dispatch.session import NodeSession
from controller.dispatch.status import NodeStatus
from controller.steady import zero_ms
from model.documents import StatusDoc


class Clock:
    def __init__(self) -> None:
        self.unix_s, self.since_boot_s = 1_000.0, 50.0

    def now(self) -> float:
        return self.unix_s

    def monotonic(self) -> float:
        return self.since_boot_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


def test_silence_is_measured_by_what_has_passed_not_by_how_the_clock_was_set() -> None:
    clock = Clock()
    session = NodeSession("n1", "", NodeStatus(StatusDoc("n1")), frozenset(), clock.monotonic())
    clock.unix_s, clock.since_boot_s = 1_002.0 + 60.0, 52.0
    assert clock.now() * 1000 - session.facts(zero_ms(clock), clock.monotonic()).last_heard_ms == 2_000
    clock.unix_s = 900.0
    assert clock.now() * 1000 - session.facts(zero_ms(clock), clock.monotonic()).last_heard_ms == 2_000


def test_a_node_whose_words_wait_for_their_turn_is_not_silent() -> None:
    clock = Clock()
    session = NodeSession("n1", "", NodeStatus(StatusDoc("n1")), frozenset(), clock.monotonic())
    session.waits = 1
    clock.unix_s, clock.since_boot_s = 1_060.0, 110.0
    assert session.facts(zero_ms(clock), clock.monotonic()).last_heard_ms == 1_060_000
    session.waits = 0
    assert session.facts(zero_ms(clock), clock.monotonic()).last_heard_ms == 1_000_000
