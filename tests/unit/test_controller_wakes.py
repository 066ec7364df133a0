"""What waits for time in the loop: each key has its own hour, and a pass over other keys does not forget it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from controller.decide.types import Plan
from controller.loops.loop import Loop


def loop_at(now_s: float) -> tuple[Any, Any]:
    clock: Any = SimpleNamespace(time=now_s)
    clock.now = lambda: clock.time
    shell: Any = SimpleNamespace(clock=clock)
    return Loop("services", lambda *_: Plan(), shell), clock


def test_a_pass_over_others_does_not_forget_who_waits() -> None:
    loop, clock = loop_at(10.0)
    loop._remember(("web",), Plan(wake_at_ms=11_000, wakes=(("web", 11_000),)))
    loop._remember(("db",), Plan())
    assert loop._with_due(("db",)) == ("db",)
    clock.time = 11.0
    assert loop._with_due(()) == ("web",)
    loop._remember(("web",), Plan())
    assert loop._with_due(()) == ()


def test_a_decision_about_everything_keeps_one_hour() -> None:
    loop, clock = loop_at(10.0)
    loop._remember((), Plan(wake_at_ms=12_000))
    loop._remember((), Plan(wake_at_ms=13_000))
    assert loop._later == {"": 13_000}
    clock.time = 13.0
    assert loop._with_due(()) == ()
