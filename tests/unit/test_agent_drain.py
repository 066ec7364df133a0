"""A stop lets connections end first, within the grace period. Pure; the test is the node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.records import Desired
from model.spec import Attachment, ContainerSpec, Port
from tests.unit.agent_steps import PLAIN, desired, ids, kinds, only, settle, up

GONE = fx.DesiredArrived(Desired(2))


def stop(core: Core, now: float = 100.0) -> fx.Drain:
    return only(core.handle(GONE, now), fx.Drain)


def test_connections_end_before_the_signal_and_the_whole_stays_within_the_grace_period() -> None:
    core = up(replace(PLAIN, stop_grace_period_s=8.0))
    drain = stop(core)
    assert (drain.places, drain.within_s) == ((("shop_default", "10.0.1.1"),), 4.0)
    assert drain.container_id == ids(core)[0]
    assert kinds(core.handle(fx.TimerDue(), 101.0)) == []
    assert only(core.handle(fx.Drained(drain.replica, drain.token), 103.0), fx.KillContainer).signal == "SIGTERM"
    assert core.wake_at() == 108.0
    assert only(core.handle(fx.TimerDue(), 108.0), fx.KillContainer).signal == "SIGKILL"


def test_half_of_the_grace_period_is_left_when_nobody_says_that_connections_ended() -> None:
    core = up(replace(PLAIN, stop_grace_period_s=8.0))
    drain = stop(core)
    assert core.wake_at() == 104.0
    assert only(core.handle(fx.TimerDue(), 104.0), fx.KillContainer).signal == "SIGTERM"
    assert core.handle(fx.Drained(drain.replica, drain.token), 104.1) == []
    assert core.wake_at() == 108.0


def test_nobody_waits_longer_than_half_a_minute_for_connections() -> None:
    core = up(replace(PLAIN, stop_grace_period_s=600.0))
    assert stop(core).within_s == 30.0
    assert core.wake_at() == 130.0


@pytest.mark.parametrize(
    "container",
    [
        replace(PLAIN, stop_grace_period_s=0.0),
        ContainerSpec("web:1"),
        ContainerSpec("web:1", networks=(Attachment("none"),)),
    ],
    ids=["no grace period", "bridge", "none"],
)
def test_who_has_no_time_or_no_callers_is_stopped_at_once(container: ContainerSpec) -> None:
    found = kinds(up(container).handle(GONE, 100.0))
    assert "KillContainer" in found
    assert "Drain" not in found


def test_published_ports_are_drained_on_the_bridge_too() -> None:
    core = up(ContainerSpec("web:1", ports=(Port(80, 8080),)))
    assert stop(core).places == (("bridge", "10.0.1.1"),)


def test_an_exit_while_draining_is_an_exit() -> None:
    core = up()
    (container_id,) = ids(core)
    drain = stop(core)
    seen = settle(core, core.handle(fx.ContainerExited(Exited(container_id, 0, False, 100.5)), 100.5), 100.5)
    assert kinds(seen) == ["DeleteContainer", "DetachNetwork", "ReleaseReplica", "ApplyNetworks"]
    assert core.handle(fx.Drained(drain.replica, drain.token), 101.0) == []
    assert core.lives == {}


def test_who_is_wanted_again_while_draining_goes_on_running_and_may_drain_again() -> None:
    core = up()
    first = only(core.handle(fx.DesiredArrived(desired(stopped=True)), 100.0), fx.Drain)
    assert kinds(core.handle(fx.DesiredArrived(desired()), 101.0)) == []
    assert kinds(core.handle(fx.Drained(first.replica, first.token), 102.0)) == []
    assert kinds(core.handle(fx.TimerDue(), 200.0)) == []
    assert [status.state for status in core.statuses()] == ["running"]
    second = stop(core, 300.0)
    assert kinds(core.handle(fx.Drained(first.replica, first.token), 300.1)) == []
    assert kinds(core.handle(fx.Drained(second.replica, second.token), 300.2)) == ["KillContainer"]


def test_a_restarted_agent_drains_again() -> None:
    core = up()
    effects = core.handle(GONE, 100.0)
    (saved,) = [effect.life for effect in effects if isinstance(effect, fx.Save)]
    again = Core("n1")
    found = Found(saved.container_id, saved.name, "", (), "running", 7, 3.0)
    drain = only(again.recover(Desired(2), [saved], [found], 200.0), fx.Drain)
    assert only(again.handle(fx.TimerDue(), 205.0), fx.KillContainer).signal == "SIGTERM"
    assert kinds(again.handle(fx.Drained(drain.replica, drain.token), 205.1)) == []


def test_a_node_that_leaves_the_cluster_does_not_wait() -> None:
    core = up(count=2)
    assert kinds(core.handle(fx.DesiredArrived(Desired(), drain=False), 100.0)) == ["KillContainer"] * 2
