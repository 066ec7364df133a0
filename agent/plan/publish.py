"""Ports of a replica that are published on its own node (mode host): which, and under which numbers.

Rules: pure. A number that was chosen once is asked for again. A container on the node's own network needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.plan.records import Life
from model.spec import Pairs, Port

_PROTOCOLS = ("tcp", "udp", "sctp")


def host_ports(life: Life) -> tuple[Port, ...]:
    """The spec's ports of mode host; with `publish_all` also every exposed one, on any number."""
    spec = life.spec.container
    own = tuple(port for port in spec.ports if port.mode == "host")
    if not spec.publish_all:
        return own
    known = {(port.target, port.protocol) for port in spec.ports}
    image = life.image.exposed_ports if life.image else ()
    every = dict.fromkeys(row for text in (*image, *spec.expose) for row in exposed(text))
    return own + tuple(Port(target, 0, protocol, "host") for target, protocol in every if (target, protocol) not in known)


def exposed(text: str) -> Iterable[tuple[int, str]]:
    """`80`, `80/udp` or `8000-8005/tcp` as (port, protocol); nothing for what is no port."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdigit() or (last and not last.isdigit()) or (protocol or "tcp") not in _PROTOCOLS:
        return ()
    return tuple((number, protocol or "tcp") for number in range(int(first), int(last or first) + 1) if 0 < number < 65536)


def again(ports: Iterable[Port], published: Pairs) -> tuple[Port, ...]:
    """`ports` with the numbers they had before, where one could be chosen."""
    left = [(target, int(place.rpartition(":")[2])) for target, place in published]
    rows = []
    for port in ports:
        had = next((row for row in left if row[0] == name(port) and fits(port, row[1])), None)
        if had is not None:
            left.remove(had)
            port = replace(port, published=had[1], published_end=0)
        rows.append(port)
    return tuple(rows)


def fits(port: Port, number: int) -> bool:
    """Whether the port may be published under this number."""
    return not port.published or port.published <= number <= max(port.published, port.published_end)


def name(port: Port) -> str:
    """As people write it: `80/tcp`."""
    return f"{port.target}/{port.protocol}"
