"""Services with which nothing is the matter: each slot has one holder on the nodes that are not down, of the newest version,
and none of them has a reason to leave. They need not be looked at replica by replica, however many documents of nodes change.

Rules: a cache beside the index: it compares documents by identity with those it saw last, and what it knew of a service counts
as long as its document, its entries, the nodes and what agents said of it that matters here are the same. It says nothing that
the whole look (work.py) would not find; whoever is in doubt is not calm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from controller.decide.differing import missing, others
from controller.decide.standing import Key, is_short_of_disk
from model.documents import AssignedService, NodeDoc, NodeHealthDoc, ReplicaStatus, ServiceDoc, StatusDoc
from model.states import COMPLETE, FAILED, REJECTED

if TYPE_CHECKING:
    from controller.decide.types import View

_ODD: Final = frozenset({COMPLETE, FAILED, REJECTED})


class Calm(NamedTuple):
    """`held`: slots that have a holder. `newest_ms`: when the youngest replica was created (0: there is none). `lost`: as in a
    Standing."""

    held: int
    newest_ms: int
    lost: tuple[tuple[int, str], ...]


class _Odd(NamedTuple):
    """Ids of services of which a node tells replicas that have ended (`over`; perhaps to be started again), and that have no
    disk (`full`)."""

    over: frozenset[str]
    full: frozenset[str]


class _Known(NamedTuple):
    """What an answer was found from, and the answer."""

    doc: ServiceDoc
    volumes: tuple[str, ...]
    stamps: tuple[int, int, int, int]
    calm: Calm | None


_NOTHING: Final = _Odd(frozenset(), frozenset())


class Calms:
    """`of` a service, in any view."""

    def __init__(self) -> None:
        self._nodes: Mapping[str, NodeDoc] = {}
        self._health: Mapping[str, NodeHealthDoc] = {}
        self._statuses: Mapping[str, StatusDoc] = {}
        self._places = 0
        """Grows when there are other nodes, or others of them are down or drained."""
        self._facts = 0
        """Grows when any node is another one for the scheduler."""
        self._told: dict[str, int] = {}
        """By service id; grows when what is odd of it has changed."""
        self._odd: dict[str, _Odd] = {}
        """By node, where there is any."""
        self._down: frozenset[str] = frozenset()
        self._drained: frozenset[str] = frozenset()
        self._known: dict[str, _Known] = {}

    def of(
        self, view: View, doc: ServiceDoc, volumes: tuple[str, ...], entries: Mapping[str, AssignedService], stamp: int,
        leaves: Callable[[str], bool] | None,
    ) -> Calm | None:  # fmt: skip
        """None: it is not, or not known to be. `volumes`: its local ones. `entries`: by node; `stamp` is another one when they
        are others. `leaves`: whether the service's replicas have to leave a node that is not drained; None: nowhere."""
        self._refresh(view)
        stamps = (stamp, self._places, self._told.get(doc.id, 0), self._facts if leaves is not None else 0)
        known, name = self._known.get(doc.spec.name), doc.spec.name
        if known is None or known.doc is not doc or known.stamps != stamps or known.volumes != volumes:
            if len(self._known) > 2 * len(view.services) + 64:
                self._known.clear()
            known = self._known[name] = _Known(doc, volumes, stamps, self._found(view, doc, entries, leaves))
        return known.calm

    def living(self, entries: Mapping[str, AssignedService]) -> dict[str, AssignedService]:
        """Those on nodes that are not down, by node; of the view that `of` was asked last."""
        return {node: entries[node] for node in sorted(entries) if node not in self._down}

    def _found(
        self, view: View, doc: ServiceDoc, entries: Mapping[str, AssignedService], leaves: Callable[[str], bool] | None
    ) -> Calm | None:
        down = self._down & entries.keys()
        if not entries.keys() <= view.nodes.keys() or (down and doc.spec.mode.startswith("global")):
            return None
        if (self._drained - down) & entries.keys() or self._is_odd(doc.id, entries, down):
            return None
        if leaves is not None and any(leaves(node) for node in entries if node not in down):
            return None
        living = [row for row in entries.items() if row[0] not in down] if down else entries.items()
        counted = _counted(doc, living)
        if counted is None:
            return None
        slots, newest_ms = counted
        lost: list[tuple[int, str]] = []
        for node in down:
            if entries[node].service_id != doc.id:
                return None
            for _, created_ms, *numbers in entries[node].runs:
                newest_ms = max(newest_ms, created_ms)
                lost += [(slot, node) for slot in numbers if slot not in slots]
        return Calm(len(slots), newest_ms, tuple(sorted(lost)))

    def _is_odd(self, service_id: str, entries: Mapping[str, AssignedService], down: frozenset[str]) -> bool:
        return any(
            service_id in (row.over if node in down else row.full) for node, row in self._odd.items() if node in entries
        )

    # -- what changed --------------------------------------------------------------------------------------------

    def _refresh(self, view: View) -> None:
        nodes, health = view.nodes, view.health
        if nodes is not self._nodes:
            drained = frozenset(name for name, doc in nodes.items() if doc.availability == "drain")
            self._places += drained != self._drained or nodes.keys() != self._nodes.keys()
            self._facts += 1
            self._nodes, self._drained = nodes, drained
        if health is not self._health:
            down = frozenset(name for name, doc in health.items() if doc.state == "down")
            self._places += down != self._down
            self._facts += 1
            self._health, self._down = health, down
        if view.statuses is not self._statuses:
            self._take_statuses(view.statuses)

    def _take_statuses(self, statuses: Mapping[str, StatusDoc]) -> None:
        before = self._statuses
        for node in others(before, statuses):
            old, doc = before.get(node), statuses[node]
            if old is None or (old.info is not doc.info and old.info != doc.info):
                self._facts += 1
            self._swap(node, _odd(doc.replicas))
        for node in missing(before, statuses):
            self._facts += 1
            self._swap(node, _NOTHING)
        self._statuses = statuses

    def _swap(self, node: str, new: _Odd) -> None:
        old = self._odd.pop(node, _NOTHING)
        if new != _NOTHING:
            self._odd[node] = new
        if new != old:
            for service_id in (old.over ^ new.over) | (old.full ^ new.full):
                self._told[service_id] = self._told.get(service_id, 0) + 1


def _counted(doc: ServiceDoc, entries: Iterable[tuple[str, AssignedService]]) -> tuple[set[Key], int] | None:
    """The keys of the slots, and the age of the youngest; None: not calm."""
    slots: set[Key] = set()
    version, service_id, everywhere = doc.version, doc.id, doc.spec.mode.startswith("global")
    newest_ms = count = 0
    for node, entry in entries:
        if entry.service_id != service_id:
            return None
        for run in entry.runs:
            if run[0] != version:
                return None
            newest_ms = max(newest_ms, run[1])
            count += len(run) - 2
            slots.update((node,) if everywhere else run[2:])
    return (slots, newest_ms) if count == len(slots) else None


def _odd(rows: tuple[ReplicaStatus, ...]) -> _Odd:
    found = [row for row in rows if row.state in _ODD]
    if not found:
        return _NOTHING
    return _Odd(
        frozenset(row.service_id for row in found if row.state != REJECTED),
        frozenset(row.service_id for row in found if is_short_of_disk(row)),
    )
