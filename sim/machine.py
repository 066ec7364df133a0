"""A machine of the simulation: what of a node outlives its agent (kernel, containers, disk), and what is wrong with it.

Rules: the agent acts on it by the same ports as on a real one. A reboot takes containers, links, what is recorded in the run
directory and the kernel's tables; the journal, images and volumes stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from agent.core.journal import MemoryJournal
from agent.core.ports import Ports
from agent.core.runner import Runner
from agent.images.errors import ImageNotFound, RegistryUnavailable
from agent.images.memory import MemoryImages
from agent.images.records import ImageConfig
from agent.network.balance_memory import MemoryBalancer, Tables
from agent.plan.container import ContainerOrder
from agent.plan.records import sandbox_of
from agent.volumes.memory import MemoryVolumes
from model.documents import NodeInfo
from model.image_ref import ImageRef
from model.spec import Pairs
from model.version import VERSION
from sim.chance import Chance
from sim.clock import SimClock
from sim.containers import SimNetwork, SimRuntime, Why
from sim.load import Load, LoadedBalancer, Sensors
from sim.loop import VirtualLoop
from sim.trace import Trace

CONNECTION_S: Final = 1.0
"""How long a connection lasts on average that is open when a drain begins."""


@dataclass(frozen=True, slots=True)
class Box:
    """One container. `asked_at`: when its agent asked it to stop (Unix time; 0: it did not); a drain may have come before.
    `addresses`: (network, address) it has; `ports` of mode host as (`80/tcp`,
    `0.0.0.0:32768`); `cpus` and `memory_bytes`: what its service reserves for it."""

    id: str
    service_id: str
    slot: int
    created_ms: int
    version: int
    running: bool
    started_at: float
    addresses: Pairs = ()
    cpus: float = 0.0
    memory_bytes: int = 0
    ports: Pairs = ()
    asked_at: float = 0.0


class Hooks(Protocol):
    """Who is told what happens to containers, in the world's context. `code` None: nobody knows."""

    def container_started(self, node: str, box: Box) -> None: ...

    def container_rewired(self, node: str, box: Box) -> None:
        """It has other addresses now."""

    def container_ended(self, node: str, box: Box, code: int | None, why: str) -> None:
        """`why`: `stopped` (the agent ended it), `crashed` (by itself, or a fault), `power`."""


