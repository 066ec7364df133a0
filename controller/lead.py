"""What the leader does while it leads: the loops, the sessions, the writers; all of it ends with the reign.

Rules: a reign begins with a picture at least as new as the leader's key and compared with the store (after a watch that lost
something nodes would be told an older state), and with every service and node dirty. Whatever fails here ends the reign and,
unless it is the store, the process: half a leader is worse than none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from controller.decide.index import Index
from controller.decide.machines.decide import decide_machines
from controller.decide.nodes import decide_nodes
from controller.decide.services import decide_services
from controller.decide.types import Plan, Settings, View
from controller.dispatch.server import Dispatch
from controller.election import Reign
from controller.loops.dirty import EVERYTHING, dirty_nodes, dirty_services
from controller.loops.events import EventLog, joined
from controller.loops.loop import WHOLE, Loop, Shell
from controller.loops.machines import MachineKeeper, concerns_machines
from controller.loops.measuring import Measuring
from controller.loops.picture import Change, Picture, Snapshot
from controller.loops.scaling import ScalingLoop
from controller.loops.shrinking import Shrinking
from controller.loops.views import view_of
from controller.loops.writer import PlanWriter
from controller.prometheus.queries import Queries
from controller.samples.port import Samples
from controller.steady import zero_ms
from model.documents import Event
from model.ports import Clock
from model.store_port import Store


class Leadership:
    """`lead(reign)` is what the election runs."""

    def __init__(
        self,
        store: Store,
        picture: Picture,
        clock: Clock,
        settings: Settings,
        shown: Callable[[int], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
        compared: Callable[[], Awaitable[None]],
        samples: Samples,
        queries: Queries,
        measuring: Measuring,
    ) -> None:
        self._store = store
        self._picture = picture
        self._clock = clock
        self._settings = settings
        self._shown = shown
        self._compared = compared
        self._events = EventLog()
        self._thread = ThreadPoolExecutor(1, "decide")
        self._reign: Reign | None = None
        self._index = Index()
        self.dispatch: Dispatch | None = None
        self.keeper: MachineKeeper | None = None
        """Of a controller that may make machines."""
        shell = Shell(
            clock, picture.snapshot, self._view, refresh, shown, self._events.say, self._thread, asyncio.Lock()
        )
        self._services = Loop("services", self._decide_services, shell)
        self._nodes = Loop("nodes", self._decide_nodes, shell)
        self._machines = Loop("machines", self._decide_machines, shell)
        self._queries = queries
        self._shrinking = Shrinking(samples)
        self._scaling = ScalingLoop(shell, settings, measuring)

    @property
    def reign(self) -> Reign | None:
        return self._reign

    def say(self, events: Sequence[Event]) -> None:
        """What agents told their session. For the ring; only the leader writes it, and only the leader has sessions."""
        if self._reign is not None:
            self._events.say(events)

    def node_facts_changed(self, node: str) -> None:
        """A session came, went, or brought its first whole status."""
        if self._reign is not None:
            self._nodes.queue.add((node,))

    def woken(self, service_id: str) -> None:
        """Somebody calls a service that sleeps."""
        if self._reign is not None:
            self._scaling.wake(service_id)

    async def lead(self, reign: Reign) -> None:
        dispatch = self.dispatch
        assert dispatch is not None, "the dispatch server is made before the first reign"
        await self._compared()
        await self._shown(reign.guard.mod_revision)
        self._reign = reign
        self._index = Index()
        writer = PlanWriter(self._store, self._picture, reign)
        unsubscribe = self._picture.subscribe(self._on_changes)
        snapshot = self._picture.snapshot()
        self._services.queue.add((EVERYTHING,))
        self._nodes.queue.add(snapshot.of("nodes"))
        self._scaling.reload(snapshot.of("services"))
        reign.started_s = self._clock.monotonic()  # before, no node could be heard
        dispatch.open(reign)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._services.run(writer))
                group.create_task(self._nodes.run(writer))
                if self.keeper is not None:
                    self._look_at_machines()
                    group.create_task(self._machines.run(writer))
                    group.create_task(self.keeper.run(writer, reign, self._look_at_machines))
                group.create_task(self._scaling.run(writer))
                group.create_task(self._queries.run())
                group.create_task(dispatch.writer.run(writer))
                group.create_task(self._events.run(writer, self._picture.snapshot))
        finally:
            self._reign = None
            unsubscribe()
            dispatch.shut()

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _on_changes(self, changes: list[Change]) -> None:
        self._services.queue.add(dirty_services(changes, self._picture.snapshot()))
        self._nodes.queue.add(dirty_nodes(changes))
        if concerns_machines(changes, self._picture.snapshot()):
            self._look_at_machines()
        self._shrinking.take(changes)
        self._scaling.take(changes)
        self._events.say(joined(changes))

    def _view(self, snapshot: Snapshot) -> View:
        sessions = self.dispatch.sessions() if self.dispatch else {}
        started_ms = int(zero_ms(self._clock) + self._reign.started_s * 1000) if self._reign else 0
        listened_ms = self.dispatch.listened_ms() if self.dispatch else None
        view = view_of(snapshot, self._index, sessions, started_ms, listened_ms)
        return replace(view, busy=busy) if (busy := self._shrinking.busy(view)) else view

    def _decide_services(self, view: View, dirty: tuple[str, ...], now_ms: int) -> Plan:
        return decide_services(view, None if EVERYTHING in dirty else dirty, self._settings, now_ms)

    def _look_at_machines(self) -> None:
        self._machines.queue.add((WHOLE,))

    def _decide_machines(self, view: View, dirty: tuple[str, ...], now_ms: int) -> Plan:
        assert self.keeper is not None, "the loop runs only with one"
        return decide_machines(self.keeper.facts(view, self._settings), now_ms).plan

    def _decide_nodes(self, view: View, dirty: tuple[str, ...], now_ms: int) -> Plan:
        return decide_nodes(view, self._settings, now_ms)
