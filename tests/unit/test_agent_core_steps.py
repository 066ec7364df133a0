"""The agent's core step by step: stopping, replacing, waiting, health, events. Pure; the test is the node."""

from __future__ import annotations

from dataclasses import replace

from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.records import Desired, Failure, Slot, WantedService, WantedSpec
from model.spec import Healthcheck, ServiceSpec
from tests.unit.agent_steps import NET, PLAIN, attached, desired, done, given, ids, kinds, only, settle, up


def test_the_order_of_a_start() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired()), 0.0)
    row = []
    while kinds(effects):
        row.append(kinds(effects))
        effects = done(core, effects, 0.0)
    assert row == [
        ["ApplyNetworks", "PullImage"], ["PrepareVolumes"], ["AttachNetwork"], ["CreateContainer"], ["StartContainer"],
    ]  # fmt: skip


def test_one_pull_for_all_and_four_starts_at_a_time() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired(10)), 0.0)
    assert kinds(effects) == ["ApplyNetworks", "PullImage"]
    assert kinds(done(core, effects, 0.0)) == ["PrepareVolumes"] * 4


def test_stopping_asks_first_and_forces_after_the_grace_period() -> None:
    core = up(replace(PLAIN, stop_signal="SIGQUIT", stop_grace_period_s=5.0))
    (container_id,) = ids(core)
    effects = done(core, core.handle(fx.DesiredArrived(Desired(2)), 100.0), 100.0)
    assert only(effects, fx.KillContainer).signal == "SIGQUIT"
    assert core.wake_at() == 105.0
    assert kinds(core.handle(fx.TimerDue(), 104.9)) == []
    assert only(core.handle(fx.TimerDue(), 105.0), fx.KillContainer).signal == "SIGKILL"
    seen = settle(core, core.handle(fx.ContainerExited(Exited(container_id, 137, False, 105.1)), 105.1), 105.1)
    assert kinds(seen) == ["DeleteContainer", "DetachNetwork", "ReleaseReplica", "ApplyNetworks"]
    assert only(seen, fx.ApplyNetworks).networks == ()
    assert only(seen, fx.Gone).replica.slot == 1


def test_a_replacement_starts_when_the_old_one_has_stopped() -> None:
    core = up()
    (old,) = ids(core)
    effects = core.handle(fx.DesiredArrived(desired(created=2)), 10.0)
    assert kinds(effects) == ["Drain", "PullImage"]
    assert kinds(done(core, effects, 10.0)) == ["KillContainer"]
    effects = core.handle(fx.ContainerExited(Exited(old, 0, False, 11.0)), 11.0)
    assert sorted(kinds(effects)) == ["DeleteContainer", "PrepareVolumes"]
    settle(core, effects, 11.0)
    (status,) = core.statuses()
    assert (status.created_ms, status.state) == (2, "running")


def test_two_wanted_lives_of_a_slot_run_beside_each_other() -> None:
    """An update that starts the new one first, on the same node: the old one goes when the new one runs."""
    core = up()
    before = desired()
    (service,), (spec,) = before.services, before.specs
    both = replace(service, slots=(*service.slots, Slot(1, 2, 2)))
    after = replace(before, services=(both,), specs=(spec, replace(spec, version=2)))
    settle(core, core.handle(fx.DesiredArrived(after), 10.0), 10.0)
    assert [(status.created_ms, status.state) for status in core.statuses()] == [(1, "running"), (2, "running")]


def test_a_killed_container_is_back_at_once_with_its_address() -> None:
    core = up()
    (old,) = ids(core)
    effects = core.handle(fx.ContainerExited(Exited(old, 137, False, 50.0, "killed by SIGKILL (exit code 137)")), 50.0)
    said = only(effects, fx.Say).sentence
    assert said == "shop_web.1: killed by SIGKILL (exit code 137); started again at once"
    seen = settle(core, effects, 50.0)
    assert kinds(seen) == ["DeleteContainer", "CreateContainer", "StartContainer"]
    (status,) = core.statuses()
    assert (status.restarts, status.container_id == old) == (1, False)


def test_a_crash_loop_slows_down_and_says_so() -> None:
    core = up()
    waits = []
    now = 0.0
    for _ in range(5):
        (container_id,) = ids(core)
        effects = core.handle(fx.ContainerExited(Exited(container_id, 1, False, now)), now)
        at = core.wake_at()
        waits.append(0.0 if kinds(effects) else (at or 0.0) - now)
        now = max(now, at or now)
        settle(core, effects + core.handle(fx.TimerDue(), now), now)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert core.statuses()[0].restarts == 5


