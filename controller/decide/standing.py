"""Who holds each slot of a service now, which of them to keep, and which to trim.

Rules:
- A healthy replica is trimmed only when another healthy one of the same slot is older, or when it is leaving (its node is
  drained or no longer fits, its version is old) and its successor runs.
- After a node's return a slot has two holders: the oldest that runs stays. If the old one does not run (the machine was
  rebooted) it goes once the younger runs. While none runs both stay, unless all have failed. One that must go and is spent, or
  that no agent has ever told of, waits for no successor.
- Entries on a down node are not touched: what they are is not known. An ended replica there (job done) still counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from model.documents import Assigned, AssignedService, ReplicaStatus
from model.spec import RestartPolicy
from model.states import COMPLETE, FAILED, REJECTED, RUNNING

WELL: Final = frozenset({"", "healthy", "none"})
DISK_WORDS: Final = ("disk full", "no space left on device")
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


Slots = dict[Key, Slot]
Living = Callable[[], Mapping[str, AssignedService]]


class Standing:
    """`lost`: (slot, node) on down nodes that have no other holder. `surplus`: to be removed.

    That of a calm service (calm.py) knows no more than how many slots there are and on which nodes, until somebody asks for
    `slots`: only then every replica is looked at, and from then on it is not `calm` any more.
    """

    def __init__(self) -> None:
        self.lost: list[tuple[int, str]] = []
        self.surplus: list[Held] = []
        self._slots: Slots | None = {}
        self._count = 0
        self._living: Living = dict
        self._look: Callable[[], Slots] = dict

    @classmethod
    def of_calm(
        cls, count: int, lost: Iterable[tuple[int, str]], living: Living, look: Callable[[], Slots]
    ) -> Standing:  # fmt: skip
        """`living`: its entries on nodes that are not down, sorted by node. `look` makes the slots."""
        standing = cls()
        standing.lost, standing._slots, standing._count = list(lost), None, count
        standing._living, standing._look = living, look
        return standing

    @property
    def calm(self) -> bool:
        return self._slots is None

    @property
    def slots(self) -> Slots:
        """To look at and to change."""
        if self._slots is None:
            self._slots = self._look()
        return self._slots

    def __len__(self) -> int:
        """How many slots have a holder."""
        return self._count if self._slots is None else len(self._slots)

    def numbers(self) -> set[Key]:
        """Of the slots that have a holder; not of a global service."""
        if self._slots is not None:
            return set(self._slots)
        return {slot for entry in self._living().values() for run in entry.runs for slot in run[2:]}

    def by_node(self) -> Counter[str]:
        """How many replicas stay on each node, for now; without those on down nodes."""
        if self._slots is not None:
            return Counter(held.node for slot in self._slots.values() for held in slot.holders if not held.frozen)
        return Counter({node: entry.count for node, entry in self._living().items()})


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


def is_short_of_disk(status: ReplicaStatus) -> bool:
    """Whether it could not start for that reason."""
    return status.state in (FAILED, REJECTED) and any(word in status.message.lower() for word in DISK_WORDS)


def settle(key_holders: Iterable[tuple[Key, list[Held]]]) -> Standing:
    """The standing of each slot from all its live holders."""
    standing = Standing()
    slots = standing.slots
    for key, holders in key_holders:
        if len(holders) == 1:
            slots[key] = Slot(holders[0], holders)
            continue
        slot = slots[key] = _resolve(holders)
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
    if all(held.failed for held in stay):  # an old one is kept that may still be of use: not what was never seen to be there
        stay, old = stay[:1], [held for held in old if not held.spent and held.status is not None]
    return Slot(stay[0], stay + old[:1])
