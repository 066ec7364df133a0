"""Which networks the node must have, and which of them are ready to be attached to.

Rules: pure. A network is kept until the last life that is attached to it is gone, even when the controller has stopped naming
it. `host`, `none` and the node's own `bridge` need nothing here: the driver makes them with the attachment.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.plan.network import LOCAL_BRIDGE, NetworkWanted
from agent.plan.records import Failure, Life
from model.spec import Attachment

HOST = "host"
BUILT_IN = (HOST, "none", LOCAL_BRIDGE)
_RETRY_MAX_S = 30.0
_BRIDGED = (Attachment(LOCAL_BRIDGE),)


def attachments(life: Life) -> tuple[Attachment, ...]:
    """What the replica is to be attached to; without a word about networks the node's own bridge, as Docker does."""
    return life.networks if life.networks is not None else life.spec.container.networks or _BRIDGED


def _names(life: Life) -> Iterable[str]:
    return (item.network for item in attachments(life) if item.network not in BUILT_IN)


def _used(life: Life) -> Iterable[str]:
    """Networks it is to be attached to, and those it still is."""
    return (*_names(life), *(name for name, _ in life.addresses if name not in BUILT_IN))


class Networks:
    """What is wanted, what was asked for last and what is there."""

    def __init__(self) -> None:
        self.retry_at: float | None = None
        self._wanted: dict[str, NetworkWanted] = {}
        self._asked: dict[str, NetworkWanted] | None = None
        self._ready: dict[str, NetworkWanted] = {}
        self._token = 0
        self._failures = 0

    def want(self, desired: Iterable[NetworkWanted], lives: Iterable[Life]) -> bool:
        """Take note of what is wanted; True when it must be applied; so it is the first time: something may be left."""
        wanted = {network.name: network for network in desired}
        for life in lives:
            for name in _used(life) if life.attached else ():
                if name not in wanted and name in self._wanted:
                    wanted[name] = self._wanted[name]
        self._wanted = dict(sorted(wanted.items()))
        return self._wanted != self._asked

    def begin(self, token: int) -> tuple[NetworkWanted, ...]:
        """What to apply now. Networks that only get other peers stay ready meanwhile."""
        self._token, self._asked, self.retry_at = token, self._wanted, None
        self._ready = {name: net for name, net in self._ready.items() if _same_place(net, self._wanted.get(name))}
        return tuple(self._wanted.values())

    def applied(self, token: int, problem: Failure | None, now: float) -> bool:
        """Take an outcome; False when it is not that of the newest order."""
        if token != self._token:
            return False
        if problem is None:
            self._ready, self._failures = dict(self._asked or {}), 0
        else:
            self._failures += 1
            self.retry_at = now + min(_RETRY_MAX_S, 2.0 ** min(self._failures - 1, 5))
        return True

    def due(self, now: float) -> bool:
        return self.retry_at is not None and now >= self.retry_at

    def missing(self, life: Life) -> str | None:
        """A network the life needs that is not ready; None when all are."""
        return next((name for name in _names(life) if name not in self._ready), None)


def _same_place(one: NetworkWanted, other: NetworkWanted | None) -> bool:
    return other is not None and (one.vni, one.subnet, one.slice, one.internal) == (
        other.vni, other.subnet, other.slice, other.internal
    )  # fmt: skip
