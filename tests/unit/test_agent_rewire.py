"""Networks of running containers change while they run. Pure; the test is the node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.network import NetworkWanted
from agent.plan.records import Failure
from model.spec import Attachment, ContainerSpec, Healthcheck
from tests.unit.agent_steps import NET, PLAIN, attached, desired, done, ids, kinds, only, settle, up

SHOP, OTHER = Attachment("shop_default"), Attachment("other")
OTHER_NET = NetworkWanted("other", 8, "10.1.0.0/16", "10.1.1.0/24")
BOTH = desired(rewired=(SHOP, OTHER), networks=(NET, OTHER_NET))


def networks(core: Core) -> list[str]:
    (status,) = core.statuses()
    return [network for network, _ in status.addresses]


def test_a_running_container_is_connected_when_the_network_is_there() -> None:
    core = up()
    before = ids(core)
    effects = core.handle(fx.DesiredArrived(BOTH), 1.0)
    assert kinds(effects) == ["ApplyNetworks"]
    effects = done(core, effects, 1.0)
    assert only(effects, fx.Save).life.wiring.begun
    seen = settle(core, effects, 1.0)
    assert kinds(seen) == ["Rewire"]
    assert networks(core) == ["shop_default", "other"]
    assert ids(core) == before
    assert core.handle(fx.DesiredArrived(BOTH), 2.0) == []


def test_a_network_is_kept_until_the_container_has_left_it() -> None:
    core = up()
    settle(core, core.handle(fx.DesiredArrived(BOTH), 1.0), 1.0)
    effects = core.handle(fx.DesiredArrived(desired(rewired=(SHOP,), networks=(NET,))), 2.0)
    assert kinds(effects) == ["Rewire"]
    effects = done(core, effects, 2.0)
    assert only(effects, fx.ApplyNetworks).networks == (NET,)
    assert networks(core) == ["shop_default"]


def test_the_spec_holds_again_when_nothing_else_is_said() -> None:
    core = up()
    settle(core, core.handle(fx.DesiredArrived(desired(rewired=())), 1.0), 1.0)
    assert networks(core) == []
    settle(core, core.handle(fx.DesiredArrived(desired()), 2.0), 2.0)
    assert networks(core) == ["shop_default"]


def test_what_fails_is_told_once_and_tried_again_beside_the_running_container() -> None:
    core = up(replace(PLAIN, healthcheck=Healthcheck(("CMD", "x"), interval_s=1.5)))
    container = replace(PLAIN, healthcheck=Healthcheck(("CMD", "x"), interval_s=1.5))
    wanted = desired(container=container, rewired=(SHOP, OTHER), networks=(NET, OTHER_NET))
    effects = done(core, core.handle(fx.DesiredArrived(wanted), 1.0), 1.0)
    said, now = [], 1.0
    for _ in range(3):
        rewire = only(effects, fx.Rewire)
        half = (("shop_default", "10.0.1.1/16"),)
        after = core.handle(fx.Rewired(rewire.replica, rewire.token, half, failure=Failure("slice is full")), now)
        said += [effect.sentence for effect in after if isinstance(effect, fx.Say)]
        now = core.lives[rewire.replica].wiring.retry_at
        effects = core.handle(fx.TimerDue(), now)
    assert said == ["shop_web.1: slice is full; tried again"]
    assert "Probe" in kinds(effects) or core.lives[rewire.replica].health.probing
    assert [status.state for status in core.statuses()] == ["running"]
    settle(core, effects, now)
    assert networks(core) == ["shop_default", "other"]


def test_a_change_of_mind_while_it_is_under_way_is_the_next_change() -> None:
    core = up()
    effects = done(core, core.handle(fx.DesiredArrived(BOTH), 1.0), 1.0)
    rewire = only(effects, fx.Rewire)
    back = desired(networks=(NET, OTHER_NET))
    assert kinds(core.handle(fx.DesiredArrived(back), 1.1)) == []
    both = (("shop_default", "10.0.1.1/16"), ("other", "10.1.1.1/16"))
    again = core.handle(fx.Rewired(rewire.replica, rewire.token, both), 1.2)
    assert kinds(again) == ["Rewire"]
    settle(core, again, 1.2)
    assert networks(core) == ["shop_default"]


def test_an_exit_while_it_is_under_way_is_followed_by_a_start_on_the_new_networks() -> None:
    core = up()
    (old,) = ids(core)
    effects = done(core, core.handle(fx.DesiredArrived(BOTH), 1.0), 1.0)
    rewire = only(effects, fx.Rewire)
    assert kinds(core.handle(fx.ContainerExited(Exited(old, 1, False, 1.1)), 1.1)) == []
    half = fx.Rewired(rewire.replica, rewire.token, (("shop_default", "10.0.1.1/16"),), failure=Failure("cut off"))
    seen = settle(core, core.handle(half, 1.2), 1.2)
    assert kinds(seen) == ["DeleteContainer", "Rewire", "CreateContainer", "StartContainer"]
    assert networks(core) == ["shop_default", "other"]


def test_one_that_is_started_again_on_other_networks_is_preparing_before_that_can_fail() -> None:
    """Found by a property: stopped, wanted again while it ended, with other networks; `failed` does not follow `shutdown`."""
    core = up()
    (old,) = ids(core)
    only(core.handle(fx.DesiredArrived(desired(stopped=True), drain=False), 1.0), fx.KillContainer)
    settle(core, core.handle(fx.DesiredArrived(BOTH), 2.0), 2.0)
    effects = core.handle(fx.ContainerExited(Exited(old, 0, False, 3.0)), 3.0)
    assert only(effects, fx.Report).status.state == "shutdown"
    effects = done(core, effects, 3.0)
    rewire = only(effects, fx.Rewire)
    assert core.statuses()[0].state == "preparing"
    failed = core.handle(fx.Failed(rewire.replica, rewire.token, Failure("slice is full")), 3.0)
    assert only(failed, fx.Report).status.state == "failed"


def test_one_that_has_not_started_attaches_to_the_newest() -> None:
    core = Core("n1")
    effects = core.handle(fx.DesiredArrived(desired()), 0.0)
    while "AttachNetwork" not in kinds(effects):
        effects = done(core, effects, 0.0)
    attach = only(effects, fx.AttachNetwork)
    applied = core.handle(fx.DesiredArrived(BOTH), 0.5)
    assert kinds(core.handle(attached(attach, (("shop_default", "10.0.1.1/16"),)), 0.6)) == []
    assert core.statuses()[0].message == "waits for network other on this node"
    seen = settle(core, applied, 1.0)
    assert kinds(seen) == ["ApplyNetworks", "Rewire", "CreateContainer", "StartContainer"]
    assert networks(core) == ["shop_default", "other"]


def test_a_restarted_agent_finishes_what_was_under_way() -> None:
    core = up()
    effects = done(core, core.handle(fx.DesiredArrived(BOTH), 1.0), 1.0)
    saved = only(effects, fx.Save).life
    again = Core("n1")
    found = Found(saved.container_id, saved.name, "", (), "running", 7, 3.0)
    back = desired()
    seen = settle(again, again.recover(back, [saved], [found], 9.0), 9.0)
    assert kinds(seen) == ["ApplyNetworks", "Rewire"]
    assert networks(again) == ["shop_default"]


def test_another_fixed_address_is_another_attachment() -> None:
    core = up()
    (life,) = core.lives.values()
    effects = core.handle(fx.DesiredArrived(desired(rewired=(replace(SHOP, ipv4_address="10.0.1.9"),))), 1.0)
    assert kinds(effects) == ["Rewire"]
    same = core.handle(fx.DesiredArrived(desired(rewired=(replace(SHOP, ipv4_address="10.0.1.1", aliases=("a",)),))), 1.0)
    assert kinds(same) == []
    assert life.addresses == (("shop_default", "10.0.1.1/16"),)


@pytest.mark.parametrize("mode", ["host", "none"])
def test_built_in_modes_are_left_alone(mode: str) -> None:
    core = Core("n1")
    container = ContainerSpec("web:1", networks=(Attachment(mode),))
    effects = core.handle(fx.DesiredArrived(desired(container=container, networks=())), 0.0)
    while "AttachNetwork" not in kinds(effects):
        effects = done(core, effects, 0.0)
    attach = only(effects, fx.AttachNetwork)
    netns = "host" if mode == "host" else "ns"
    seen = settle(core, core.handle(fx.Done(attach.replica, attach.token, netns, ()), 0.0), 0.0)
    assert kinds(seen) == ["CreateContainer", "StartContainer"]
