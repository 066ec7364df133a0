"""The controller's picture of the store: decoded documents, kept up to date by changes, handed out as immutable snapshots.

Rules:
- A snapshot is never changed: a dict that was handed out is copied before its next change (a shallow copy of one kind of
  document, at most once a pass), so a pass costs what changed and not what exists.
- A put counts only when its revision is newer than what is known. So the leader applies its own writes at once and the
  watch that repeats them later is silent: whoever listens hears every change once, and no pass sees its own past.
- A document that cannot be read keeps its last good content: damage must never look like a deletion.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from controller.decide.differing import Table
from model import codec
from model.documents import (
    PREFIX,
    AssignmentDoc,
    ClaimsDoc,
    ClusterDoc,
    ControllerDoc,
    DecisionDoc,
    EventChunkDoc,
    LeaderDoc,
    MachinesDoc,
    NetworkDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeGroupDoc,
    NodeHealthDoc,
    ScaleDoc,
    ScaleOrderDoc,
    ServiceDoc,
    ServicePlanDoc,
    StackDoc,
    StatusDoc,
    TokenDoc,
    VolumeDoc,
    VolumePlaceDoc,
)
from model.store_port import Entry

log = logging.getLogger(__name__)
LATE_MAX: Final = 500
"""Revisions that are copied for each snapshot, before all of them are once."""

KINDS: Final[Mapping[str, type]] = {
    "stacks": StackDoc,
    "services": ServiceDoc,
    "networks": NetworkDoc,
    "netplans": NetworkPlanDoc,
    "svcplans": ServicePlanDoc,
    "volumes": VolumeDoc,
    "places": VolumePlaceDoc,
    "nodes": NodeDoc,
    "health": NodeHealthDoc,
    "assignments": AssignmentDoc,
    "status": StatusDoc,
    "leader": LeaderDoc,
    "cluster": ClusterDoc,
    "claims": ClaimsDoc,
    "controllers": ControllerDoc,
    "events": EventChunkDoc,
    "decisions": DecisionDoc,
    "scales": ScaleDoc,
    "scaleorders": ScaleOrderDoc,
    "tokens": TokenDoc,
    "nodegroups": NodeGroupDoc,
    "machines": MachinesDoc,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One document changed. `old`/`new` None: it did not / does not exist. Single documents have the name "".

    `own`: this process wrote it.
    """

    kind: str
    name: str
    old: Any
    new: Any
    revision: int
    own: bool = False


