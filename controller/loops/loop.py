"""The one loop shape: dirty keys -> snapshot -> decide -> guarded transactions -> wait for a change or `wake_at`.

Rules: the decision is plain code without a clock; it gets its facts and `now_ms`; one decision at a time, a large one in the
decision thread. What a conflict or an outage interrupts is asked again with back-off; after an unknown outcome only once the
mirror has caught up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from controller.decide.types import Plan, View
from controller.election import NotLeader
from controller.loops.picture import Snapshot
from controller.loops.queue import DirtyQueue
from controller.loops.writer import PlanConflict, PlanWriter
from controller.metrics import DECISION_SECONDS, DECISIONS, DECISIONS_FAILED, PASS_SECONDS
from model.documents import Event
from model.errors import StoreError, StoreUnknown
from model.ports import Clock

log = logging.getLogger(__name__)

BACK_OFF_S: Final = 0.02
BACK_OFF_S_MAX: Final = 2.0
THREAD_FROM: Final = 300
"""From so many nodes or dirty keys on a decision runs in the thread: below, the hop costs more than it frees."""

WHOLE: Final = ""
"""The key of a decision that always looks at everything (nodes) and names no keys in its plan."""

Decide = Callable[[View, tuple[str, ...], int], Plan]


@dataclass(frozen=True, slots=True)
class Shell:
    """What every loop shares. `refresh` waits until the mirror has certainly seen every write that may have happened."""

    clock: Clock
    snapshot: Callable[[], Snapshot]
    view: Callable[[Snapshot], View]
    refresh: Callable[[], Awaitable[None]]
    shown: Callable[[int], Awaitable[None]]
    say: Callable[[tuple[Event, ...]], None]
    thread: ThreadPoolExecutor
    deciding: asyncio.Lock


class Loop:
    """`run(writer)` lives as long as the reign; mark keys with `queue.add`."""

    def __init__(self, name: str, decide: Decide, shell: Shell) -> None:
        self.name = name
        self.queue = DirtyQueue()
        self._decide = decide
        self._shell = shell
        self._later: dict[str, int] = {}
        """Keys that wait for time: Unix ms."""

    async def run(self, writer: PlanWriter) -> None:
        """For ever; begins with one pass over nothing, so that what waits for time is found."""
        back_off_s = BACK_OFF_S
        wake_at: float | None = None
        while True:
            dirty = self._with_due(await self.queue.take(wake_at))
            started = self._shell.clock.monotonic()
            try:
                self._remember(dirty, await self._pass(dirty, writer))
                wake_at = self._wake_at()
                back_off_s = BACK_OFF_S
                took_s = self._shell.clock.monotonic() - started
                self.queue.passed(took_s)
                PASS_SECONDS.labels(self.name).observe(took_s)
            except Exception as error:
                await self._failed(error)
                self.queue.add(dirty)
                wake_at = asyncio.get_running_loop().time()
                await asyncio.sleep(back_off_s)
                back_off_s = min(BACK_OFF_S_MAX, 2 * back_off_s)

    async def _failed(self, error: Exception) -> None:
        """A conflict or an outage is everyday; anything else is a fault of ours, and the loop still goes on: what runs keeps
        running, other services may still be decided, and the log says what is wrong."""
        everyday = isinstance(error, PlanConflict | StoreError | NotLeader)
        DECISIONS_FAILED.labels(self.name, "retry" if everyday else "fault").inc()
        if everyday:
            log.info("%s: %s", self.name, error)
        else:
            log.exception("%s: the decision failed: trying again", self.name)
        if isinstance(error, StoreUnknown):
            await self._shell.refresh()

    def _with_due(self, dirty: tuple[str, ...]) -> tuple[str, ...]:
        """The dirty keys and those whose time has come: what one pass left to wait, a pass over other keys must not forget."""
        now_ms = self._shell.clock.now() * 1000
        return tuple(sorted({*dirty, *(key for key, at_ms in self._later.items() if key and at_ms <= now_ms)}))

    def _remember(self, decided: tuple[str, ...], plan: Plan) -> None:
        for key in decided:
            self._later.pop(key, None)
        self._later.update(plan.wakes)
        self._later.pop(WHOLE, None)
        if plan.wake_at_ms is not None and not plan.wakes:
            self._later[WHOLE] = plan.wake_at_ms

    async def _pass(self, dirty: tuple[str, ...], writer: PlanWriter) -> Plan:
        shell = self._shell
        async with shell.deciding:
            snapshot = shell.snapshot()
            plan = await self._decided(self._look(snapshot, dirty), dirty)
        if not plan.empty():
            log.info("%s: %s", self.name, plan.sentence)
            revision = await writer.write(plan, snapshot)
            shell.say(plan.events)
            if plan.deletes and revision:
                await shell.shown(revision)
        return plan

    def _look(self, snapshot: Snapshot, dirty: tuple[str, ...]) -> View:
        """The facts of a pass."""
        return self._shell.view(snapshot)

    async def _decided(self, view: View, dirty: tuple[str, ...]) -> Plan:
        clock = self._shell.clock
        now_ms, started = int(clock.now() * 1000), clock.monotonic()
        if max(len(view.nodes), len(dirty)) >= THREAD_FROM:
            loop = asyncio.get_running_loop()
            plan = await loop.run_in_executor(self._shell.thread, self._decide, view, dirty, now_ms)
        else:
            plan = self._decide(view, dirty, now_ms)
        DECISIONS.labels(self.name).inc()
        DECISION_SECONDS.labels(self.name).observe(clock.monotonic() - started)
        return plan

    def _wake_at(self) -> float | None:
        """When the earliest key wants to be decided again, in the running loop's seconds."""
        if not self._later:
            return None
        in_s = min(self._later.values()) / 1000 - self._shell.clock.now()
        return asyncio.get_running_loop().time() + max(0.01, in_s)
