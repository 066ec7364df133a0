"""Every order of the small model, and that it would tell: some promises broken on purpose are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.plan.life import vanished
from sim.small import Small, explore

pytestmark = pytest.mark.timeout(300)


def test_every_order_with_one_fault_keeps_every_promise() -> None:
    found = explore(Small(faults=1))
    assert (found.violation, found.path) == ("", ())
    assert found.states > 5_000
    assert found.rests > 10


def test_a_node_comes_back_to_its_surplus_and_is_trimmed() -> None:
    """The way through the model that the other tests rely on: a node is cut off, given up, and heard again."""
    state = Small(faults=1)
    seen = []
    for _ in range(200):
        steps = state.steps()
        if state.places["m1"].running() and state.faults:
            step = "cut m1"
        else:
            step = next((name for name in steps if not name.startswith("heal") and name.split()[0] in _QUIET), "")
            step = step or next((name for name in steps if name == "heal m1"), "")
        if not step:
            break
        seen.append(step)
        state = state.after(step)
    assert "heal m1" in seen
    assert state.unfinished() == ""


_QUIET = frozenset({"see", "campaign", "abdicate", "services", "nodes", "work", "connect", "hear", "report", "wait"})


def _forgetful(saved: Any, found: Any, now: float) -> Any:
    return vanished(saved, now) if saved.stage == "running" else saved


BROKEN: dict[str, tuple[str, Callable[..., Any], str]] = {
    "an agent that adopts nothing": ("agent.plan.core.adopted", _forgetful, "reason"),
    "a surplus that is never trimmed": ("controller.decide.services._trim", lambda batch, work: None, "at rest with"),
    "a store that ignores guards": ("sim.small.store.SmallStore.holds", lambda self, wanted: True, ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from sim.small import control

    target, broken, said = BROKEN[name]
    monkeypatch.setattr(target, broken)
    control.decided.cache_clear()
    try:
        found = explore(Small(faults=1))
    finally:
        control.decided.cache_clear()
    assert said in found.violation
    assert found.violation
    assert found.path
