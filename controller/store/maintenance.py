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
ACT_ABOVE: Final = 0.5
"""Of the quota: below it old revisions and free pages hurt nobody."""
WASTE_ABOVE: Final = 0.5
"""Of the file: defragment when this much of it is free pages."""
FULL_ABOVE: Final = 0.9
IDLE: Final = "nothing to do"


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
    """What is known: the members that answered, who raised NOSPACE, the store's revision, the quota of each member in bytes.

    `tried_revision`: where the store stood when everything was last dropped and it was full all the same; 0: never.
    `compacted_revision`: up to where we compacted last.
    """

    members: tuple[MemberSpace, ...]
    alarmed: tuple[int, ...]
    revision: int
    quota_bytes: int
    tried_revision: int = 0
    compacted_revision: int = 0


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Steps in order, and why."""

    steps: tuple[Step, ...]
    sentence: str


def relief(space: Space) -> Upkeep:
    """What to drop and to shrink."""
    if space.alarmed:
        if space.revision == space.tried_revision:
            return Upkeep((), "etcd is really full and nothing was removed since")
        shrink = tuple(Defragment(member.endpoint) for member in space.members)
        return Upkeep((Compact(space.revision), *shrink), f"etcd is full: drop everything older than revision {space.revision}")
    fullest = max((member.size_bytes for member in space.members), default=0)
    if fullest <= ACT_ABOVE * space.quota_bytes:
        return Upkeep((), IDLE)
    upto = space.revision - KEEP_REVISIONS
    steps: list[Step] = [Compact(upto)] if upto >= space.compacted_revision + KEEP_REVISIONS else []
    steps += [Defragment(member.endpoint) for member in space.members if _wasteful(member, space.quota_bytes)]
    if not steps:
        return Upkeep((), IDLE)
    return Upkeep(
        tuple(steps), f"etcd's file has {_mb(fullest)} of {_mb(space.quota_bytes)}: drop old revisions, shrink files half empty"
    )


def disarming(space: Space) -> Upkeep:
    """Whether writes may be allowed again, by facts taken after the relief. The file's size counts: etcd itself goes by it."""
    if not space.alarmed:
        return Upkeep((), IDLE)
    size = max((member.size_bytes for member in space.members), default=0)
    if size > FULL_ABOVE * space.quota_bytes:
        return Upkeep((), f"etcd is really full: {_mb(size)} of {_mb(space.quota_bytes)}; remove stacks or raise its quota")
    steps = tuple(Disarm(member) for member in space.alarmed)
    return Upkeep(steps, f"etcd was full and is made free again: {_mb(size)} of {_mb(space.quota_bytes)}")


def _wasteful(member: MemberSpace, quota_bytes: int) -> bool:
    large = member.size_bytes > ACT_ABOVE * quota_bytes
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
        self._tried_revision = 0
        self._compacted = 0

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
        space = await self.look()
        first = relief(space)
        await self._do(first)
        if not space.alarmed:
            return first.sentence
        after = await self.look()
        then = disarming(after)
        await self._do(then)
        self._tried_revision = 0 if then.steps else after.revision
        return then.sentence

    async def look(self) -> Space:
        """The facts as they are now."""
        members = await self._admin.space()
        alarmed = await self._admin.full_members()
        return Space(members, alarmed, await self._admin.revision(), self._quota_bytes, self._tried_revision, self._compacted)

    async def _do(self, plan: Upkeep) -> None:
        if plan.steps:
            self._log(plan.sentence)
        for step in plan.steps:
            if isinstance(step, Compact):
                self._compacted = step.revision
                try:
                    await self._admin.compact(step.revision)
                except StoreCompacted:
                    continue  # somebody else was faster
            elif isinstance(step, Defragment):
                await self._admin.defragment(step.endpoint)
            else:
                await self._admin.disarm(step.member_id)