class Revisions:
    """The mod_revision of each key. A copy costs what changed lately: of tens of thousands of keys a pass asks for a few."""

    __slots__ = ("_all", "_late")

    def __init__(self, all_of: dict[str, int] | None = None, late: dict[str, int] | None = None) -> None:
        self._all: Final = {} if all_of is None else all_of
        """Shared by copies, and never changed."""
        self._late: Final = {} if late is None else late
        """What is known since; 0: it does not exist any more."""

    def get(self, key: str, default: int) -> int:
        """`default`: there is none."""
        found = self._late.get(key)
        return self._all.get(key, default) if found is None else found or default

    def set(self, key: str, revision: int) -> None:
        self._late[key] = revision

    def copy(self) -> Revisions:
        if len(self._late) <= LATE_MAX:
            return Revisions(self._all, dict(self._late))
        return Revisions({key: revision for key, revision in (self._all | self._late).items() if revision})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Documents by kind and name, the mod_revision of each key, and the newest revision in it."""

    documents: Mapping[str, Mapping[str, Any]]
    revisions: Revisions | Mapping[str, int]
    index: int

    def of(self, kind: str) -> Mapping[str, Any]:
        return self.documents[kind]

    def one(self, kind: str) -> Any:
        """The single document `leader`, `cluster` or `claims`, or None."""
        return self.documents[kind].get("")

    def revision(self, key: str) -> int:
        """For a guard: 0 when the document does not exist."""
        return self.revisions.get(key, 0)


Listener = Callable[[list[Change]], None]


class Picture:
    """Fed by the mirror (`from_mirror`) and by the leader's own successful transactions (`from_own_puts`).

    `defer` runs a function soon (the loop's call_soon): listeners hear of a burst of changes once, after it.
    """

    def __init__(self, defer: Callable[[Callable[[], None]], object]) -> None:
        self._documents: dict[str, Table[Any]] = {kind: Table() for kind in KINDS}
        self._revisions = Revisions()
        self._shared: set[str] = set()
        self._own: dict[str, int] = {}
        self._writing: dict[str, tuple[bytes, Any]] = {}
        self._listeners: list[Listener] = []
        self._untold: list[Change] = []
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._defer = defer
        self._snapshot: Snapshot | None = None
        self.mirror_revision: Callable[[], int] = lambda: 0
        self._listed = 0
        self.index = 0
        self.changed_at: dict[str, int] = dict.fromkeys(KINDS, 0)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Snapshot(dict(self._documents), self._revisions, self.index)
            self._shared = {*KINDS, "revisions"}
        return self._snapshot

    def from_mirror(self, key: str, entry: Entry | None) -> None:
        """What the mirror saw. A delete carries no revision: while an own put of the key is on its way a listing judges it."""
        if entry is None:
            if key not in self._own:
                self._apply(key, None, self.index)
            return
        if entry.mod_revision >= self._own.get(key, 0):
            self._own.pop(key, None)
        if entry.mod_revision > self._revisions.get(key, 0):
            value, document = self._writing.get(key, (b"", None))
            own = value == entry.value
            self._apply(key, entry.value, entry.mod_revision, own=own, document=document if own else None)

    @contextmanager
    def writing(self, puts: Iterable[tuple[str, bytes]], known: Mapping[str, Any]) -> Iterator[None]:
        """While a transaction with these puts is on its way: the watch may show them before its answer is here, and they are
        our own all the same. `known`: what some of them were made from, by key."""
        rows = {key: (value, known.get(key)) for key, value in puts}
        self._writing.update(rows)
        try:
            yield
        finally:
            for key in rows:
                self._writing.pop(key, None)

    def from_own_puts(
        self, puts: Iterable[tuple[str, bytes]], revision: int, known: Mapping[str, Any] | None = None
    ) -> None:
        """Own writes that succeeded at `revision`, before the mirror shows them. Deletes are left to the mirror. `known`: what
        some of them were made from, by key."""
        documents = known or {}
        for key, value in puts:
            if revision > self._revisions.get(key, 0):
                self._own[key] = revision
                self._apply(key, value, revision, own=True, document=documents.get(key))
        if revision <= self._listed and self._own:
            self._defer(self._bury_own)

    def listed(self, revision: int) -> None:
        """The mirror holds what a listing of that revision said. An own put that it must have shown and did not was deleted by
        somebody else. A watch proves nothing: what it lost must not look deleted."""
        self._listed = max(self._listed, revision)
        if self._own:
            self._defer(self._bury_own)

    async def changed(self) -> None:
        """Returns after the next change of anything."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:  # whoever gives up waiting in a quiet cluster must not pile up
            self._waiters.pop(waiter, None)

    def _apply(self, key: str, value: bytes | None, revision: int, own: bool = False, document: Any = None) -> None:
        kind, _, name = key[len(PREFIX) :].partition("/")
        if kind not in KINDS:
            return
        old = self._documents[kind].get(name)
        new = None if value is None else document or self._decoded(kind, key, value, old)
        if old is None and new is None:
            return
        self._keep(kind, key, name, new, revision)
        if not self._untold:
            self._defer(self._tell)
        self._untold.append(Change(kind, name, old, new, revision, own))

    def _tell(self) -> None:
        revision = self.mirror_revision()  # of a delete: known now that its batch is in
        changes, self._untold = self._untold, []
        if not changes:
            return
        self.index = max(self.index, revision)
        for change in changes:
            if change.new is None:
                self.changed_at[change.kind] = max(self.changed_at[change.kind], revision)
        for listener in tuple(self._listeners):
            listener(changes)
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _bury_own(self) -> None:
        for key in [key for key, written in self._own.items() if written <= self._listed]:
            del self._own[key]
            self._apply(key, None, self._listed)

    def _keep(self, kind: str, key: str, name: str, new: Any, revision: int) -> None:
        documents, revisions = self._unshared(kind), self._unshared_revisions()
        if new is None:
            documents.drop(name)
            revisions.set(key, 0)
        else:
            documents.put(name, new)
            revisions.set(key, revision)
        self._snapshot = None
        self.index = max(self.index, revision)
        self.changed_at[kind] = max(self.changed_at[kind], revision)

    def _decoded(self, kind: str, key: str, value: bytes, old: Any) -> Any:
        try:
            return codec.decode(KINDS[kind], value)
        except (ValueError, TypeError) as error:
            log.error("store: %s cannot be read (%s): keeping what was known of it", key, error)
            return old

    def _unshared(self, kind: str) -> Table[Any]:
        if kind in self._shared:
            self._documents[kind] = self._documents[kind].branch()
            self._shared.discard(kind)
        return self._documents[kind]

    def _unshared_revisions(self) -> Revisions:
        if "revisions" in self._shared:
            self._revisions = self._revisions.copy()
            self._shared.discard("revisions")
        return self._revisions
