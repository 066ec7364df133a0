"""What the checkers know: the documents as they stand, what they were a moment ago, and the containers that run.

Rules: built only from what is told (`wrote`, the containers' starts and ends), each write costs what it changed. A controller
decides on a picture that is a little old: `recently` gives what a document was within the time a picture may be behind.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from model import codec
from model.documents import (
    PREFIX,
    AssignedService,
    ClusterDoc,
    DecisionDoc,
    LeaderDoc,
    NetworkDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeHealthDoc,
    ScaleDoc,
    ScaleOrderDoc,
    ServiceDoc,
    ServicePlanDoc,
    VolumeDoc,
    VolumePlaceDoc,
)  # fmt: skip
from model.spec import Pairs, ServiceSpec
from model.store_port import DeletePrefix, Op, Put

DECODED: Final[dict[str, type]] = {
    "services": ServiceDoc, "nodes": NodeDoc, "health": NodeHealthDoc, "networks": NetworkDoc, "netplans": NetworkPlanDoc,
    "svcplans": ServicePlanDoc, "volumes": VolumeDoc, "places": VolumePlaceDoc, "leader": LeaderDoc, "cluster": ClusterDoc,
    "decisions": DecisionDoc, "scales": ScaleDoc, "scaleorders": ScaleOrderDoc,
}  # fmt: skip
REMEMBERED: Final = frozenset({"services", "nodes", "health", "places", "volumes", "networks", "scaleorders"})
LAG_S: Final = 6.0
"""So old a picture may be when nothing is wrong with the store."""
OLD_LAG_S: Final = 90.0
"""And so old when it is: the mirror compares itself once a minute."""
NEVER: Final = 1 << 62
CUT_OPS: Final = 90
"""A transaction of so many operations may be a part of a plan: what it lacks comes with the next one."""


class Box(Protocol):
    """A container as a machine shows it. `addresses`: (network, address); `ports`: (`80/tcp`, `0.0.0.0:32768`)."""

    @property
    def id(self) -> str: ...
    @property
    def service_id(self) -> str: ...
    @property
    def slot(self) -> int: ...
    @property
    def created_ms(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def running(self) -> bool: ...
    @property
    def addresses(self) -> Pairs: ...
    @property
    def ports(self) -> Pairs: ...


class Row(NamedTuple):
    """One assignment. (node, service_id, slot, created_ms, version) is the replica's identity."""

    node: str
    service: str
    service_id: str
    slot: int
    created_ms: int
    version: int

    def __str__(self) -> str:
        return f"{self.service}.{self.slot} v{self.version} on {self.node}"


class Change(NamedTuple):
    """One decoded document that a transaction wrote; None: it is not there."""

    kind: str
    name: str
    old: Any
    new: Any


class Running(NamedTuple):
    """A container that runs, since when."""

    node: str
    box: Box
    since_s: float


@dataclass(slots=True)
class Step:
    """One transaction, taken apart. `kinds`: of every key it wrote. `cut`: perhaps a part of a larger plan."""

    at_s: float
    place: str
    revision: int
    kinds: tuple[str, ...]
    changes: list[Change] = field(default_factory=list)
    added: list[Row] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)
    cut: bool = False


Identity = tuple[int, int, int]
"""slot, created_ms, version"""


