"""A replica without a health check is called as soon as it listens on its ports, or after ten seconds. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.plan import effects as fx
from agent.plan.adopt import adopted
from agent.plan.container import Found
from agent.plan.core import Core
from agent.plan.listening import awaited, ports_of
from agent.plan.status import kept
from model.spec import Attachment, ContainerSpec, Healthcheck, Port
from tests.unit.agent_steps import PLAIN, only, up

SERVING = replace(PLAIN, ports=(Port(8080), Port(53, protocol="udp")), expose=("9000",))
HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def look(core: Core, now: float, *listening: int) -> list[fx.Effect]:
    effect = only(core.handle(fx.TimerDue(), now), fx.Look)
    return core.handle(fx.Looked(effect.replica, effect.container_id, frozenset(listening)), now)


def health(core: Core) -> str:
    (status,) = core.statuses()
    assert status.state == "running"
    return status.health


def test_it_is_starting_until_all_its_tcp_ports_are_open() -> None:
    core = up(SERVING)
    assert health(core) == "starting"
    assert core.wake_at() == 0.02
    look(core, 0.02)
    assert core.wake_at() == 0.04
    look(core, 1.0, 8080)
    assert (health(core), core.wake_at()) == ("starting", 1.25)
    assert not [effect for effect in look(core, 1.25, 8080, 9000) if isinstance(effect, fx.Say)]
    assert health(core) == ""
    assert core.wake_at() is None


def test_one_that_never_listens_is_called_after_ten_seconds_and_it_is_told() -> None:
    core = up(SERVING)
    look(core, 9.9, 8080)
    assert (health(core), core.wake_at()) == ("starting", 10.4)
    said = only(look(core, 10.4, 8080), fx.Say)
    assert said.sentence == "shop_web.1 does not listen on port 9000 after 10 s; callers are sent to it all the same"
    assert health(core) == ""


@pytest.mark.parametrize(
    "container",
    [
        PLAIN,
        replace(SERVING, healthcheck=Healthcheck(disable=True)),
        replace(SERVING, networks=(Attachment("host"),)),
        replace(PLAIN, ports=(Port(53, protocol="udp"),)),
    ],
)
def test_nobody_waits_for_ports_that_are_not_there(container: ContainerSpec) -> None:
    core = up(container)
    assert health(core) == ""
    assert core.wake_at() is None


def test_its_own_check_goes_before() -> None:
    core = up(replace(SERVING, healthcheck=Healthcheck(("CMD", "check"), interval_s=10.0)))
    assert core.wake_at() == 10.0
    only(core.handle(fx.TimerDue(), 10.0), fx.Probe)


def test_a_restarted_agent_goes_on_waiting() -> None:
    (life,) = up(SERVING).lives.values()
    entry = kept(life)
    assert entry is not None
    seen = {life.container_id: Found(life.container_id, life.name, "log", (), "running", 7, 3.0, None)}
    again = adopted(entry, seen, 4.0)
    assert (again.health.status, again.health.next_at) == ("starting", 0.0)
    begun = adopted(replace(entry, stage="created"), seen, 4.0)
    assert awaited(begun) == (8080, 9000)
    assert begun.health.status == "starting", "it was started in the moment in which the agent died"


def test_ports_are_read_from_the_kernels_tables() -> None:
    four = HEAD + (
        b"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
        b"   1: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n"
        b"   2: 0200000A:0050 0300000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0\n"
    )
    six = HEAD + (
        b"   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4\n"
        b"   1: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 5\n"
        b"   2: 0000000000000000FFFF00000100007F:001A 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 6\n"
    )
    assert ports_of(four) == {8080}
    assert ports_of(six) == {443}
    assert ports_of(HEAD) == ports_of(b"") == frozenset()