def test_an_exit_that_overtakes_its_start_is_not_lost() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired()), 0.0)
    while "StartContainer" not in kinds(effects):
        effects = done(core, effects, 0.0)
    start = only(effects, fx.StartContainer)
    assert kinds(core.handle(fx.ContainerExited(Exited(start.container_id, 5, False, 0.1)), 0.1)) == []
    after = core.handle(fx.Done(start.replica, start.token), 0.2)
    assert kinds(after) == ["DeleteContainer"]
    assert only(after, fx.Report).status.exit_code == 5


def test_a_stopped_service_keeps_its_replica_and_starts_again() -> None:
    core = up()
    (old,) = ids(core)
    core.handle(fx.DesiredArrived(desired(stopped=True)), 1.0)
    seen = settle(core, core.handle(fx.ContainerExited(Exited(old, 0, False, 2.0)), 2.0), 2.0)
    assert kinds(seen) == ["DetachNetwork"]
    assert (core.statuses()[0].state, core.statuses()[0].container_id) == ("shutdown", old)
    settle(core, core.handle(fx.DesiredArrived(desired()), 3.0), 3.0)
    assert core.statuses()[0].state == "running"
    assert core.statuses()[0].restarts == 1


def test_wanted_again_while_it_ends_it_ends_and_the_next_one_serves() -> None:
    core = up()
    (old,) = ids(core)
    ending = core.handle(fx.DesiredArrived(desired(stopped=True), drain=False), 1.0)
    only(ending, fx.KillContainer)
    said = only(ending, fx.Report).status
    assert (said.state, said.health) == ("running", "stopping"), "it holds what it has, and nobody is sent to it"
    core.handle(fx.DesiredArrived(desired()), 2.0)
    assert (core.statuses()[0].health, core.wake_at()) == ("stopping", 11.0)
    assert only(core.handle(fx.TimerDue(), 11.0), fx.KillContainer).signal == "SIGKILL", "it does not hear the first signal"
    settle(core, core.handle(fx.ContainerExited(Exited(old, 137, False, 11.5)), 11.5), 11.5)
    (status,) = core.statuses()
    assert (status.state, status.health, status.container_id == old) == ("running", "", False)


def test_a_network_that_is_not_there_yet_is_waited_for() -> None:
    core = Core("n1")
    without = replace(desired(), networks=())
    effects = core.handle(fx.DesiredArrived(without), 0.0)
    assert kinds(done(core, effects, 0.0)) == []
    assert core.statuses()[0].message == "waits for network shop_default on this node"
    settle(core, core.handle(fx.DesiredArrived(desired()), 1.0), 1.0)
    assert core.statuses()[0].state == "running"
    assert core.statuses()[0].message == ""


def test_networks_that_fail_are_tried_again() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired()), 0.0)
    settle(core, [only(effects, fx.PullImage)], 0.0)
    token = only(effects, fx.ApplyNetworks).token
    core.handle(fx.NetworksApplied(token, Failure("no vxlan in this kernel")), 0.0)
    assert core.statuses()[0].message == "no vxlan in this kernel"
    assert core.wake_at() == 1.0
    settle(core, core.handle(fx.TimerDue(), 1.0), 1.0)
    assert core.statuses()[0].state == "running"


def test_other_peers_do_not_hold_up_a_start() -> None:
    core = up()
    more = replace(desired(2), networks=(replace(NET, peers=()),))
    effects = core.handle(fx.DesiredArrived(more), 1.0)
    assert kinds(effects) == ["PullImage"]


def test_a_cleanup_that_fails_is_repeated_and_told_once() -> None:
    core = up()
    (old,) = ids(core)
    core.handle(fx.DesiredArrived(Desired(2)), 1.0)
    effects = core.handle(fx.ContainerExited(Exited(old, 0, False, 1.0)), 1.0)
    said = []
    now = 1.0
    for _ in range(3):
        delete = only(effects, fx.DeleteContainer)
        after = core.handle(fx.Failed(delete.replica, delete.token, Failure("busy")), now)
        said += [effect.sentence for effect in after if isinstance(effect, fx.Say)]
        now = core.wake_at() or 0.0
        effects = core.handle(fx.TimerDue(), now)
    assert said == ["shop_web.1: busy; tried again"]
    settle(core, effects, now)
    assert core.lives == {}


def test_health_follows_the_checks() -> None:
    check = Healthcheck(("CMD", "check"), interval_s=10.0, retries=2)
    core = up(replace(PLAIN, healthcheck=check))

    def probe(now: float, healthy: bool) -> str:
        effect = only(core.handle(fx.TimerDue(), now), fx.Probe)
        core.handle(fx.Probed(effect.replica, effect.container_id, healthy, "no"), now)
        return core.statuses()[0].health

    assert core.statuses()[0].health == "starting"
    assert core.wake_at() == 10.0
    assert [probe(10.0, False), probe(20.0, False), probe(30.0, True), probe(40.0, False)] == [
        "starting", "unhealthy", "healthy", "healthy",
    ]  # fmt: skip


