"""The agent on a simulated machine: the real core, runner and session, in a process that can be killed and paused.

Rules: what agent/wiring.py puts together on a real machine is put together here with other ports. Nothing of a killed agent
runs on; the next one finds what the machine kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agent.core.leaving import leave
from agent.core.ports import Ports
from agent.core.report import Reporter
from agent.core.runner import Runner
from agent.core.session import NodeIdentity, Removed, SessionClient
from agent.plan.core import Core
from controller.certificates import Peer
from model.documents import Event
from sim.chance import Chance
from sim.clock import SimClock, SimRandom
from sim.load import SimSampler
from sim.loop import VirtualLoop
from sim.machine import Machine
from sim.process import Process
from sim.trace import Trace
from sim.wire import Wire


class SimNode:
    """`removed`: the cluster said so and the agent has taken everything away, or its owner has. `older_volumes`: those its disk
    had when it joined again; the cluster has given them up. `crashed(name, error)` is told of an agent that ended by an
    exception."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        loop: VirtualLoop,
        wire: Wire,
        clock: SimClock,
        chance: Chance,
        trace: Trace,
        controllers: Sequence[str],
        serial: str,
        node_id: str,
    ) -> None:
        self.name = name
        self.machine = machine
        self.clock = clock
        self.removed = False
        self.older_volumes: frozenset[str] = frozenset()
        self.runner: Runner | None = None
        self.process = Process(loop, name)
        self.process.kill()
        self.crashed: Callable[[str, BaseException], None] = lambda _, error: None
        self._loop = loop
        self._wire = wire
        self._chance = chance
        self._trace = trace
        self._controllers = tuple(controllers)
        self.serial = serial
        self.node_id = node_id

    @property
    def alive(self) -> bool:
        return self.process.alive

    def start(self) -> None:
        """Also after a `kill`; nothing happens while it runs."""
        if self.alive or self.removed:
            return
        self._trace.add("agent", f"node/{self.name}", "starts")
        self.process = Process(self._loop, self.name)
        self.process.crashed = lambda error: self.crashed(self.name, error)
        sensors = self.machine.sensors if self.machine.load is not None else None
        ports, core = self.machine.agent_begins(), Core(self.name)
        reporter = _Telling(self._trace)
        self.runner = Runner(core, ports, self.machine.journal, self.clock, reporter)
        self.machine.runs(self.runner)
        client = SessionClient(
            NodeIdentity(self.name, self.node_id, self._controllers),
            self._wire.dial(self.name, self.process, self._peer),
            self.runner,
            reporter,
            self.machine.info,
            self.clock,
            SimRandom(self._chance.stream(f"agent/{self.name}")),
            self._remember,
            sampler=SimSampler(self.runner, self.clock, sensors, self.process.crashed) if sensors is not None else None,
        )
        self.process.spawn(self._serve(self.runner, client, ports), "agent")

    def _peer(self) -> Peer:
        return Peer(self.name, "node", self.serial)

    def _remember(self, controllers: Sequence[str]) -> None:
        """As a real agent does: not on a full disk."""
        if not self.machine.disk_full:
            self._controllers = tuple(controllers)

    async def _serve(self, runner: Runner, client: SessionClient, ports: Ports) -> None:
        await runner.recover()
        work = asyncio.ensure_future(runner.run())
        session = asyncio.ensure_future(client.run())
        done, _ = await asyncio.wait([work, session], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if not isinstance(error, Removed):
                raise error or RuntimeError("an agent's task has ended")
            await leave(runner, self.machine.journal, ports, str(error))
        self.removed = True
        self._trace.add("agent", f"node/{self.name}", "was removed and has left")
        self.kill()

    def kill(self) -> None:
        """SIGKILL: its containers run on."""
        if self.alive:
            self._trace.add("agent", f"node/{self.name}", "ends")
            self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def power_off(self) -> None:
        """Nobody is told: the other ends of its connections hear silence."""
        self._trace.add("machine", f"node/{self.name}", "goes off")
        self._wire.vanish(self.name)
        self.process.kill()
        self.machine.power_off()

    def power_on(self) -> None:
        self._trace.add("machine", f"node/{self.name}", "goes on")
        self.start()

    def rejoin(self, serial: str, node_id: str) -> None:
        """It has joined again: as another node by the same name. An agent that still runs (the node was removed while it was
        away, and nobody but its owner tells it) is stopped first."""
        self.kill()
        self.older_volumes = frozenset(volume.name for volume in self.machine.volumes.all())
        self.serial, self.node_id, self.removed = serial, node_id, False
        self.start()

    def retire(self) -> None:
        """Its owner stops the agent and everything that runs, and wipes the disk; what a removed node is told to do whose
        machine is not used again."""
        self._trace.add("machine", f"node/{self.name}", "is retired")
        self.process.kill()
        self.machine.power_off()
        self.machine.wipe()
        self.removed = True


class _Telling(Reporter):
    """What the agent tells people stands in the trace, too."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def event(self, event: Event) -> None:
        self._trace.add(event.kind, event.about, f"{event.sentence} ({event.node})")
        super().event(event)
