"""A session's connection: the node's end, the controller's end, and what each hears of the other's death.

Rules, as with gRPC over TCP: when the node's end goes, the controller's task is cancelled; when the controller's task returns,
the node reads to the end; a process that dies has its connections reset by its kernel; a machine that dies says nothing. Others
run while something is written, as they do with gRPC; heartbeats, of which there are many, are neither waited for nor traced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, NoReturn

from agent.core.stream import StreamBroken
from controller.certificates import Peer
from controller.dispatch.stream import Refusal
from protos import node_pb2 as pb
from sim.loop import VirtualLoop
from sim.pipe import GONE, WINDOW, End, Pipe, Weather
from sim.process import Process
from sim.trace import Trace

CLOSED: Final = End("closed by the controller", clean=True)
_UP: Final = {field.number: field.name for field in pb.FromNode.DESCRIPTOR.fields}
_DOWN: Final = {field.number: field.name for field in pb.ToNode.DESCRIPTOR.fields}
_BEAT_UP: Final = pb.FromNode.HEARTBEAT_FIELD_NUMBER
_BEAT_DOWN: Final = pb.ToNode.HEARTBEAT_FIELD_NUMBER


class Refused(Exception):
    """The controller has refused the session; the message is what the node is told."""


class Connection:
    """`node_open`, `controller_open`: that end still has its socket. `task`: the controller's, which serves it."""

    def __init__(
        self,
        loop: VirtualLoop,
        weather: Weather,
        rng: random.Random,
        number: int,
        node: tuple[str, Process],
        controller: tuple[str, Process],
        peer: Peer,
        trace: Trace,
        forget: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.node, self.node_process = node
        self.controller, self.controller_process = controller
        self.peer = peer
        self.up = Pipe(loop, weather, rng, self.node, self.controller, self._node_gone)
        self.down = Pipe(loop, weather, rng, self.controller, self.node, _nothing)
        self.node_open = True
        self.controller_open = True
        self.task: asyncio.Task[Any] | None = None
        self.cut_at: float | None = None
        """Since when a way of it is cut."""
        self.vanished_at: float | None = None
        """Since when the node's machine is without power."""
        self.trace = trace
        self._forget = forget

    # ---- ends

    def leave(self, end: End = GONE) -> None:
        """The node's end is closed: by the agent, or by the kernel after the agent's death."""
        if self.node_open:
            self.node_open = False
            self.down.shut()
            if self.controller_open:
                self.up.send(end)
            else:
                self._forget(self)

    def close(self, end: End) -> None:
        """The controller's end is closed: its task has returned, or its process is dead."""
        if self.controller_open:
            self.controller_open = False
            self.up.shut()
            if self.node_open:
                self.trace.add("session-ends", self.node, f"{self.controller}#{self.number}: {end.why}")
                self.down.send(end)
            else:
                self._forget(self)

    def break_both(self) -> None:
        """Both ends notice at once."""
        self.down.finish(GONE)
        self.up.finish(GONE)

    def drop(self) -> None:
        """The controller's kernel gives up a node that does not answer."""
        self.close(GONE)
        self._cancel()

    def vanish_node(self, now: float) -> None:
        self.node_open = False
        self.vanished_at = now
        if not self.controller_open:
            self._forget(self)

    def vanish_controller(self) -> None:
        self.controller_open = False
        if not self.node_open:
            self._forget(self)

    def silent_since(self) -> float | None:
        """Since when the controller's kernel would have had no answer of the node."""
        paused = self.node_process.paused_at if self.node_process.paused else None
        return min((at for at in (self.cut_at, self.vanished_at, paused) if at is not None), default=None)

    def _node_gone(self) -> None:
        self.close(GONE)
        self._cancel()

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class NodeEnd:
    """See agent.core.stream.ControllerStream."""

    def __init__(self, connection: Connection) -> None:
        self._it = connection

    async def write(self, message: pb.FromNode) -> None:
        it = self._it
        self._check()
        data = message.SerializeToString()
        kind = data[0] >> 3 if data else 0
        it.up.send(data)
        if kind != _BEAT_UP:
            it.trace.add("says", it.node, f"{_UP.get(kind)} {len(data)} B to {it.controller}#{it.number}")
            await asyncio.sleep(0)
        if it.up.unread >= WINDOW:
            await it.up.room()
            self._check()

    async def read(self) -> pb.ToNode | None:
        data = await self._it.down.take()
        if data is not None:
            return pb.ToNode.FromString(data)
        if self._it.down.end is CLOSED:
            return None
        raise self._broken()

    def _check(self) -> None:
        if self._it.down.end is not None or not self._it.node_open:
            raise self._broken()

    def _broken(self) -> StreamBroken:
        end = self._it.down.end
        return StreamBroken("broken off" if end is None else end.why)


class ControllerEnd:
    """See controller.dispatch.stream.NodeStream."""

    def __init__(self, connection: Connection) -> None:
        self._it = connection

    async def identify(self) -> Peer | None:
        return self._it.peer

    async def read(self) -> pb.FromNode | None:
        data = await self._it.up.take()
        return None if data is None else pb.FromNode.FromString(data)

    async def write(self, message: pb.ToNode | bytes) -> None:
        """Raises BrokenPipeError when the node is gone."""
        it = self._it
        if not it.controller_open:
            raise BrokenPipeError(f"{it.node} is gone")
        data = message if isinstance(message, bytes) else message.SerializeToString()
        kind = data[0] >> 3 if data else 0
        it.down.send(data)
        if kind != _BEAT_DOWN:
            it.trace.add("hears", it.node, f"{_DOWN.get(kind)} {len(data)} B from {it.controller}#{it.number}")
            await asyncio.sleep(0)
        if it.down.unread >= WINDOW:
            await it.down.room()

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        raise Refused(f"{why.value}: {text[:200]}")

    def where(self) -> str:
        return f"{self._it.node}#{self._it.number}"


def _nothing() -> None:
    """The node's end hears of the end when it reads or writes."""
