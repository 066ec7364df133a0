"""Keeps an etcd from running full, and gets it going again when it has (NOSPACE). Decision (pure) and shell.

Rules:
- With the NOSPACE alarm etcd refuses every write, leases too, until somebody compacts, defragments and disarms: we do.
- A compaction never goes beyond what watchers surely have, unless the store is full: then they list again.
- A member stands still while it is defragmented: one at a time, and never without need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from controller.store.etcd_admin import EtcdAdmin, MemberSpace
from model.store_port import StoreCompacted, StoreError

CHECK_EVERY_S: Final = 10.0
KEEP_REVISIONS: Final = 1000
DEFRAGMENT_ABOVE: Final = 0.5
"""Of the quota: below it the file's free pages hurt nobody."""
WASTE_ABOVE: Final = 0.5
"""Of the file: defragment when this much of it is free pages."""
COMPACT_ABOVE: Final = 0.5
FULL_ABOVE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Compact:
    revision: int


@dataclass(frozen=True, slots=True)
class Defragment:
    endpoint: str


@dataclass(frozen=True, slots=True)
class Disarm:
    member_id: int


Step: TypeAlias = Compact | Defragment | Disarm


@dataclass(frozen=True, slots=True)
class Space:
    """What is known: the members that answered, who raised NOSPACE, the store's revision, the quota of each member in bytes."""

    members: tuple[MemberSpace, ...]
    alarmed: tuple[int, ...]
    revision: int
    quota_bytes: int


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Steps in order, and why. Facts are taken again after a compaction: what it freed is known only then."""

    steps: tuple[Step, ...]
    sentence: str


def compaction(space: Space) -> Upkeep:
    """Whether to drop old revisions, before anything else is decided."""
    if space.alarmed:
        return Upkeep((Compact(space.revision),), f"etcd is full: compact up to revision {space.revision}")
    fullest = max((member.size_bytes for member in space.members), default=0)
    if fullest > COMPACT_ABOVE * space.quota_bytes and space.revision > KEEP_REVISIONS:
        upto = space.revision - KEEP_REVISIONS
        return Upkeep((Compact(upto),), f"etcd holds {_mb(fullest)} of {_mb(space.quota_bytes)}: compact up to revision {upto}")
    return Upkeep((), "nothing to compact")


def upkeep(space: Space) -> Upkeep:
    """What to defragment and disarm, by facts taken after the compaction."""
    steps: list[Step] = [Defragment(member.endpoint) for member in space.members if _wasteful(member, space)]
    if not space.alarmed:
        why = "defragment: more than half of the file is free" if steps else "nothing to do"
        return Upkeep(tuple(steps), why)
    used = max((member.used_bytes for member in space.members), default=0)
    if used > FULL_ABOVE * space.quota_bytes:
        text = f"etcd is really full: {_mb(used)} in use of {_mb(space.quota_bytes)}; remove stacks or raise its quota"
        return Upkeep(tuple(steps), text)
    steps += [Disarm(member) for member in space.alarmed]
    return Upkeep(tuple(steps), f"etcd was full and is made free again: {_mb(used)} in use of {_mb(space.quota_bytes)}")


def _wasteful(member: MemberSpace, space: Space) -> bool:
    if space.alarmed:
        return member.size_bytes > member.used_bytes
    large = member.size_bytes > DEFRAGMENT_ABOVE * space.quota_bytes
    return large and member.size_bytes - member.used_bytes > WASTE_ABOVE * member.size_bytes


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


class Timer(Protocol):
    async def sleep(self, seconds: float) -> None: ...


class Maintenance:
    """The shell: `run()` looks every 10 s; `run_once()` now (call it when a write raised StoreFull)."""

    def __init__(
        self, admin: EtcdAdmin, quota_bytes: int, clock: Timer, log: Callable[[str], None] = lambda text: None
    ) -> None:
        self._admin = admin
        self._quota_bytes = quota_bytes
        self._clock = clock
        self._log = log

    async def run(self) -> None:
        """For ever; an etcd that does not answer is asked again."""
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                self._log(f"etcd upkeep put off: {error}")
            await self._clock.sleep(CHECK_EVERY_S)

    async def run_once(self) -> str:
        """Does what is due; the deciding sentence."""
        space = await self._look()
        first = compaction(space)
        if first.steps:
            self._log(first.sentence)
            await self._do(first)
            space = await self._look()
        then = upkeep(space)
        if then.steps or space.alarmed:
            self._log(then.sentence)
        await self._do(then)
        return then.sentence if then.steps or space.alarmed else first.sentence

    async def _look(self) -> Space:
        members = await self._admin.space()
        return Space(members, await self._admin.full_members(), await self._admin.revision(), self._quota_bytes)

    async def _do(self, plan: Upkeep) -> None:
        for step in plan.steps:
            if isinstance(step, Compact):
                try:
                    await self._admin.compact(step.revision)
                except StoreCompacted:
                    continue  # somebody else was faster
            elif isinstance(step, Defragment):
                await self._admin.defragment(step.endpoint)
            else:
                await self._admin.disarm(step.member_id)
