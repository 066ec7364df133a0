"""What a node says, merged into its one status document. Pure.

Rules: the first status of a session is whole and replaces everything known; until it has come the old document stands.
`document` gives the same record for the same facts, so that nothing is written when nothing changed. Limits on everything a
node may say: a broken agent must not fill the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from operator import attrgetter
from sys import intern
from typing import Any, Final

from model import codec, states
from model.documents import NodeInfo, ReplicaStatus, StatusDoc
from model.spec import Pairs
from protos import node_pb2 as pb

ReplicaKey = tuple[str, int, int]
KEY_OF: Final = attrgetter("service_id", "slot", "created_ms")
REPLICAS_MAX: Final = 5_000
VOLUMES_MAX: Final = 5_000
PORTS_MAX: Final = 4_096
TEXT_MAX: Final = 1_000
SHORT_MAX: Final = 256
ADDRESSES_MAX: Final = 64
SHARED_MAX: Final = 16_384
_SET: Final[list[Any]] = [vars(ReplicaStatus)[field.name].__set__ for field in fields(ReplicaStatus)]
_NEW: Final = object.__new__
_SHARED: Final[dict[object, Any]] = {}


class NodeStatus:
    """The running picture of one node; starts from its document in the store."""

    def __init__(self, document: StatusDoc) -> None:
        self._node = document.node
        self._replicas = document.replicas
        """Sorted by key. Nothing else is kept of them: there may be a million."""
        self._volumes = document.volumes
        self._info = document.info
        self._generation = document.generation
        self.whole = False

    def take_info(self, data: bytes) -> None:
        """Raises ValueError when it is no NodeInfo."""
        if len(data) > 16_384:
            raise ValueError("node info longer than 16 KiB")
        self._info = codec.from_plain(NodeInfo, json.loads(data))

    @property
    def address(self) -> str:
        """Where the node's agent listens; empty: not said."""
        return self._info.address

    @property
    def generation(self) -> int:
        """The newest assignment document that the agent has taken."""
        return self._generation

    def take_generation(self, generation: int) -> None:
        self._generation = generation

    def merge(self, status: pb.Status) -> None:
        """Raises ValueError when there is too much of it."""
        known: dict[ReplicaKey, ReplicaStatus] = {KEY_OF(row): row for row in self._replicas}
        rows = {} if status.whole else dict(known)
        for gone in status.gone:
            rows.pop((gone.service_id, gone.slot, gone.created_ms), None)
        for fresh in map(read_replica, status.replicas):
            key = KEY_OF(fresh)
            old = known.get(key)
            rows[key] = old if old is not None and old == fresh else fresh
        if len(rows) > REPLICAS_MAX or len(status.volumes) > VOLUMES_MAX:
            raise ValueError(f"a status of more than {REPLICAS_MAX} replicas or {VOLUMES_MAX} volumes")
        self._replicas = tuple([rows[key] for key in sorted(rows)])
        if status.whole or status.volumes_changed:
            self._volumes = tuple(sorted(name[:SHORT_MAX] for name in status.volumes))
        if status.info:
            self.take_info(status.info)
        self.whole = self.whole or status.whole

    def document(self, before: StatusDoc | None, now_ms: int) -> StatusDoc | None:
        """The document to write; None when it says nothing new: another generation alone is acknowledged a thousand times a
        deployment, and is written with what follows."""
        new = StatusDoc(self._node, self._info, self._generation, now_ms, self._replicas, self._volumes)
        if before is not None and replace(new, reported_ms=before.reported_ms, generation=before.generation) == before:
            return None
        return new


def read_replica(message: pb.Replica) -> ReplicaStatus:
    """Names, ages and addresses that a hundred thousand rows share are kept once. The record's own `__init__` would take a
    third of the time: a whole cluster tells a million rows."""
    key, state, text = message.key, message.state, message.message
    addresses, ports = message.addresses, message.ports
    values = (
        intern(key.service_id[:SHORT_MAX]),
        key.slot,
        message.version,
        _shared(key.created_ms),
        intern(state) if state in states.RANK else states.PREPARING,
        message.since_ms,
        message.container_id[:SHORT_MAX],
        message.restarts,
        message.exit_code if message.HasField("exit_code") else None,
        text[:TEXT_MAX].split("\n")[0] if text else "",
        _pairs((intern(row.network[:SHORT_MAX]), row.address[:SHORT_MAX]) for row in addresses[:ADDRESSES_MAX])
        if addresses
        else (),
        intern(message.health[:SHORT_MAX]),
        _pairs((row.target[:SHORT_MAX], row.published[:SHORT_MAX]) for row in ports[:PORTS_MAX]) if ports else (),
    )
    record = _NEW(ReplicaStatus)
    for put, value in zip(_SET, values, strict=True):
        put(record, value)
    return record


def _pairs(rows: Iterable[tuple[str, str]]) -> Pairs:
    """Containers of different nodes have the same addresses on their bridges."""
    found: Pairs = _shared(tuple(sorted(rows)))
    return found


def _shared(value: Any) -> Any:
    """One object for all that are equal."""
    if len(_SHARED) >= SHARED_MAX:
        _SHARED.clear()
    return _SHARED.setdefault(value, value)
