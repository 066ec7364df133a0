"""Light agents, many in one process: `python -m bench.control_plane_kit.agents FILE`. Commands on stdin, answers on stdout.

Rules: each has its own connection, certificate and session (gRPC over mutual TLS, line.py) and says what a real agent says:
Hello, a whole status, Ack for every Desired, EndpointsAck, heartbeats, and, once `report` was said, the state of its replicas;
only the containers are missing. One container takes START_S to start, one after the other on its node, and all that start
together are told in one status. Commands: `stats` (one JSON object), `reset` (counts from here on), `report` (containers begin
to start), `lose N` (the first N go silent for good: their connections are cut).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.control_plane_kit.line import Line, context_of, dial
from bench.control_plane_kit.wire import Slot, Told, replica_bytes, status_bytes
from controller.dispatch.tls_link import Links
from protos import node_pb2 as pb

START_S: Final = 0.04
"""The CPU one started container costs a node of one core."""
COALESCE_S: Final = 0.05
BEAT_STEP_S: Final = 0.05
OPENING_MAX: Final = 48
"""Sessions that a process begins at the same time at first; after a change of leader they come as they come."""
DIALLING_MAX: Final = 32
"""Shaking hands takes this side longer than the controller. Thousands of machines do it each for itself; thousands in one
process would all be too late."""
PATH: Final = "/shoal.node.v1.Dispatch/Session"
DESIRED: Final = 0x12
"""How a ToNode with a Desired begins."""
UNHEARD_MAX: Final = 8
INFO: Final = json.dumps({"cpus": 64.0, "memory_bytes": 256 << 30, "pids": 100_000, "arch": "x86_64"}).encode()


@dataclass(slots=True)
class Stats:
    """Of all agents here. Times in seconds of the monotonic clock, which all processes share."""

    sessions: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    """Sessions by the epoch of their leader."""
    settled: int = 0
    """Of these, how many have taken a Desired in it."""
    replicas: int = 0
    """Assigned and acknowledged, on nodes that are not lost."""
    running: int = 0
    """Of these, reported as running."""
    added: int = 0
    removed: int = 0
    last_ack: float = 0.0
    last_running: float = 0.0
    last_settled: float = 0.0
    opened: int = 0
    """Sessions tried, since the beginning."""
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0


class Fleet:
    """What the agents of this process share."""

    def __init__(self, ca: str, controllers: Sequence[str], seed: int) -> None:
        self.ca = ca
        self.links = Links()
        self.controllers = tuple(controllers)
        self.opening = asyncio.Semaphore(OPENING_MAX)
        self.dialling = asyncio.Semaphore(DIALLING_MAX)
        self.random = Random(seed)
        self.stats = Stats()
        self.due: asyncio.Queue[LightAgent] = asyncio.Queue()
        """Those whose containers run and are not told yet."""
        self.heartbeat_s = 2.5
        self.reporting = False


class LightAgent:
    """One node. `run()` keeps a session open until it is lost."""

    def __init__(self, fleet: Fleet, name: str, certificate: str) -> None:
        self._fleet = fleet
        self.name = name
        self._certificate = certificate
        self._services: dict[str, frozenset[Slot]] = {}
        self._specs: dict[tuple[str, int], None] = {}
        self._running: dict[str, frozenset[Slot]] = {}
        self._generation = 0
        self._epoch = 0
        """Of the leader that has welcomed it last; `_open`: of the one it has a session with."""
        self._open = 0
        self._settled = False
        self.counted = False
        """As settled, since the counts were reset."""
        self._line: Line | None = None
        self._heard_s = 0.0
        self._unheard = 0
        """Beats since it has heard anything. Seconds would be those of a process with a thousand others to serve."""
        self._starting: asyncio.TimerHandle | None = None
        self._beat_number = 0
        self._next = self._unreachable = ""
        self._answered = False
        self._controllers = fleet.controllers

    async def run(self) -> None:
        failures = turn = 0
        while True:
            address, self._next = self._next or self._controllers[turn % len(self._controllers)], ""
            turn += 1
            epoch, self._answered = self._epoch, False
            with contextlib.suppress(OSError):
                await self._session(address)
            self._unreachable = "" if self._epoch != epoch else self._unreachable if self._answered else address
            failures = 0 if self._epoch != epoch else failures + 1
            if not self._next:
                limit = min(3.0, 0.1 * 2.0 ** min(failures, 6))
                await asyncio.sleep(self._fleet.random.uniform(0.1, max(limit, 0.2)))

    async def _session(self, address: str) -> None:
        self._settled, self._unheard = False, 0
        try:
            async with self._fleet.dialling:
                self._fleet.stats.opened += 1
                context = context_of(self._fleet.ca, self._certificate)
                self._line = await dial(address, context, self._fleet.links, PATH, self._hear)
                self._say(pb.FromNode(hello=self._hello()).SerializeToString())
                await self._line.shaking
            await self._line.over
        finally:
            if self._line is not None:
                self._line.close()
                self._line = None
            self._closed()

    def _hello(self) -> pb.Hello:
        known = [pb.SpecKey(service_id=sid, version=version) for sid, version in self._specs]
        return pb.Hello(
            node=self.name, info=INFO, generation=self._generation, known_specs=known, unreachable=self._unreachable
        )

    def _hear(self, data: bytes) -> None:
        stats = self._fleet.stats
        stats.messages_in += 1
        stats.bytes_in += len(data)
        self._heard_s, self._unheard = time.monotonic(), 0
        if data[0] == DESIRED:
            self._take(Told.FromString(data).desired)
            return
        message = pb.ToNode.FromString(data)
        kind, self._answered = message.WhichOneof("kind"), True
        if kind == "welcome":
            self._welcomed(message.welcome)
        elif kind == "endpoints":
            self._say(pb.FromNode(endpoints_ack=pb.EndpointsAck(number=message.endpoints.number)).SerializeToString())
        elif kind in ("redirect", "goodbye"):
            self._next = message.redirect.dispatch
            self._hang_up()

    def _welcomed(self, welcome: pb.Welcome) -> None:
        if not self._epoch:
            self._fleet.opening.release()
        self._epoch = self._open = welcome.epoch
        self._controllers = tuple(welcome.controllers)
        self._fleet.heartbeat_s = welcome.heartbeat_s
        stats = self._fleet.stats
        stats.sessions += 1
        stats.epochs[welcome.epoch] = stats.epochs.get(welcome.epoch, 0) + 1
        self._say(status_bytes(True, [row for sid, slots in self._running.items() for row in replica_bytes(sid, slots)], []))

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()

    def _closed(self) -> None:
        epoch, self._open = self._open, 0
        if self.counted:
            self.counted = False
            self._fleet.stats.settled -= 1
        if epoch:
            stats = self._fleet.stats
            stats.sessions -= 1
            stats.epochs[epoch] -= 1
            if not stats.epochs[epoch]:
                del stats.epochs[epoch]

    def _take(self, desired: Any) -> None:
        """As the agent does: whole replaces everything, else what it names."""
        services = {} if desired.whole else dict(self._services)
        for row in desired.services:
            for spec in row.specs:
                self._specs[row.service_id, spec.version] = None
            services[row.service_id] = frozenset(row.slots)
        for gone in desired.removed_services:
            services.pop(gone, None)
        added = removed = 0
        for sid in services.keys() | self._services.keys():
            now, before = services.get(sid, frozenset()), self._services.get(sid, frozenset())
            if now is not before:
                added += len(now - before)
                removed += len(before - now)
        self._services, self._generation = services, desired.generation
        self._say(pb.FromNode(ack=pb.Ack(generation=desired.generation)).SerializeToString())
        stats = self._fleet.stats
        stats.added += added
        stats.removed += removed
        stats.replicas += added - removed
        stats.last_ack = self._heard_s
        if not self._settled:
            self._settled = self.counted = True
            stats.settled += 1
            stats.last_settled = self._heard_s
        if added or removed:
            self._start(added)

    def _start(self, count: int) -> None:
        """When the new ones run they are told, with those that are gone."""
        if not self._fleet.reporting:
            return
        if self._starting is not None:
            self._starting.cancel()
        delay_s = COALESCE_S + count * START_S * self._fleet.random.uniform(0.9, 1.1)
        self._starting = asyncio.get_running_loop().call_later(delay_s, self._fleet.due.put_nowait, self)

    def report(self) -> None:
        """From now on what runs is told; nothing was so far."""
        if self._services:
            self._start(sum(map(len, self._services.values())))

    def tell(self) -> None:
        """What has started."""
        self._starting = None
        before, self._running = self._running, self._services
        rows: list[bytes] = []
        gone: list[tuple[str, Slot]] = []
        for sid in sorted(before.keys() | self._running.keys()):
            was, now = before.get(sid, frozenset()), self._running.get(sid, frozenset())
            if was is now:
                continue
            rows += replica_bytes(sid, now - was)
            gone += [(sid, slot) for slot in was - now]
        stats = self._fleet.stats
        stats.running += len(rows) - len(gone)
        stats.last_running = time.monotonic()
        if self._open:
            self._say(status_bytes(False, rows, gone))

    def beat(self) -> None:
        self._unheard += 1
        if self._unheard > UNHEARD_MAX:
            self._hang_up()
        elif self._open:
            self._beat_number += 1
            self._say(pb.FromNode(heartbeat=pb.Heartbeat(sequence=self._beat_number)).SerializeToString())

    def lose(self) -> None:
        """Counts no more: its node is gone."""
        stats = self._fleet.stats
        stats.replicas -= sum(map(len, self._services.values()))
        stats.running -= sum(map(len, self._running.values()))
        self._services, self._running = {}, {}
        if self._starting is not None:
            self._starting.cancel()

    def _say(self, data: bytes) -> None:
        if self._line is not None:
            self._line.say(data)
            self._fleet.stats.messages_out += 1
            self._fleet.stats.bytes_out += len(data)


async def _open_all(fleet: Fleet, agents: list[LightAgent], sessions: dict[LightAgent, asyncio.Task[None]]) -> None:
    for agent in list(agents):
        await fleet.opening.acquire()
        sessions[agent] = asyncio.ensure_future(agent.run())


async def _beat_all(fleet: Fleet, agents: list[LightAgent]) -> None:
    """Spread evenly over the interval. By the clock: a process that is slow must not make its agents silent."""
    at, before_s = 0.0, time.monotonic()
    while True:
        await asyncio.sleep(BEAT_STEP_S)
        now_s = time.monotonic()
        until = at + len(agents) * min(1.0, (now_s - before_s) / fleet.heartbeat_s)
        for number in range(int(at), int(until)):
            agents[number % len(agents)].beat()
        at, before_s = until, now_s


async def _tell_all(fleet: Fleet) -> None:
    """One after the other: thousands at once would let nobody else of this process say anything for seconds."""
    while True:
        (await fleet.due.get()).tell()
        await asyncio.sleep(0)


async def _serve(fleet: Fleet, agents: list[LightAgent]) -> None:
    """Until stdin ends."""
    sessions: dict[LightAgent, asyncio.Task[None]] = {}
    opening = asyncio.ensure_future(_open_all(fleet, agents, sessions))
    beating = asyncio.gather(_beat_all(fleet, agents), _tell_all(fleet))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while words := (await reader.readline()).decode().split():
        if words[0] == "reset":
            for name in ("added", "removed", "settled", "bytes_in", "bytes_out", "messages_in", "messages_out"):
                setattr(fleet.stats, name, 0)
            for agent in agents:
                agent.counted = False
        elif words[0] == "report":
            fleet.reporting = True
            for agent in agents:
                agent.report()
        elif words[0] == "lose":
            for agent in agents[: int(words[1])]:
                agent.lose()
                sessions.pop(agent).cancel()
            del agents[: int(words[1])]
        print(json.dumps(asdict(fleet.stats) | {"cpu_s": time.process_time()}), flush=True)
    beating.cancel()
    opening.cancel()
    for task in sessions.values():
        task.cancel()
    await asyncio.gather(beating, opening, *sessions.values(), return_exceptions=True)


async def main(path: Path) -> None:
    """`path`: JSON with `ca`, `controllers`, `seed` and `agents` (name, file with certificate and key)."""
    settings = json.loads(path.read_text())
    fleet = Fleet(settings["ca"], settings["controllers"], settings["seed"])
    await _serve(fleet, [LightAgent(fleet, name, certificate) for name, certificate in settings["agents"]])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(main(Path(sys.argv[1])))
