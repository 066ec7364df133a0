"""Which addresses may be given to another container: those that no node sends anything to any more.

Rules: pure. A place is present while any endpoint says so; the message that takes its last endpoint away carries a number, and
the place is forgotten once the floor (what every node with a session follows) has reached it. Places nobody was told of are
forgotten, but an agent that has just begun does not know what an earlier one left: until it heard the first floor it takes
nothing for forgotten. A new session may bring another controller whose numbers begin anew: what was removed before it cannot
be compared any more and counts as forgotten from the first floor of the new session on, since that floor says that the nodes
follow a state which was told after the removal. A floor that never comes (no controller) costs a place `FORGET_ANYWAY_S`, not
its life: nodes without a session that long are not waited for either.
"""

from __future__ import annotations

from typing import Final

from agent.plan.names import EndpointsMessage

FORGET_ANYWAY_S: Final = 300.0
TOLD_MAX: Final = 10_000
_BEFORE: Final = 1

Place = tuple[str, str]


class Forgetting:
    """Fed with every message and floor; asked before an address is used again."""

    def __init__(self, begin: float = 0.0) -> None:
        """`begin`: the time now."""
        self._begin = begin
        self._heard = False
        self._places: dict[str, dict[str, frozenset[Place]]] = {}
        self._present: dict[Place, int] = {}
        self._gone: dict[Place, tuple[int, float]] = {}
        self._told: dict[Place, None] = {}
        self._floor = 0

    def take(self, message: EndpointsMessage, now: float) -> None:
        """Who is there after this message, and who no longer."""
        known = self._places.setdefault(message.network, {})
        removed = set(known) if message.whole else set(message.removed)
        for service in message.services:
            removed.discard(service.service_id)
            places = ((e.network or message.network, e.address) for e in service.endpoints)
            self._set(known, service.service_id, frozenset(places), message.number, now)
        for gone in sorted(removed):
            self._set(known, gone, frozenset(), message.number, now)
        self._expire(now)

    def _expire(self, now: float) -> None:
        """Floors are told to nodes that lost something of their own: what others lost must not pile up until then."""
        while self._gone and now - next(iter(self._gone.values()))[1] > FORGET_ANYWAY_S:
            self._over(next(iter(self._gone)))

    def _over(self, place: Place) -> None:
        del self._gone[place]
        self._told[place] = None
        while len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]

    def _set(self, known: dict[str, frozenset[Place]], service: str, places: frozenset[Place], number: int, now: float) -> None:
        before = known.pop(service, frozenset())
        if places:
            known[service] = places
        for place in places - before:
            self._present[place] = self._present.get(place, 0) + 1
            self._gone.pop(place, None)
            self._told.pop(place, None)
        for place in before - places:
            if self._absent(place):
                self._gone[place] = (number, now)

    def leave(self, network: str) -> None:
        """This node takes no part in it any more: nothing is said of it from now on."""
        for places in self._places.pop(network, {}).values():
            for place in places:
                self._absent(place)
        for place in [place for place in self._gone if place[0] == network]:
            del self._gone[place]

    def _absent(self, place: Place) -> bool:
        """One that named the place does so no longer; whether it was the last."""
        self._present[place] -= 1
        if self._present[place]:
            return False
        del self._present[place]
        return True

    def floor(self, number: int) -> None:
        """0: a new session."""
        if number == 0:
            self._gone = {place: (_BEFORE, since) for place, (_, since) in self._gone.items()}
        else:
            self._heard = True
        self._floor = number
        for place in [place for place, (needed, _) in self._gone.items() if needed <= number]:
            self._over(place)

    def forgotten(self, place: Place, now: float) -> bool:
        if place in self._present:
            return False
        gone = self._gone.get(place)
        if gone is None:
            return self._heard or now - self._begin > FORGET_ANYWAY_S
        return gone[0] <= self._floor or now - gone[1] > FORGET_ANYWAY_S

    def told(self, place: Place) -> bool:
        """Whether other nodes ever heard of it (the last few thousand at least)."""
        return place in self._present or place in self._gone or place in self._told
