"""One controller of the small model: what it believes, and what it decides and says; the same facts are decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from controller.decide.nodes import decide_nodes
from controller.decide.services import decide_services
from controller.decide.types import Plan, Session, Settings, View
from controller.dispatch.desired import Composer, PeerBook, SpecBook, wanted
from controller.loops.views import view_of
from protos import node_pb2 as pb
from sim.small.store import EMPTY, SmallStore

SETTINGS: Final = Settings(node_timeout_ms=10_000)


@dataclass(frozen=True, slots=True)
class Reign:
    """What a controller believes. `revision` of the leader's key is the guard of all its writes."""

    epoch: int
    revision: int
    started_ms: int


@dataclass(frozen=True, slots=True)
class Control:
    """One controller. `seen`: the store as it knows it; `whole`: nodes that have sent their whole status in its reign; `heard`:
    when each of them was heard last, of those that are no longer. `deaf`: it will not hear how its next transaction ends."""

    seen: SmallStore = EMPTY
    reign: Reign | None = None
    whole: tuple[str, ...] = ()
    heard: tuple[tuple[str, int], ...] = ()
    deaf: bool = False

    def sessions(self, places: Mapping[str, bool], heard_ms: int) -> dict[str, Session]:
        """What it knows of them. `places`: those it has a session with, and whether they are cut; if not, heard then."""
        found = {node: Session(False, at_ms, True) for node, at_ms in self.heard}
        for node, cut in places.items():
            found[node] = Session(not cut, found[node].last_heard_ms if cut else heard_ms, node in self.whole)
        return found


def plan_of(what: str, row: Control, sessions: Mapping[str, Session], now_ms: int) -> Plan:
    """What it would write now; `what`: services or nodes."""
    assert row.reign is not None
    facts = (row.seen.contents(), tuple(sorted(sessions.items())), row.reign.started_ms, now_ms)
    return decided(what, _Facts(facts, view_of(row.seen.snapshot(), None, sessions, row.reign.started_ms)))


def message(seen: SmallStore, node: str) -> pb.Desired:
    """The whole of what the node must run."""
    return _message(_Seen(seen), node)


@dataclass(frozen=True, slots=True)
class _Facts:
    """A view with what tells it from others."""

    facts: object
    view: View

    def __hash__(self) -> int:
        return hash(self.facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Facts) and self.facts == other.facts


@lru_cache(maxsize=200_000)
def decided(what: str, facts: _Facts) -> Plan:
    now_ms = facts.facts[3]  # type: ignore[index]
    if what == "nodes":
        return decide_nodes(facts.view, SETTINGS, now_ms)
    return decide_services(facts.view, None, SETTINGS, now_ms)


@dataclass(frozen=True, slots=True)
class _Seen:
    store: SmallStore

    def __hash__(self) -> int:
        return hash(self.store.contents())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Seen) and self.store.contents() == other.store.contents()


@lru_cache(maxsize=200_000)
def _message(seen: _Seen, node: str) -> pb.Desired:
    snapshot, specs = seen.store.snapshot(), SpecBook()
    for service in snapshot.of("services").values():
        specs.add(service)
    peers = PeerBook()
    found = Composer(specs, peers).message(node, None, wanted(snapshot, node, {}, peers), set(), snapshot)
    assert found is not None
    return found
