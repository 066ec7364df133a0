"""When a replica without a health check may be called: as soon as it listens on the TCP ports that it publishes or exposes.

Rules: pure. Docker and Kubernetes call such a container as soon as its process runs, and its first callers are refused; here
its health is `starting` until it listens, and then none again. One that does not listen within OPEN_WITHIN_S is called all the
same: it may mean to (a second port that is not used as configured). With no port in its spec nobody knows where it will listen.
"""

from __future__ import annotations

from typing import Final

from agent.plan.publish import exposed
from agent.plan.quick import replace
from agent.plan.records import Health, Life

OPEN_WITHIN_S: Final = 10.0
_FIRST_LOOK_S, _LOOK_AT_LEAST_S = 0.02, 0.5
_LISTEN: Final = b"0A"
_LOOPBACK: Final = (b"0100007F", b"00000000000000000000000001000000")
"""127.0.0.1, alone or in an IPv6 address, and ::1, in the words of a little-endian machine."""


def awaited(life: Life) -> tuple[int, ...]:
    """TCP ports inside that have to be open before anybody is sent to it. None on the node's own network, or without checks."""
    spec = life.spec.container
    if not life.addresses or (spec.healthcheck is not None and spec.healthcheck.disable):
        return ()
    published = ((port.target, port.protocol) for port in spec.ports)
    said = (row for text in spec.expose for row in exposed(text))
    return tuple(sorted({port for port, protocol in (*published, *said) if protocol == "tcp"}))


def begun(life: Life, now: float) -> Health:
    """The health of one that was just started and has no check."""
    return Health("starting", 0, now + _FIRST_LOOK_S) if awaited(life) else Health()


def looked(life: Life, listening: frozenset[int], now: float) -> Life:
    """The life after a look at the ports that are open inside. The longer it takes, the more seldom it is looked."""
    if life.health.status != "starting":
        return life
    runs_s = now - life.started_at
    if closed(life, listening) and runs_s < OPEN_WITHIN_S:
        return replace(life, health=Health("starting", 0, now + min(_LOOK_AT_LEAST_S, max(_FIRST_LOOK_S, runs_s / 4))))
    return replace(life, health=Health())


def closed(life: Life, listening: frozenset[int]) -> tuple[int, ...]:
    """Those of the awaited ports that are not open."""
    return tuple(port for port in awaited(life) if port not in listening)


def ports_of(table: bytes) -> frozenset[int]:
    """Ports that somebody listens on for callers from outside; `table` is /proc/PID/net/tcp or tcp6."""
    rows = (line.split(None, 4) for line in table.splitlines()[1:])  # sl local_address rem_address st ...
    places = (row[1].partition(b":") for row in rows if len(row) > 3 and row[3] == _LISTEN)
    return frozenset(int(port, 16) for address, _, port in places if not address.endswith(_LOOPBACK))