class Machine:
    """`runtime`, `images`, `volumes`, `network`, `journal` and `tables` outlive agents; `balance` is the present agent's.
    `address`: host:port of its agent."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        clock: SimClock,
        chance: Chance,
        trace: Trace,
        hooks: Hooks,
        cpus: float,
        memory_bytes: int,
        address: str,
    ) -> None:
        self.name = name
        self.cpus = cpus
        self.memory_bytes = memory_bytes
        self.address = address
        self.images_missing = False
        self.registry_down = False
        self.sensors = Sensors()
        self.load: Load | None = None
        """Of the services that scale themselves; None: nothing is measured."""
        self.serves = True
        """The controllers are told where its agent listens; that, every node is told of every other one."""
        self.slow_s = 0.0
        self.create_fails = False
        self.hang: set[str] = set()
        self.unhealthy: set[str] = set()
        self.boots = 1
        self.balance: MemoryBalancer | None = None
        self._disk_full = False
        self._loop = loop
        self._clock = clock
        self._rng = chance.stream(f"machine/{name}")
        self._chance = chance
        self._trace = trace
        self._hooks = hooks
        self._runner: Runner | None = None
        self._boxes: dict[str, Box] = {}
        self._connections: dict[str, float] = {}
        self.runtime = SimRuntime(self, loop, self._rng, clock.now, self._started, self._ended)
        self.wipe()
        self.tables = Tables()
        self.network = self._new_network()

    def wipe(self) -> None:
        """A new disk, after `power_off`."""
        self.images = MemoryImages(self._registry)
        self.volumes = MemoryVolumes(lambda: self._runner.volume_users() if self._runner else {}, self._clock.now)
        self.journal = MemoryJournal()
        self.disk_full = self._disk_full

    def _new_network(self) -> SimNetwork:
        return SimNetwork(self, self._forgotten, lambda: self.balance, self._rewired)

    def _forgotten(self, network: str, address: str) -> bool:
        return self.balance is not None and self.balance.forgotten(network, address)

    def info(self) -> NodeInfo:
        return NodeInfo(
            address=self.address if self.serves else "", underlay=self.address.partition(":")[0], hostname=self.name,
            cpus=self.cpus, memory_bytes=self.memory_bytes, agent_version=VERSION, cgroup="v2", boot_id=f"boot-{self.boots}",
        )  # fmt: skip

    # ---- its agent

    def agent_begins(self) -> Ports:
        """What an agent that died kept in memory is gone. The ports for the next one."""
        self.runtime.crash()
        self.images.crash()
        self.network.crash()
        self.balance = LoadedBalancer(
            self.name, self._clock, self.load, self.tables, takes=lambda: self._rng.uniform(0.002, 0.02) + self.slow_s,
            open_connections=self._open_connections,
        )  # fmt: skip
        return Ports(self.runtime, self.images, self.network, self.volumes, Path("/memory"), balance=self.balance)

    def runs(self, runner: Runner) -> None:
        """The agent's runner: it knows who uses which volume, and what a replica reserves."""
        self._runner = runner

    async def takes(self, low_s: float, high_s: float) -> None:
        await asyncio.sleep(self._rng.uniform(low_s, high_s) + self.slow_s)

    async def _registry(self, ref: ImageRef) -> ImageConfig:
        await self.takes(0.05, 0.6)
        if self.registry_down:
            raise RegistryUnavailable(f"registry {ref.registry}: no answer (5 attempts)")
        if self.images_missing:
            raise ImageNotFound(f"image {ref.familiar} not found at registry {ref.registry}")
        return ImageConfig(cmd=("serve",), labels=(("reference", ref.canonical),))

    def _open_connections(self, addresses: Iterable[str]) -> Mapping[str, int]:
        """Some addresses have connections when they are looked at first; those end after a while."""
        now = self._clock.monotonic()
        found = {}
        for address in addresses:
            if address not in self._connections:
                lasts_s = self._rng.expovariate(1 / CONNECTION_S) if self._rng.random() < 0.5 else 0.0
                self._connections[address] = now + lasts_s
            found[address] = int(self._connections[address] > now)
            if not found[address]:
                del self._connections[address]
        return found

    # ---- its containers

    def containers(self) -> list[Box]:
        """All that are there, in the order they were made."""
        return [self._box(order) for order in self.runtime.orders()]

    def _box(self, order: ContainerOrder) -> Box:
        known = self._boxes.get(order.id)
        return known if known is not None else self._look(order)

    def _look(self, order: ContainerOrder) -> Box:
        text = dict(order.meta)["replica"]
        service_id, slot, created_ms, version = text.rsplit(".", 3)
        sandbox = sandbox_of(text)
        life = self._runner.core.by_container(order.id) if self._runner is not None else None
        reserved = life.spec.reservations if life is not None else order.spec.limits
        published = self.balance.published(sandbox) if self.balance is not None else ()
        ports = tuple((f"{row.target}/{row.protocol}", f"{row.host_ip or '0.0.0.0'}:{row.published}") for row in published)
        return Box(
            order.id, unquote(service_id), int(slot), int(created_ms), int(version), self.runtime.running(order.id),
            self.runtime.started_at(order.id), self.network.addresses(sandbox), reserved.cpus, reserved.memory_bytes, ports,
        )  # fmt: skip

    def _started(self, order: ContainerOrder) -> None:
        box = self._boxes[order.id] = self._look(order)
        self._note("started", order)
        self._tell(lambda: self._hooks.container_started(self.name, box))

    def _rewired(self, sandbox: str) -> None:
        for order in self.runtime.orders():
            if order.id in self._boxes and sandbox_of(dict(order.meta)["replica"]) == sandbox:
                box = self._boxes[order.id] = replace(self._boxes[order.id], addresses=self.network.addresses(sandbox))
                self._tell(partial(self._hooks.container_rewired, self.name, box))

    def _ended(self, order: ContainerOrder, code: int | None, why: Why) -> None:
        was = replace(self._boxes.pop(order.id), running=False, asked_at=self.runtime.asked_at(order.id))
        self._note(f"{why}, code {code}", order)
        self._tell(lambda: self._hooks.container_ended(self.name, was, code, why))

    def _note(self, what: str, order: ContainerOrder) -> None:
        service = order.name.rpartition(".")[0] or order.name
        self._trace.add("container", f"node/{self.name}", f"{order.name} {order.id[:12]} {what}")
        self._trace.add("container", f"service/{service}", f"{order.name} {order.id[:12]} on {self.name} {what}")

    def _tell(self, tell: Callable[[], None]) -> None:
        """A check that fails is no failure of the agent."""
        try:
            Context().run(tell)
        except Exception as error:
            self._loop.call_exception_handler({"message": f"a hook of machine {self.name} failed", "exception": error})

    # ---- what goes wrong

    @property
    def disk_full(self) -> bool:
        return self._disk_full

    @disk_full.setter
    def disk_full(self, full: bool) -> None:
        self._disk_full = self.journal.full = self.images.full = self.volumes.full = full

    def crash(self, container_id: str, code: int) -> None:
        """It ends by itself."""
        if self.runtime.running(container_id):
            self.runtime.end(container_id, code)

    def crash_some(self, n: int) -> None:
        """That many of the running containers end with code 1."""
        running = [order.id for order in self.runtime.orders() if self.runtime.running(order.id)]
        for container_id in self._chance.stream(f"machine/{self.name}/crash").sample(running, min(n, len(running))):
            self.crash(container_id, 1)

    def power_off(self) -> None:
        """After its agent's death."""
        self.runtime.power_off()
        self.network = self._new_network()
        self.tables = Tables()
        self.balance = None
        self._connections.clear()
        self.boots += 1