def test_a_check_that_ends_after_the_signal_says_nothing() -> None:
    core = up(replace(PLAIN, healthcheck=Healthcheck(("CMD", "check"), interval_s=10.0)))
    probe = only(core.handle(fx.TimerDue(), 10.0), fx.Probe)
    core.handle(fx.DesiredArrived(desired(stopped=True), drain=False), 11.0)
    core.handle(fx.Probed(probe.replica, probe.container_id, True), 12.0)
    assert core.statuses()[0].health == "stopping"


def test_a_vanished_container_is_believed_at_the_second_look() -> None:
    core = up()
    (container_id,) = ids(core)
    assert core.handle(fx.Compared((container_id,)), 1.0) == []
    seen = settle(core, core.handle(fx.Compared((container_id,)), 2.0), 2.0)
    assert "vanished" in only(seen, fx.Say).sentence
    assert core.statuses()[0].restarts == 1


def test_outcomes_of_an_older_effect_are_ignored() -> None:
    core = Core("n1")
    effects = done(core, core.handle(fx.DesiredArrived(desired()), 0.0), 0.0)
    volumes = only(effects, fx.PrepareVolumes)
    core.handle(fx.Done(volumes.replica, volumes.token), 0.0)
    assert core.handle(fx.Failed(volumes.replica, volumes.token, Failure("late")), 0.0) == []


def test_a_detach_that_failed_half_way_is_followed_by_a_new_attachment() -> None:
    """Stopped while it was being prepared, wanted again while its clean-up fails: it must not start without a network."""
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired()), 0.0)
    while "AttachNetwork" not in kinds(effects):
        effects = done(core, effects, 0.0)
    attach = only(effects, fx.AttachNetwork)
    core.handle(fx.DesiredArrived(desired(stopped=True)), 1.0)
    detach = only(core.handle(attached(attach, given(attach.life)), 1.0), fx.DetachNetwork)
    core.handle(fx.Failed(detach.replica, detach.token, Failure("busy")), 1.0)
    seen = settle(core, core.handle(fx.DesiredArrived(desired()), 2.0), 2.0)
    assert "AttachNetwork" in kinds(seen)
    assert core.statuses()[0].state == "running"


def test_a_running_container_without_journal_entry_is_adopted_by_what_the_runtime_kept() -> None:
    """The disk was full: nothing of the replica could be written."""
    core = up()
    (container_id,) = ids(core)
    (key,) = core.lives
    again = Core("n1")
    found = Found(container_id, "shop_web.1", "", (("replica", key.text),), "running", 7, 3.0)
    effects = again.recover(desired(), [], [found], 9.0)
    assert kinds(effects) == ["ApplyNetworks"]
    assert ids(again) == [container_id]
    assert again.statuses()[0].state == "running"


def test_a_start_is_written_down_twice() -> None:
    """Before the container exists, and when it runs."""
    core = Core("n1")
    seen = settle(core, core.handle(fx.DesiredArrived(desired()), 0.0), 0.0)
    saves = [effect.life for effect in seen if isinstance(effect, fx.Save)]
    assert [(life.stage, bool(life.container_id), life.netns) for life in saves] == [
        ("none", True, "ns"),
        ("running", True, "ns"),
    ]


def services(*images: str, digest: str = "") -> Desired:
    """One service for each image, one replica each."""
    spec = replace(PLAIN, networks=())
    return Desired(
        1,
        tuple(WantedService(f"s{at}", f"s{at}", (Slot(1, 1, 1),)) for at in range(len(images))),
        tuple(
            WantedSpec(f"s{at}", 1, ServiceSpec(f"s{at}", replace(spec, image=image, image_digest=digest)))
            for at, image in enumerate(images)
        ),
    )


def test_each_service_pulls_for_itself_what_it_is_pinned_to() -> None:
    effects = Core("n1").handle(fx.DesiredArrived(services("web:1", "web:1", digest="sha256:1")), 0.0)
    pulls = [effect for effect in effects if isinstance(effect, fx.PullImage)]
    assert pulls == [fx.PullImage("web:1", "missing", "sha256:1", service) for service in ("s0", "s1")]


def test_other_credentials_are_tried_at_once() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(services("web:1", "web:1")), 0.0)
    for pull in [effect for effect in effects if isinstance(effect, fx.PullImage)]:
        core.handle(fx.PullFailed(pull, Failure("unauthorized", permanent=True)), 0.0)
    assert [status.state for status in core.statuses()] == ["rejected", "rejected"]
    assert kinds(core.handle(fx.TimerDue(), 1.0)) == []
    effects = core.handle(fx.LoginsChanged(("s1",)), 2.0)
    assert only(effects, fx.PullImage).service_id == "s1"
    settle(core, effects, 2.0)
    assert [status.state for status in core.statuses()] == ["rejected", "running"]
    assert kinds(core.handle(fx.LoginsChanged(("s1",)), 3.0)) == [], "what runs is left alone"
