"""What services that were removed were called, for as long as their last containers stop.

Rule: a convenience in memory, bounded; a controller that started later shows the service's id instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from controller.decide.replicas import ReplicaRow
from controller.decide.wording import replica_name
from controller.loops.picture import Change, Snapshot
from model.documents import ServiceDoc
from model.states import SHUTDOWN

REMEMBERED_MAX: Final = 1_000


class GoneServices:
    """Subscribe `take` to the picture."""

    def __init__(self) -> None:
        self._known: dict[str, ServiceDoc] = {}

    def take(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind == "services" and change.old is not None and (change.new is None or change.new.id != change.old.id):
                self._known[change.old.id] = change.old
        while len(self._known) > REMEMBERED_MAX:
            del self._known[next(iter(self._known))]

    def rows(self, snapshot: Snapshot, stack: str, service: str, node: str) -> Iterator[ReplicaRow]:
        """Replicas that nodes still report of services that are no more."""
        living = {document.id for document in snapshot.of("services").values()}
        for name in [node] if node else sorted(snapshot.of("status")):
            status = snapshot.of("status").get(name)
            for replica in status.replicas if status else ():
                if replica.service_id in living:
                    continue
                row = self._row(name, replica)
                if stack in ("", row.stack) and service in ("", row.service):
                    yield row

    def _row(self, node: str, replica: Any) -> ReplicaRow:
        document = self._known.get(replica.service_id)
        spec = document.spec if document else None
        service = spec.name if spec else replica.service_id
        everywhere = spec is not None and spec.mode.startswith("global")
        return ReplicaRow(
            name=replica_name(service, replica.slot, node, everywhere=everywhere, single=bool(spec and spec.single)),
            service=service,
            service_id=replica.service_id,
            stack=spec.stack if spec else "",
            slot=replica.slot,
            node=node,
            state=replica.state,
            desired=SHUTDOWN,
            image=spec.container.image if spec else "",
            version=replica.version,
            created_ms=replica.created_ms,
            since_ms=replica.since_ms,
            addresses=replica.addresses,
            container_id=replica.container_id,
            restarts=replica.restarts,
            exit_code=replica.exit_code,
            message=replica.message,
            health=replica.health,
        )
