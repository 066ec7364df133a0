"""Who holds each slot of a service now, which of them to keep, and which to trim.

Rules:
- A healthy replica is trimmed only when another healthy one of the same slot is older, or when it is leaving (its node is
  drained or no longer fits, its version is old) and its successor runs.
- After a node's return a slot has two holders: the oldest that runs stays. If the old one does not run (the machine was
  rebooted) it goes once the younger runs. While none runs both stay, unless all have failed. One that must go and is spent
  waits for no successor.
- Entries on a down node are not touched: what they are is not known. An ended replica there (job done) still counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from model.documents import Assigned, ReplicaStatus
from model.spec import RestartPolicy
from model.states import COMPLETE, FAILED, REJECTED, RUNNING

WELL: Final = frozenset({"", "healthy", "none"})
Key = int | str
"""A slot; for global services the node."""


@dataclass(slots=True)
class Held:
    """One assignment of the service. `ok`: it does what it should, as far as is known; `leaving`: why it must go, or ""."""

    node: str
    replica: Assigned
    status: ReplicaStatus | None
    ok: bool
    current: bool
    leaving: str = ""
    frozen: bool = False
    """On a down node: counted, never touched."""
    spent: bool = False
    """It has failed, and as far as can be told nothing more becomes of it. Known where a slot has several holders."""

    @property
    def state(self) -> str:
        return self.status.state if self.status else "assigned"

    @property
    def failed(self) -> bool:
        return self.state in (FAILED, REJECTED)


@dataclass(slots=True)
class Slot:
    """`holders`: those that stay for now; `primary` is the one that counts."""

    primary: Held
    holders: list[Held]

    @property
    def available(self) -> bool:
        return any(held.ok for held in self.holders)


@dataclass(slots=True)
class Standing:
    """`lost`: (slot, node) on down nodes that have no other holder. `surplus`: to be removed."""

    slots: dict[Key, Slot] = field(default_factory=dict)
    lost: list[tuple[int, str]] = field(default_factory=list)
    surplus: list[Held] = field(default_factory=list)


def is_ok(status: ReplicaStatus | None, reachable: bool) -> bool:
    if status is None:
        return False
    return status.state == COMPLETE or (reachable and status.state == RUNNING and status.health in WELL)


def has_ended(status: ReplicaStatus | None, restart: RestartPolicy) -> bool:
    """Ended and not to be started again: nothing more will become of it."""
    if status is None:
        return False
    if status.state == FAILED:
        spent = restart.max_attempts is not None and status.restarts >= restart.max_attempts
        return restart.condition == "none" or spent
    return status.state == COMPLETE


def settle(key_holders: Iterable[tuple[Key, list[Held]]]) -> Standing:
    """The standing of each slot from all its live holders."""
    standing = Standing()
    for key, holders in key_holders:
        if len(holders) == 1:
            standing.slots[key] = Slot(holders[0], holders)
            continue
        slot = _resolve(holders)
        standing.slots[key] = slot
        standing.surplus += [held for held in holders if held not in slot.holders]
    return standing


def _age(held: Held) -> tuple[int, str]:
    return (held.replica.created_ms, held.node)


def _resolve(holders: list[Held]) -> Slot:
    stay = sorted((held for held in holders if held.current and not held.leaving), key=_age)
    old = sorted(
        (held for held in holders if not held.current or held.leaving), key=lambda h: (not h.ok, not h.current, _age(h))
    )
    good = [held for held in stay if held.ok]
    if good:
        return Slot(good[0], good[:1])
    if not stay:
        return Slot(old[0], old[:1])
    if all(held.failed for held in stay):
        stay, old = stay[:1], [held for held in old if not held.spent]
    return Slot(stay[0], stay + old[:1])
