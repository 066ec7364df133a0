"""Credentials for the registries of the services that run here, as the controller tells them with what must run.

Rules: in memory only, never in the journal, a log or an answer. Each belongs to one service and is used for its pulls; it goes
with the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.images.records import Credentials


class Logins:
    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def take(self, message: pb.Desired) -> tuple[str, ...]:
        """The services (ids) whose credentials are others now."""
        known = {} if message.whole else dict(self._known)
        for gone in message.removed_services:
            known.pop(gone, None)
        for row in message.services:
            known.pop(row.service_id, None)
            if row.HasField("registry_auth"):
                known[row.service_id] = (row.registry_auth.username, row.registry_auth.password)
        before, self._known = self._known, known
        return tuple(sorted(name for name, login in known.items() if before.get(name) != login))

    def of(self, service_id: str) -> Credentials | None:
        from agent.images.records import Credentials

        found = self._known.get(service_id)
        return Credentials(*found) if found is not None else None

    def wipe(self) -> None:
        """The node was removed."""
        self._known.clear()
