"""Room for services of higher priority: who may be stopped for them, who is, and what is said about it.

Rules:
- Only replicas of services with less priority, never those of global services, and none that has ended (a job would run again).
- What is taken away counts as free at once, as everywhere in decisions; both are on the node until the victim has stopped.
- The victim's slot is then placed like any other one, after all services of higher priority, or waits and says for whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from controller.decide.batch import Batch
from controller.decide.standing import has_ended
from controller.decide.types import Preempted
from controller.decide.wording import counted, listed
from controller.decide.work import Work
from model.documents import Assigned, AssignedService, AssignmentDoc
from scheduler import Amounts, Load, PortClaim, Tenant, Victim

_NO_DOC: Final = AssignmentDoc("")
_HEAD: Final = "preempted by "


class Standing:
    """What the scheduler asks about the replicas on nodes, for one service of some priority (scheduler.preempt.Tenancy)."""

    def __init__(self, batch: Batch, work: Work) -> None:
        self._batch, self._priority, self._wanted = batch, work.priority, work.group.ports
        self._below = batch.index.ranks.below(self._priority)

    def most(self, node: str) -> Sequence[tuple[int, Load]]:
        return [(rank, loads[node]) for rank, loads in self._below if node in loads]

    def biggest(self, priority: int) -> Amounts:
        return self._batch.index.ranks.biggest(priority)

    def on(self, node: str) -> list[Tenant]:
        found: list[Tenant] = []
        for entry in self._entries(node):
            found += self._tenants(node, entry)
        return found

    def fixed_ports(self, node: str) -> list[PortClaim]:
        """Shoal's own, and those of services that have a replica there which nobody may stop."""
        claims = list(self._batch.own_ports().get(node, ()))
        asked = self._batch.index.taken(self._batch.view).asked
        for name in dict.fromkeys(name for port in self._wanted for name in asked.get((port.protocol, port.number), ())):
            entry = self._batch.index.placed.get(name, {}).get(node) or AssignedService("", name, ())
            if len(self._batch.draft.on(node, entry)) > len(self._tenants(node, entry)):
                claims += self._batch.index.claims.get(name, ())
        return claims

    def _entries(self, node: str) -> tuple[AssignedService, ...]:
        return self._batch.view.assignments.get(node, _NO_DOC).services

    def _tenants(self, node: str, entry: AssignedService) -> list[Tenant]:
        index, view = self._batch.index, self._batch.view
        rank, doc = index.ranks.of(entry.name), view.services.get(entry.name)
        if doc is None or rank is None or rank >= self._priority or doc.id != entry.service_id:
            return []
        statuses, restart = index.statuses(view, node, doc.id), doc.spec.container.restart
        amounts, claims = index.amounts(entry.name), index.claims.get(entry.name, ())
        return [
            Tenant(entry.name, replica.slot, rank, replica.created_ms, amounts, claims)
            for replica in self._batch.draft.on(node, entry)
            if not has_ended(statuses.get((replica.slot, replica.created_ms)), restart)
        ]


def found(batch: Batch, victim: Victim) -> Assigned | None:
    """The victim's assignment."""
    entry = batch.index.placed.get(victim.service, {}).get(victim.node)
    rows = batch.draft.on(victim.node, entry) if entry is not None else []
    return next((row for row in rows if (row.slot, row.created_ms) == (victim.slot, victim.created_ms)), None)


def say(works: Sequence[Work], stopped: Mapping[str, list[tuple[Preempted, Work]]]) -> None:
    """A part for each service that lost replicas and each one it lost them to. `stopped`: by the victims' service."""
    for work in works:
        by: dict[str, list[tuple[Preempted, Work]]] = {}
        for row, taker in stopped.get(work.name, ()):
            by.setdefault(taker.name, []).append((row, taker))
        for name, rows in by.items():
            row, taker = rows[0]
            ranks = f"(priority {taker.priority} over {work.priority})"
            if len(rows) == 1:
                text = f"{row.replica} on {row.node} was stopped to make room for {row.by} {ranks}: {row.why}"
            else:
                pairs = listed([f"{row.replica} on {row.node} for {row.by}" for row, _ in rows])
                text = f"{counted(len(rows))} were stopped to make room for {name} {ranks}: {pairs}"
            work.parts.append(("preempted", text))


def head(work: Work, slot: int, before: Mapping[int, str]) -> str:
    """What stands before the reason why a slot waits: whom it made room for, as long as it has not found another place.
    `before`: what it said last."""
    return f"{_HEAD}{work.stopped[slot]}: " if slot in work.stopped else _head_of(before.get(slot, ""))


def bare(reason: str) -> str:
    """The reason alone."""
    return reason[len(_head_of(reason)) :]


def _head_of(text: str) -> str:
    head, colon, _ = text.partition(": ")
    return head + colon if colon and head.startswith(_HEAD) else ""
