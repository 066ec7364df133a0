"""One controller of the small model: what it believes, and what it decides; the same facts are decided once.

Rules: never changed, and one object for each belief: a change gives another one. Which node it has a session with is known by
the node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.decide.nodes import decide_nodes
from controller.decide.services import decide_services
from controller.decide.types import Plan, Session, Settings
from controller.loops.views import view_of
from controller.loops.writer import guards, operations, split
from model.store_port import Guard, Put
from sim.small.store import HERE, SmallStore, Write, changed

SETTINGS: Final = Settings(node_timeout_ms=10_000)
Links = tuple[tuple[str, bool], ...]
"""The nodes that it has a session with, and whether they are cut."""


@dataclass(frozen=True, slots=True)
class Belief:
    """`seen`: the store as it knows it. `stale`: documents that were written since, whose guards would fail. `reign_ms`: since
    when it leads, as far as it knows; None: it knows that it does not. `whole`: nodes that have sent their whole status in
    its reign; `heard`: when each of those was heard last that are no longer. `deaf`: it will not hear how its next transaction
    ends."""

    seen: SmallStore
    stale: frozenset[str] = frozenset()
    reign_ms: int | None = None
    whole: tuple[str, ...] = ()
    heard: tuple[tuple[str, int], ...] = ()
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """A plan as the writes it becomes."""

    plan: Plan
    writes: tuple[Write, ...]


class Control:
    """One for each belief, with its fields."""

    def __init__(self, belief: Belief, known: dict[Belief, Control]) -> None:
        self.seen, self.stale, self.reign_ms = belief.seen, belief.stale, belief.reign_ms
        self.whole, self.heard, self.deaf = belief.whole, belief.heard, belief.deaf
        self.number = len(known)
        self._belief, self._known = belief, known
        self._decided: dict[tuple[str, Links, int, int], Decided] = {}

    @staticmethod
    def first(seen: SmallStore) -> Control:
        """One that does not lead, that others come from."""
        belief, known = Belief(seen), dict[Belief, Control]()
        return known.setdefault(belief, Control(belief, known))

    def _being(self, belief: Belief) -> Control:
        found = self._known.get(belief)
        if found is None:
            found = self._known[belief] = Control(belief, self._known)
        return found

    # ---- what it knows

    def leads(self, store: SmallStore, now_ms: int) -> Control:
        return self._being(Belief(store, reign_ms=now_ms))

    def follows(self) -> Control:
        return self._being(Belief(self.seen.having({})))

    def sees(self, store: SmallStore) -> Control:
        """Its watch has caught up."""
        return self._being(replace(self._belief, seen=store, stale=frozenset()))

    def missed(self, write: Write) -> Control:
        """Another one has written, or it does not know that it has."""
        stale = self.stale | write.keys
        return self if stale == self.stale else self._being(replace(self._belief, stale=stale))

    def wrote(self, write: Write, store: SmallStore) -> Control:
        """It has heard that its write has succeeded; `store` after it. Deletes are heard of by the watch."""
        if not self.stale:
            return self._being(replace(self._belief, seen=store))
        puts = [op for op in write.ops if isinstance(op, Put)]
        keys = frozenset(op.key for op in puts)
        stale = (self.stale | write.keys) - keys
        return self._being(replace(self._belief, seen=self.seen.having(changed(self.seen.rows, puts)), stale=stale))

    def hearing(self) -> Control:
        return self._being(replace(self._belief, deaf=False))

    def deafened(self) -> Control:
        return self._being(replace(self._belief, deaf=True))

    def whole_from(self, node: str) -> Control:
        """The node has sent its whole status."""
        return self._being(replace(self._belief, whole=tuple(sorted({*self.whole, node}))))

    def lost(self, node: str, now_ms: int) -> Control:
        """The node is heard no more."""
        whole = tuple(name for name in self.whole if name != node)
        heard = tuple(sorted({**dict(self.heard), node: now_ms}.items()))
        return self._being(replace(self._belief, whole=whole, heard=heard))

    def met(self, node: str) -> Control:
        """The node has a session."""
        return self._being(replace(self._belief, heard=tuple(item for item in self.heard if item[0] != node)))

    # ---- what it decides

    def decided(self, what: str, links: Links, now_ms: int, heard_ms: int) -> Decided:
        """What it would write now; `what`: services or nodes. `heard_ms`: when those it hears were heard."""
        asked = (what, links, now_ms, heard_ms)
        found = self._decided.get(asked)
        if found is None:
            found = self._decided[asked] = _decided(what, self.seen, self._sessions(links, heard_ms), self.reign_ms, now_ms)
        return found

    def _sessions(self, links: Links, heard_ms: int) -> dict[str, Session]:
        found = {node: Session(False, at_ms, True) for node, at_ms in self.heard}
        for node, cut in links:
            found[node] = Session(not cut, found[node].last_heard_ms if cut else heard_ms, node in self.whole)
        return found

    def may_write(self, write: Write) -> bool:
        """Whether the store would take it while this one leads: no document it is guarded by was written since."""
        return all(self._holds(guard) for guard in write.guards)

    def _holds(self, guard: Guard) -> bool:
        revision = HERE if guard.key in self.seen.rows else 0
        return guard.key not in self.stale and guard.mod_revision == revision


class _Sessions(Mapping[str, Session]):
    """Sessions, and whether anybody looked at them."""

    def __init__(self, rows: Mapping[str, Session]) -> None:
        self._rows, self.asked = rows, False

    def __getitem__(self, node: str) -> Session:
        self.asked = True
        return self._rows[node]

    def __iter__(self) -> Iterator[str]:
        self.asked = True
        return iter(self._rows)

    def __len__(self) -> int:
        self.asked = True
        return len(self._rows)


def _decided(what: str, seen: SmallStore, rows: Mapping[str, Session], reign_ms: int | None, now_ms: int) -> Decided:
    """Once for the same facts; sessions that it does not look at are none of them."""
    facts = (what, reign_ms, now_ms)
    found: Decided | None = seen.facts.get(facts)
    if found is None:
        with_them = (*facts, tuple(sorted(rows.items())))
        found = seen.facts.get(with_them)
        if found is None:
            sessions = _Sessions(rows)
            found = _decide(what, seen, sessions, reign_ms, now_ms)
            seen.facts[with_them if sessions.asked else facts] = found
    return found


def _decide(what: str, seen: SmallStore, sessions: Mapping[str, Session], reign_ms: int | None, now_ms: int) -> Decided:
    assert reign_ms is not None
    view = replace(view_of(seen.snapshot, reign_started_ms=reign_ms), sessions=sessions)
    plan = decide_nodes(view, SETTINGS, now_ms) if what == "nodes" else decide_services(view, None, SETTINGS, now_ms)
    runs = () if plan.empty() else split(operations(plan))
    return Decided(plan, tuple(Write(tuple(guards(run, seen.snapshot)), run) for run in runs))
