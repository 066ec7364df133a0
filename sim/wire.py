"""The network between agents and controllers: who listens, who dials, and everything that can happen to a way.

Rules:
- A way is one direction between two places; "*" is everybody. Places are names of nodes and controllers.
- Every node has a stream of chance of its own: a message more of one shifts no other's delays.
- A controller's kernel pings silent nodes as its gRPC server is told to, and drops those that do not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.core.stream import ControllerStream, Dial, StreamBroken
from controller.certificates import Peer
from controller.dispatch.stream import NodeStream
from sim.chance import Chance
from sim.connection import CLOSED, Connection, ControllerEnd, NodeEnd, Refused
from sim.loop import VirtualLoop
from sim.pipe import GONE, End, Weather
from sim.process import Process
from sim.trace import Trace

log = logging.getLogger(__name__)

CONNECT_TRIES_S: Final = (1.0, 2.0, 2.0)
"""After how long a connection is tried again; after the last one the dialler gives up."""
KEEPALIVE_S: Final = 25.0
"""A ping after 20 s at most of silence, and 10 s for its answer: 20 to 30 s."""
Serve = Callable[[NodeStream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    place: str
    process: Process
    serve: Serve


class Wire:
    """`failed(place, error)` is told of an unexpected exception while a session was served; a controller only logs it."""

    def __init__(self, loop: VirtualLoop, chance: Chance, trace: Trace) -> None:
        self.failed: Callable[[str, BaseException], None] = _log_failure
        self._loop = loop
        self._chance = chance
        self._trace = trace
        self._weather = Weather()
        self._listeners: dict[str, Listener] = {}
        self._places: dict[str, str] = {}
        """Where an address was last listened at."""
        self._cuts: dict[tuple[str, str], None] = {}
        self._off: dict[str, None] = {}
        """Places without power."""
        self._known: dict[Process, None] = {}
        self._connections: dict[int, Connection] = {}
        self._at: dict[str, dict[int, Connection]] = {}
        self._number = 0

    # ---- both ends

    def listen(self, address: str, place: str, process: Process, serve: Serve) -> None:
        """Whoever dials `address` is served by a task of `process`, until that dies."""
        self._off.pop(place, None)
        self._listeners[address] = Listener(place, process, serve)
        self._places[address] = place
        self._watch(process)

    def dial(self, place: str, process: Process, peer: Callable[[], Peer]) -> Dial:
        """`peer` says whom the certificate names that is shown when a connection is made."""
        self._off.pop(place, None)
        self._watch(process)

        @asynccontextmanager
        async def dial(address: str) -> AsyncIterator[ControllerStream]:
            connection = await self._connect(place, process, peer, address)
            try:
                yield NodeEnd(connection)
            finally:
                connection.leave()

        return dial

    async def _connect(self, place: str, process: Process, peer: Callable[[], Peer], address: str) -> Connection:
        rng = self._chance.stream(f"wire/{place}")
        for wait_s in CONNECT_TRIES_S:
            target = self._places.get(address, "")
            if not self._blocked(place, target):
                await asyncio.sleep(sum(self._weather.delay_s(rng, place, target) for _ in range(4)))
                listener = self._listeners.get(address)
                if listener is None:
                    raise StreamBroken("cannot be reached (connection refused)")
                return self._open(place, process, peer(), listener)
            await asyncio.sleep(wait_s)
        raise StreamBroken(f"cannot be reached (no answer within {sum(CONNECT_TRIES_S):g} s)")

    def _open(self, place: str, process: Process, peer: Peer, listener: Listener) -> Connection:
        self._number += 1
        connection = Connection(
            self._loop, self._weather, self._chance.stream(f"wire/{place}"), self._number,
            (place, process), (listener.place, listener.process), peer, self._trace, self._forget,
        )  # fmt: skip
        self._connections[connection.number] = connection
        for end in (place, listener.place):
            self._at.setdefault(end, {})[connection.number] = connection
        self._look_at(connection)
        self._trace.add("session", place, f"with {listener.place}#{connection.number}")
        task = listener.process.spawn(self._serve(connection, listener.serve))
        connection.task = task
        task.add_done_callback(partial(_served, connection), context=self._loop.world)
        return connection

    async def _serve(self, connection: Connection, serve: Serve) -> End:
        try:
            await serve(ControllerEnd(connection))
        except Refused as error:
            return End(str(error), clean=True)
        except Exception as error:
            self.failed(connection.controller, error)
            return End(f"unknown: {type(error).__name__}: {error}")
        return CLOSED

    def _forget(self, connection: Connection) -> None:
        if self._connections.pop(connection.number, None) is not None:
            for end in (connection.node, connection.controller):
                del self._at[end][connection.number]

    # ---- what happens to ways

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target`. What is sent meanwhile arrives when it is mended, if the connection lives."""
        self._cuts[source, target] = None
        self._look_at_all()

    def mend(self, source: str, target: str) -> None:
        self._cuts.pop((source, target), None)
        self._look_at_all()

    def slow(self, place: str, low_s: float, high_s: float) -> None:
        """Everything from and to it takes so much longer."""
        self._weather.slow[place] = (low_s, high_s)

    def normal(self, place: str) -> None:
        """Neither slow nor lossy any more."""
        self._weather.slow.pop(place, None)
        self._weather.lossy.pop(place, None)

    def lossy(self, place: str, rate: float) -> None:
        """`rate` of the messages from and to it are lost and sent again: 0 to below 1; 0 ends it."""
        if rate > 0:
            self._weather.lossy[place] = rate
        else:
            self._weather.lossy.pop(place, None)

    def reset(self, place: str) -> None:
        """Its connections break; both ends notice."""
        for connection in self._of(place):
            connection.break_both()

    def vanish(self, place: str) -> None:
        """Its power is lost: the others hear nothing more, and nobody can dial it, until something there listens or dials. The
        caller kills its processes, after this: before, their connections would be reset."""
        self._off[place] = None
        now = self._loop.time()
        for connection in self._of(place):
            if place == connection.controller:
                connection.vanish_controller()
            else:
                connection.vanish_node(now)
                self._suspect(connection)

    def connections(self, place: str) -> int:
        """Those of which at least one end is still open."""
        return len(self._at.get(place, ()))

    def _of(self, place: str) -> list[Connection]:
        return [*self._at.get(place, {}).values()]

    def _is_cut(self, source: str, target: str) -> bool:
        cuts = self._cuts
        return bool(cuts) and any(way in cuts for way in ((source, target), (source, "*"), ("*", target), ("*", "*")))

    def passes(self, source: str, target: str) -> bool:
        """Whether anything gets there now."""
        return source not in self._off and target not in self._off and not self._is_cut(source, target)

    def _blocked(self, one: str, other: str) -> bool:
        return other in self._off or self._is_cut(one, other) or self._is_cut(other, one)

    def _look_at_all(self) -> None:
        for connection in [*self._connections.values()]:
            self._look_at(connection)

    def _look_at(self, connection: Connection) -> None:
        for pipe in (connection.up, connection.down):
            cut = self._is_cut(pipe.source, pipe.target)
            if pipe.cut and not cut:
                pipe.mend()
            pipe.cut = cut
        if not (connection.up.cut or connection.down.cut):
            connection.cut_at = None
        elif connection.cut_at is None:
            connection.cut_at = self._loop.time()
            self._suspect(connection)

    # ---- what happens to processes

    def _watch(self, process: Process) -> None:
        if process not in self._known:
            self._known[process] = None
            process.on_death.append(partial(self._died, process))
            process.on_pause.append(partial(self._paused, process))

    def _died(self, process: Process) -> None:
        """Its kernel closes its sockets."""
        del self._known[process]
        for address, listener in [*self._listeners.items()]:
            if listener.process is process:
                del self._listeners[address]
        for connection in self._with(process):
            if connection.node_process is process:
                connection.leave()
            else:
                connection.close(GONE)

    def _paused(self, process: Process) -> None:
        for connection in self._with(process):
            if connection.node_process is process:
                self._suspect(connection)

    def _with(self, process: Process) -> Iterable[Connection]:
        return [it for it in self._connections.values() if process in (it.node_process, it.controller_process)]

    def _suspect(self, connection: Connection) -> None:
        self._loop.call_later(KEEPALIVE_S, self._ping, connection, context=self._loop.world)

    def _ping(self, connection: Connection) -> None:
        """Whoever has been silent all the time since it was suspected is dropped; a paused controller pings nobody."""
        since = connection.silent_since()
        if not connection.controller_open or since is None:
            return
        if connection.controller_process.paused:
            self._suspect(connection)
        elif self._loop.time() - since >= KEEPALIVE_S - 0.001:
            connection.drop()


def _served(connection: Connection, task: asyncio.Task[End]) -> None:
    connection.close(GONE if task.cancelled() or task.exception() else task.result())


def _log_failure(place: str, error: BaseException) -> None:
    log.error("%s: a session failed", place, exc_info=error)
