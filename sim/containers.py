"""Containers and networks of a simulated machine: the ports in memory, with the time things take and the faults of a machine.

Rules: every operation takes a while before its effect and after it, so that an agent that is killed leaves it undone, or done
and not noted. What containers do by themselves happens in the world's context: no agent's death stops it. What a container does
is its command's first word: `job SECONDS` ends with 0, `fail SECONDS` with 1, anything else runs until it is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Final, Literal, Protocol

from agent.network.balance_port import Balancer
from agent.network.memory import MemoryNetwork
from agent.network.port import Attached, AttachmentWanted
from agent.plan.container import ContainerOrder, ExecRequest, Exited
from agent.plan.network import NetworkWanted
from agent.runtime.memory import MemoryRuntime, MemorySession, Program, command_of
from agent.runtime.port import Session
from model.errors import DiskFull, RuntimeFailed
from sim.loop import VirtualLoop

Why = Literal["stopped", "crashed", "power"]
SIGKILL: Final = 9
SIGTERM_S: Final = (0.005, 0.6)
"""How long a container takes to end when it is asked to."""
PROGRAMS: Final = {"job": 0, "fail": 1}


class Troubles(Protocol):
    """What is wrong with the machine now. `hang`: containers that do not hear signals and answer no probe; `unhealthy`: those
    whose probes fail. Both by id."""

    disk_full: bool
    create_fails: bool
    hang: set[str]
    unhealthy: set[str]

    async def takes(self, low_s: float, high_s: float) -> None:
        """Waits as long as the machine needs for something."""


class SimRuntime(MemoryRuntime):
    """`ended(order, code, why)` and `started(order)` are told as it happens."""

    def __init__(
        self,
        troubles: Troubles,
        loop: VirtualLoop,
        rng: Random,
        now: Callable[[], float],
        started: Callable[[ContainerOrder], None],
        ended: Callable[[ContainerOrder, int | None, Why], None],
    ) -> None:
        super().__init__(now=now)
        self._troubles = troubles
        self._loop = loop
        self._rng = rng
        self._on_start = started
        self._on_end = ended
        self._asked: dict[str, float] = {}

    def orders(self) -> list[ContainerOrder]:
        """Of all containers that are there, in the order they were made."""
        return [container.order for container in self._containers.values()]

    def started_at(self, container_id: str) -> float:
        """Unix time; 0: not yet."""
        return self._containers[container_id].started_at

    def asked_at(self, container_id: str) -> float:
        """When the agent asked it to stop; Unix time, 0: not yet."""
        return self._asked.get(container_id, 0.0)

    def running(self, container_id: str) -> bool:
        container = self._containers.get(container_id)
        return container is not None and bool(container.started_at) and container.exit is None

    async def create(self, order: ContainerOrder) -> int:
        await self._troubles.takes(0.02, 0.12)
        if self._troubles.disk_full:
            raise DiskFull(f"container {order.name}: disk full: free space on this node")
        if self._troubles.create_fails:
            raise RuntimeFailed("cannot start: the runtime fails on this machine")
        pid = await super().create(order)
        await self._troubles.takes(0.0, 0.03)
        return pid

    async def start(self, container_id: str) -> None:
        await self._troubles.takes(0.0, 0.02)
        before = self.running(container_id)
        await super().start(container_id)
        if self.running(container_id) and not before:
            order = self._get(container_id).order
            self._on_start(order)
            self._live(order)
        await self._troubles.takes(0.0, 0.02)

    def _live(self, order: ContainerOrder) -> None:
        words = command_of(order)
        if words and words[0] in PROGRAMS:
            after_s = float(words[1]) if len(words) > 1 else 0.0
            self._loop.call_later(after_s, self._ends, order.id, PROGRAMS[words[0]], context=self._loop.world)

    def _ends(self, container_id: str, code: int) -> None:
        """If it is there still."""
        if self.running(container_id):
            self.end(container_id, code)

    async def kill(self, container_id: str, signal: int = 15) -> None:
        await self._troubles.takes(0.0, 0.01)
        if not self.running(container_id):
            return
        self._asked.setdefault(container_id, self._now())
        if signal == SIGKILL:
            self.end(container_id, 128 + SIGKILL)
        elif container_id not in self._troubles.hang:
            low_s, high_s = SIGTERM_S
            self._loop.call_later(
                self._rng.uniform(low_s, high_s), self._ends, container_id, 128 + signal, context=self._loop.world
            )

    async def delete(self, container_id: str) -> None:
        await self._troubles.takes(0.01, 0.05)
        self._asked.setdefault(container_id, self._now())
        await super().delete(container_id)
        self._asked.pop(container_id, None)
        await self._troubles.takes(0.0, 0.02)

    def end(self, container_id: str, exit_code: int, *, oom: bool = False) -> None:
        running = self.running(container_id)
        super().end(container_id, exit_code, oom=oom)
        if running:
            why: Why = "stopped" if container_id in self._asked else "crashed"
            self._on_end(self._get(container_id).order, exit_code, why)

    def power_off(self) -> None:
        """Everything is gone at once; nobody is told but the world."""
        gone = [order for order in self.orders() if self.running(order.id)]
        self._containers.clear()
        self._asked.clear()
        self._exits = asyncio.Queue[Exited]()
        for order in gone:
            self._on_end(order, None, "power")

    async def exec(self, container_id: str, request: ExecRequest) -> Session:
        await self._troubles.takes(0.01, 0.05)
        if container_id in self._troubles.hang:
            return _Silent(Program())
        session = await super().exec(container_id, request)
        return MemorySession(Program(exit_code=1)) if container_id in self._troubles.unhealthy else session


class _Silent(MemorySession):
    """A process that neither says anything nor ends."""

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        await asyncio.Event().wait()
        yield "stdout", b""


class SimNetwork(MemoryNetwork):
    """One operation at a time, as in the kernel's; who waits when the agent dies waits no more. `rewired(id)` is told of a
    container that was connected or disconnected while it runs."""

    def __init__(
        self,
        troubles: Troubles,
        forgotten: Callable[[str, str], bool],
        balance: Callable[[], Balancer | None],
        rewired: Callable[[str], None],
    ) -> None:
        super().__init__(forgotten=forgotten, balance=balance)
        self._troubles = troubles
        self._rewired = rewired
        self._lock = asyncio.Lock()

    def crash(self) -> None:
        super().crash()
        self._lock = asyncio.Lock()

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        async with self._lock:
            await self._troubles.takes(0.005, 0.04)
            await super().apply(networks)

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        async with self._lock:
            await self._troubles.takes(0.005, 0.03)
            got = await super().attach(container_id, networks)
            await self._troubles.takes(0.0, 0.01)
            return got

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        async with self._lock:
            await self._troubles.takes(0.005, 0.03)
            got = await super().connect(container_id, wanted)
            self._rewired(container_id)
            return got

    async def disconnect(self, container_id: str, network: str) -> Attached:
        async with self._lock:
            await self._troubles.takes(0.005, 0.03)
            got = await super().disconnect(container_id, network)
            self._rewired(container_id)
            return got

    async def detach(self, container_id: str) -> None:
        async with self._lock:
            await self._troubles.takes(0.005, 0.03)
            await super().detach(container_id)
