"""What a node says, merged into its one status document. Pure.

Rules: the first status of a session is whole and replaces everything known; until it has come the old document stands.
`document` gives the same record for the same facts, so that nothing is written when nothing changed. Limits on everything a
node may say: a broken agent must not fill the store.
"""

from __future__ import annotations

import json
from dataclasses import replace
from sys import intern
from typing import Final

from model import codec, states
from model.documents import NodeInfo, ReplicaStatus, StatusDoc
from protos import node_pb2 as pb

ReplicaKey = tuple[str, int, int]
REPLICAS_MAX: Final = 5_000
VOLUMES_MAX: Final = 5_000
PORTS_MAX: Final = 4_096
TEXT_MAX: Final = 1_000
SHORT_MAX: Final = 256


class NodeStatus:
    """The running picture of one node; starts from its document in the store."""

    def __init__(self, document: StatusDoc) -> None:
        self._node = document.node
        self._replicas: dict[ReplicaKey, ReplicaStatus] = {
            (row.service_id, row.slot, row.created_ms): row for row in document.replicas
        }
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
    def generation(self) -> int:
        """The newest assignment document that the agent has taken."""
        return self._generation

    def take_generation(self, generation: int) -> None:
        self._generation = generation

    def merge(self, status: pb.Status) -> None:
        """Raises ValueError when there is too much of it."""
        rows = {} if status.whole else dict(self._replicas)
        for gone in status.gone:
            rows.pop((gone.service_id, gone.slot, gone.created_ms), None)
        for replica in status.replicas:
            key = (replica.key.service_id, replica.key.slot, replica.key.created_ms)
            rows[key] = read_replica(replica)
        if len(rows) > REPLICAS_MAX or len(status.volumes) > VOLUMES_MAX:
            raise ValueError(f"a status of more than {REPLICAS_MAX} replicas or {VOLUMES_MAX} volumes")
        self._replicas = rows
        if status.whole or status.volumes_changed:
            self._volumes = tuple(sorted(name[:SHORT_MAX] for name in status.volumes))
        if status.info:
            self.take_info(status.info)
        self.whole = self.whole or status.whole

    def document(self, before: StatusDoc | None, now_ms: int) -> StatusDoc | None:
        """The document to write; None when it says nothing new: another generation alone is acknowledged a thousand times a
        deployment, and is written with what follows."""
        rows = tuple(self._replicas[key] for key in sorted(self._replicas))
        new = StatusDoc(self._node, self._info, self._generation, now_ms, rows, self._volumes)
        if before is not None and replace(new, reported_ms=before.reported_ms, generation=before.generation) == before:
            return None
        return new


def read_replica(message: pb.Replica) -> ReplicaStatus:
    """Names that a hundred thousand rows share are kept once."""
    key, state, health = message.key, message.state, message.health
    return ReplicaStatus(
        service_id=intern(key.service_id[:SHORT_MAX]),
        slot=key.slot,
        version=message.version,
        created_ms=key.created_ms,
        state=intern(state) if state in states.RANK else states.PREPARING,
        since_ms=message.since_ms,
        container_id=message.container_id[:SHORT_MAX],
        restarts=message.restarts,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        message=message.message[:TEXT_MAX].split("\n")[0],
        addresses=_pairs([(intern(row.network[:SHORT_MAX]), row.address[:SHORT_MAX]) for row in message.addresses[:64]]),
        health=intern(health[:SHORT_MAX]),
        ports=_pairs([(row.target[:SHORT_MAX], row.published[:SHORT_MAX]) for row in message.ports[:PORTS_MAX]]),
    )


def _pairs(rows: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(rows)) if len(rows) > 1 else tuple(rows)
