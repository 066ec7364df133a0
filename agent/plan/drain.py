"""Letting the connections of a replica end before it is told to stop.

Rules: pure. Nobody may be left who still sends new connections when the stop signal comes; the whole stop stays within the
grace period, and at least half of it is left after the signal. What nobody can connect to by name or published port is not
drained.
"""

from __future__ import annotations

from dataclasses import replace

from agent.plan.networks import BUILT_IN
from agent.plan.records import Drain, Life
from model.spec import Pairs

DRAIN_MAX_S = 30.0
UNWANTED = Drain(-1)


def within_s(life: Life) -> float:
    """How long connections may take to end."""
    return min(DRAIN_MAX_S, life.spec.container.stop_grace_period_s / 2)


def places(life: Life) -> Pairs:
    """(network, address) that others may have connections to."""
    published = bool(life.ports) or any(port.mode == "ingress" for port in life.spec.container.ports)
    return tuple(
        (network, address.partition("/")[0]) for network, address in life.addresses if published or network not in BUILT_IN
    )


def due(life: Life) -> bool:
    """Whether a stop begins with a drain."""
    return not life.drain.token and within_s(life) > 0 and bool(places(life))


def begun(life: Life, token: int, now: float) -> Life:
    """The grace period runs from here."""
    grace_s = life.spec.container.stop_grace_period_s
    return replace(life, drain=Drain(token, now + within_s(life)), kill_at=now + grace_s)


def over(life: Life, token: int) -> Life:
    """Its connections have ended, or may not take longer."""
    return replace(life, drain=replace(life.drain, until=0.0)) if token == life.drain.token else life
