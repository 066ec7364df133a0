"""Networks of a replica that is attached already: what differs from what is wanted, and what an outcome makes of it.

Rules: pure; level-triggered: only the networks it holds and those it should hold count. A container is never restarted for its
networks: what fails is tried again. Containers on the node's own network (`host`) stay there.
"""

from __future__ import annotations

from dataclasses import replace

from agent.plan.networks import HOST, attachments
from agent.plan.records import Failure, Life, Wiring
from model.spec import Attachment, Pairs

_RETRY_MAX_S = 30.0


def linked(life: Life) -> tuple[Attachment, ...]:
    """The networks it is to have an interface on."""
    return tuple(item for item in attachments(life) if item.network not in (HOST, "none"))


def leaving(life: Life, addresses: Pairs) -> tuple[str, ...]:
    """Networks of `addresses` it is to leave: not wanted any more, or wanted with another address."""
    wanted = {item.network: item.ipv4_address for item in linked(life)}
    return tuple(
        network
        for network, address in addresses
        if network not in wanted or wanted[network] not in ("", address.partition("/")[0])
    )


def differs(life: Life) -> bool:
    """Whether it is attached to other networks than it should be, or may be: a change was begun and nobody knows its end."""
    if life.netns == HOST:
        return False
    if life.wiring.begun or leaving(life, life.addresses):
        return True
    held = [network for network, _ in life.addresses]
    return any(item.network not in held for item in linked(life))


def due(life: Life, now: float) -> bool:
    return now >= life.wiring.retry_at and differs(life)


def want_networks(life: Life, networks: tuple[Attachment, ...] | None) -> Life:
    """The life with other networks wanted of it."""
    if networks == life.networks:
        return life
    return replace(life, networks=networks, wiring=replace(life.wiring, failures=0, retry_at=0.0))


def unfinished(life: Life) -> Failure | None:
    """Why it is not attached as it should be though nothing has failed."""
    held = [network for network, _ in life.addresses]
    missing = [item.network for item in linked(life) if item.network not in held]
    return Failure(f"network {missing[0]}: not attached yet") if missing else None


def rewired(life: Life) -> Life:
    """It is attached as it was wanted; what came meanwhile is the next change."""
    return replace(life, busy="", wiring=Wiring())


def rewire_failed(life: Life, now: float) -> Life:
    """It is attached to some of the networks, and the rest is tried again."""
    failures = life.wiring.failures + 1
    wait = min(_RETRY_MAX_S, 2.0 ** min(failures - 1, 5))
    return replace(life, wiring=Wiring(True, failures, now + wait))
