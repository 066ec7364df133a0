"""The small model's store: one immutable mapping and the store's one promise, guarded transactions.

Rules: there are no revisions in it. A guard compares two pictures of one document, and all that can differ is whether it was
written since: so whoever has a picture knows which documents were (`Control.stale`). Contents are one object each: to compare
them is to compare objects, and what follows from them is worked out once. What nothing is decided by is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

from agent.core import wire
from agent.plan.desired import DesiredMessage
from controller.dispatch.desired import Composer, PeerBook, SpecBook, wanted
from controller.loops.picture import KINDS, Snapshot
from model import codec
from model.documents import PREFIX
from model.store_port import Guard, Op, Put
from protos import node_pb2 as pb

HERE: Final = 1
"""The revision of every document that exists."""

Rows = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, eq=False)
class Write:
    """One transaction: what it is guarded by besides the leader's key, and what it writes."""

    guards: tuple[Guard, ...]
    ops: tuple[Op, ...]

    @cached_property
    def keys(self) -> frozenset[str]:
        return frozenset(getattr(op, "key", "") for op in self.ops)


class SmallStore:
    """Key -> value, and which of the contents it is. Never changed: a write gives another one."""

    def __init__(self, rows: Mapping[str, bytes], known: dict[Rows, SmallStore]) -> None:
        self.rows, self._known = rows, known
        self.number = len(known)
        self.facts: dict[object, Any] = {}
        """What was worked out from these contents."""

    @staticmethod
    def first() -> SmallStore:
        """An empty one, that others come from."""
        known: dict[Rows, SmallStore] = {}
        return known.setdefault((), SmallStore({}, known))

    def having(self, rows: Mapping[str, bytes]) -> SmallStore:
        contents = tuple(sorted(rows.items()))
        found = self._known.get(contents)
        if found is None:
            found = self._known[contents] = SmallStore(rows, self._known)
        return found

    def written(self, write: Write) -> SmallStore:
        found: SmallStore | None = self.facts.get(write)
        if found is None:
            found = self.facts[write] = self.having(changed(self.rows, write.ops))
        return found

    @cached_property
    def snapshot(self) -> Snapshot:
        documents: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for key, value in self.rows.items():
            kind, _, name = key[len(PREFIX) :].partition("/")
            documents[kind][name] = _decoded(kind, value)
        return Snapshot(documents, dict.fromkeys(self.rows, HERE), HERE)

    def message(self, node: str) -> Message:
        """The whole of what the node must run."""
        found: Message | None = self.facts.get(("message", node))
        if found is None:
            found = self.facts["message", node] = _same_message(wire.desired_message(self._message(node)))
        return found

    def _message(self, node: str) -> pb.Desired:
        snapshot, specs = self.snapshot, SpecBook()
        for service in snapshot.of("services").values():
            specs.add(service)
        peers = PeerBook()
        found = Composer(specs, peers).message(node, None, wanted(snapshot, node, {}, peers), set(), snapshot)
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class Message:
    """One for each content."""

    content: DesiredMessage


@lru_cache(maxsize=100_000)
def _same_message(content: DesiredMessage) -> Message:
    return Message(content)


def changed(rows: Mapping[str, bytes], ops: Sequence[Op]) -> dict[str, bytes]:
    found = dict(rows)
    for op in ops:
        if isinstance(op, Put):
            found[op.key] = _kept(op.key, op.value)
        else:
            found.pop(getattr(op, "key", ""), None)
    return found


@lru_cache(maxsize=100_000)
def _kept(key: str, value: bytes) -> bytes:
    kind = key[len(PREFIX) :].partition("/")[0]
    if kind == "decisions":
        return codec.encode(replace(_decoded(kind, value), sentences=()))
    if kind == "status":
        return codec.encode(replace(_decoded(kind, value), generation=0, reported_ms=0))
    return value


@lru_cache(maxsize=100_000)
def _decoded(kind: str, value: bytes) -> Any:
    return codec.decode(KINDS[kind], value)
