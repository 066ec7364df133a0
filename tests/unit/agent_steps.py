"""A core to go through step by step: everything it asks for succeeds, with an address on every network."""

from __future__ import annotations

from typing import TypeVar

from agent.plan import effects as fx
from agent.plan.core import Core
from agent.plan.network import NetworkWanted
from agent.plan.records import Desired, ImageFacts, Life, Slot, WantedService, WantedSpec
from agent.plan.rewire import linked
from model.spec import Attachment, ContainerSpec, Pairs, ServiceSpec

NET = NetworkWanted("shop_default", 7, "10.0.0.0/16", "10.0.1.0/24")
PLAIN = ContainerSpec("web:1", networks=(Attachment("shop_default"),))
E = TypeVar("E", bound=fx.Effect)


def desired(
    count: int = 1,
    *,
    created: int = 1,
    container: ContainerSpec = PLAIN,
    stopped: bool = False,
    rewired: tuple[Attachment, ...] | None = None,
    networks: tuple[NetworkWanted, ...] = (NET,),
) -> Desired:
    service = WantedService("s1", "shop_web", tuple(Slot(n, 1, created) for n in range(1, count + 1)), stopped, rewired)
    return Desired(1, (service,), (WantedSpec("s1", 1, ServiceSpec("shop_web", container)),), networks)


def only(effects: list[fx.Effect], kind: type[E]) -> E:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def kinds(effects: list[fx.Effect]) -> list[str]:
    """What is to be performed, without journal and reports."""
    quiet = (fx.Save, fx.Report, fx.Drop, fx.Gone, fx.Say)
    return [type(effect).__name__ for effect in effects if not isinstance(effect, quiet)]


def done(core: Core, effects: list[fx.Effect], now: float) -> list[fx.Effect]:
    """Everything to be performed succeeds; what comes after it."""
    after: list[fx.Effect] = []
    for effect in effects:
        match effect:
            case fx.PullImage():
                after += core.handle(fx.Pulled(effect, ImageFacts("sha")), now)
            case fx.ApplyNetworks(_, token):
                after += core.handle(fx.NetworksApplied(token), now)
            case fx.Save() | fx.Report() | fx.Drop() | fx.Gone() | fx.Say():
                pass
            case fx.KillContainer() | fx.Probe() | fx.Look() | fx.DeleteOrphan():
                pass
            case fx.AttachNetwork(replica, token, life) | fx.Rewire(replica, token, life):
                after += core.handle(attached(effect, given(life)), now)
            case fx.Drain(replica, token):
                after += core.handle(fx.Drained(replica, token), now)
            case _:
                after += core.handle(fx.Done(effect.replica, effect.token), now)
    return after


def given(life: Life) -> Pairs:
    """An address on every network it is to be linked to."""
    return tuple((item.network, f"10.0.1.{life.id.slot}/16") for item in linked(life))


def attached(effect: fx.AttachNetwork | fx.Rewire, addresses: Pairs) -> fx.Stimulus:
    if isinstance(effect, fx.Rewire):
        return fx.Rewired(effect.replica, effect.token, addresses)
    return fx.Done(effect.replica, effect.token, "ns", addresses)


def settle(core: Core, effects: list[fx.Effect], now: float) -> list[fx.Effect]:
    """Until nothing is to be performed; everything that was said on the way."""
    seen = list(effects)
    while kinds(effects := done(core, effects, now)):
        seen += effects
    return seen + effects


def up(container: ContainerSpec = PLAIN, count: int = 1, now: float = 0.0) -> Core:
    core = Core("n1")
    settle(core, core.handle(fx.DesiredArrived(desired(count, container=container)), now), now)
    assert [status.state for status in core.statuses()] == ["running"] * count
    return core


def ids(core: Core) -> list[str]:
    return [status.container_id for status in core.statuses()]