class Facts:
    """`take` a transaction, `start` and `end` containers; then read."""

    def __init__(self) -> None:
        self.docs: dict[str, dict[str, Any]] = {kind: {} for kind in DECODED}
        self.rows: dict[str, dict[str, dict[Identity, Row]]] = {}
        """node -> service id -> identity -> row"""
        self.holders: dict[str, dict[int, dict[Row, None]]] = {}
        """service id -> slot -> rows"""
        self.names: dict[str, str] = {}
        """Service id -> name, of all services that ever were."""
        self.specs: dict[tuple[str, int], ServiceSpec] = {}
        self.dropped: dict[Row, float] = {}
        """When an assignment went."""
        self.given: dict[Row, int] = {}
        self.taken: dict[Row, int] = {}
        """At which revision an assignment came, and went."""
        self.running: dict[tuple[str, str], Running] = {}
        """(node, container id) -> what runs"""
        self.by_slot: dict[tuple[str, int], dict[tuple[str, str], Running]] = {}
        self.ended_s: dict[tuple[str, str, int], float] = {}
        """When a container of (node, service id, slot) last ended."""
        self.capacity: dict[str, tuple[float, int]] = {}
        """Node -> cores, bytes."""
        self.old_until_s = -1.0
        self._past: dict[tuple[str, str], deque[tuple[float, Any]]] = {}
        self._up_since_s: dict[str, float] = {}

    # ---- told

    def take(self, place: str, ops: Sequence[Op], revision: int, at_s: float) -> Step:
        """The transaction has happened."""
        step = Step(at_s, place, revision, tuple(dict.fromkeys(_kind(op) for op in ops)), cut=len(ops) >= CUT_OPS)
        for op in ops:
            if isinstance(op, DeletePrefix):
                for key in [key for key in self._keys() if key.startswith(op.prefix)]:
                    self._write(step, key, None)
            else:
                self._write(step, op.key, op.value if isinstance(op, Put) else None)
        return step

    def pictures_are_old(self, until_s: float) -> None:
        """Controllers may decide on old pictures until then."""
        self.old_until_s = max(self.old_until_s, until_s)

    def start(self, node: str, box: Box, at_s: float) -> Running:
        now = Running(node, box, at_s)
        self.running[node, box.id] = now
        self.by_slot.setdefault((box.service_id, box.slot), {})[node, box.id] = now
        return now

    def change(self, node: str, box: Box) -> tuple[Running, Running]:
        """Another look of a container that runs: before, and now."""
        was = self.running[node, box.id]
        return was, self.start(node, box, was.since_s)

    def end(self, node: str, box: Box, at_s: float) -> Running | None:
        self.ended_s[node, box.service_id, box.slot] = at_s
        self.by_slot.get((box.service_id, box.slot), {}).pop((node, box.id), None)
        return self.running.pop((node, box.id), None)

    # ---- asked

    def lag_s(self, at_s: float) -> float:
        """How old a picture that a decision was made on may be."""
        return OLD_LAG_S if at_s < self.old_until_s else LAG_S

    def recently(self, kind: str, name: str, at_s: float) -> list[Any]:
        """What the document is now and was within `lag_s`, the newest first; None where there was none."""
        found = [self.docs[kind].get(name)]
        since_s = at_s - self.lag_s(at_s)
        for until_s, old in reversed(self._past.get((kind, name), ())):
            if until_s < since_s:
                break
            found.append(old)
        return found

    def changed_s(self, kind: str, name: str) -> float:
        """When the document last changed."""
        past = self._past.get((kind, name))
        return past[-1][0] if past else -1.0

    def service(self, service_id: str) -> ServiceDoc | None:
        document: ServiceDoc | None = self.docs["services"].get(self.names.get(service_id, ""))
        return document if document is not None and document.id == service_id else None

    def assigned(self, node: str, box: Box) -> bool:
        """Whether the node has to run this replica now."""
        return (box.slot, box.created_ms, box.version) in self.rows.get(node, {}).get(box.service_id, {})

    def together(self, one: Row, other: Row) -> bool:
        """Whether there was a moment at which both were assigned."""
        if one not in self.given or other not in self.given:
            return False
        end = min(self.taken.get(one, NEVER), self.taken.get(other, NEVER))
        return max(self.given[one], self.given[other]) < end

    def row(self, node: str, box: Box) -> Row:
        service = self.names.get(box.service_id, box.service_id)
        return Row(node, service, box.service_id, box.slot, box.created_ms, box.version)

    def up_since_s(self, node: str) -> float | None:
        """Since when the node counts: it is in the cluster and not down. None: it does not."""
        health = self.docs["health"].get(node)
        if node not in self.docs["nodes"] or (health is not None and health.state == "down"):
            return None
        return self._up_since_s.get(node, 0.0)

    def counted(self, service_id: str, at_s: float) -> dict[int, list[Row]]:
        """Slot -> assignments on nodes that count, and have for longer than a picture is old."""
        lag_s = self.lag_s(at_s)
        found: dict[int, list[Row]] = {}
        for slot, rows in self.holders.get(service_id, {}).items():
            good = [row for row in rows if (up_s := self.up_since_s(row.node)) is not None and at_s - up_s >= lag_s]
            if good:
                found[slot] = good
        return found

    def runs(self, row: Row) -> Running | None:
        """The running container of this very replica."""
        for now in self.by_slot.get((row.service_id, row.slot), {}).values():
            if now.node == row.node and (now.box.created_ms, now.box.version) == (row.created_ms, row.version):
                return now
        return None

    # ---- inside

    def _keys(self) -> Iterator[str]:
        for kind, rows in self.docs.items():
            yield from (f"{PREFIX}{kind}/{name}" for name in rows)
        yield from (f"{PREFIX}assignments/{node}" for node in self.rows)

    def _write(self, step: Step, key: str, value: bytes | None) -> None:
        kind, _, name = key[len(PREFIX) :].partition("/")
        if kind == "assignments":
            self._assign(step, name, value)
        elif kind in DECODED:
            rows = self.docs[kind]
            old: Any = rows.get(name)
            new: Any = None if value is None else codec.decode(DECODED[kind], value)
            if old == new:
                return
            if new is None:
                rows.pop(name, None)
            else:
                rows[name] = new
            if kind in REMEMBERED:
                self._past.setdefault((kind, name), deque(maxlen=64)).append((step.at_s, old))
            if kind == "services" and new is not None:
                self.names[new.id] = name
                self.specs[new.id, new.version] = new.spec
            if kind == "health":
                self._follow_health(name, old, new, step.at_s)
            step.changes.append(Change(kind, name, old, new))

    def _follow_health(self, node: str, old: NodeHealthDoc | None, new: NodeHealthDoc | None, at_s: float) -> None:
        was_down = old is None or old.state == "down"
        if new is not None and new.state != "down" and was_down:
            self._up_since_s[node] = at_s

    def _assign(self, step: Step, node: str, value: bytes | None) -> None:
        before = self.rows.get(node, {})
        after = {} if value is None else _assigned(node, value)
        for service_id in [*before, *(service_id for service_id in after if service_id not in before)]:
            was, now = before.get(service_id, {}), after.get(service_id, {})
            if was.keys() == now.keys():
                continue
            for identity, row in was.items():
                if identity not in now:
                    self._gone(step, row)
            for identity, row in now.items():
                if identity not in was:
                    self._came(step, row)
        if value is None:
            self.rows.pop(node, None)
        else:
            self.rows[node] = after

    def _gone(self, step: Step, row: Row) -> None:
        step.removed.append(row)
        self.dropped[row] = step.at_s
        self.taken[row] = step.revision
        slots = self.holders[row.service_id]
        rows = slots[row.slot]
        del rows[row]
        if not rows:
            del slots[row.slot]
        if not slots:
            del self.holders[row.service_id]

    def _came(self, step: Step, row: Row) -> None:
        step.added.append(row)
        self.dropped.pop(row, None)
        self.taken.pop(row, None)
        self.given[row] = step.revision
        self.holders.setdefault(row.service_id, {}).setdefault(row.slot, {})[row] = None


def _kind(op: Op) -> str:
    key = op.prefix if isinstance(op, DeletePrefix) else op.key
    return key[len(PREFIX) :].partition("/")[0]


def _assigned(node: str, value: bytes) -> dict[str, dict[Identity, Row]]:
    """An assignment document, read without the codec: it is the one that grows."""
    found: dict[str, dict[Identity, Row]] = {}
    for service in json.loads(value).get("services", ()):
        service_id, name = service["service_id"], service["name"]
        rows = found.setdefault(service_id, {})
        for version, created_ms, *slots in AssignedService(service_id, name, tuple(service["numbers"])).runs:
            for slot in slots:
                rows[slot, created_ms, version] = Row(node, name, service_id, slot, created_ms, version)
    return found

