"""The agent's session with the controller's leader: one stream, opened by the agent and kept open.

Rules: losing it changes nothing on the node. A new session sends its whole status first, then only what changed, coalesced. An
answer of a leader with an older epoch than one already seen is not believed. Every wait has an end: silence of three heartbeats
means the controller is dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core import wire
from agent.core.holding import Holdings
from agent.core.news import EndpointNews, Guard
from agent.core.report import Reporter
from agent.core.runner import Runner
from agent.core.sampling import Sampler
from agent.core.stream import ControllerStream, Dial, StreamBroken
from agent.plan.desired import DesiredMismatch, merge
from model import codec
from model.documents import Event, NodeInfo
from model.ports import Clock, Random
from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.core.peers import PeerBlobs

log = logging.getLogger(__name__)

COALESCE_S = 0.05
REDIRECTS_AT_ONCE = 1
"""So many are followed without a pause: two controllers that each believe the other leads must not be asked in a circle."""
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 3.0
WELCOME_S = 5.0
LATE_S = 0.001
"""So much earlier than asked for a timer may be."""
SECOND_LOOK_S = 0.1
"""Whoever was not let run for seconds finds what came meanwhile still unread: it takes that long to read it."""


class Removed(Exception):
    """The controller says that this node was removed from the cluster."""


class Closed(Exception):
    """The session is over; the message says why. Another one follows."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is, from DIR/node.json."""

    name: str
    id: str
    controllers: tuple[str, ...]


class SessionClient:
    """`await run()` keeps a session open until the node is removed (raises Removed) or the task is cancelled."""

    def __init__(
        self,
        identity: NodeIdentity,
        dial: Dial,
        runner: Runner,
        reporter: Reporter,
        info: Callable[[], NodeInfo],
        clock: Clock,
        random: Random,
        on_controllers: Callable[[Sequence[str]], None] = lambda _: None,
        sampler: Sampler | None = None,
        holdings: Holdings | None = None,
        peers: PeerBlobs | None = None,
    ) -> None:
        self._identity = identity
        self._dial = dial
        self._runner = runner
        self._reporter = reporter
        self._info = info
        self._clock = clock
        self._random = random
        self._on_controllers = on_controllers
        self._sampler = sampler
        self._holdings = holdings
        self._peers = peers
        self._controllers = list(identity.controllers)
        self._next: str = ""
        self._unreachable = ""
        """The controller that did not answer, since the last session."""
        self._epoch = 0
        self._opened = self._answered = False
        """Of the session under way: it has begun; there was an answer, be it that another one leads."""
        self._waits_since: float | None = None
        """Monotonic time since which the session under way waits for the next message; None: it is busy with one."""
        self._problem = ""
        self._guard = Guard(runner.ports.network, clock)

    async def run(self) -> None:
        failures, turn = 0, 0
        while True:
            address = self._next or self._controllers[turn % len(self._controllers)]
            turn += 0 if self._next else 1
            self._next, self._opened, self._answered = "", False, False
            try:
                await self._session(address)
            except (Closed, StreamBroken) as end:
                self._tell(address, str(end))
            except Removed:
                raise
            except Exception:
                log.exception("session with controller %s", address)
            if not (self._opened or self._answered):
                self._unreachable = address
            failures = 0 if self._opened else failures + 1
            if not self._next or failures > REDIRECTS_AT_ONCE:
                limit = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures, 6))
                await self._clock.sleep(self._random.uniform(BACKOFF_MIN_S, max(limit, 2 * BACKOFF_MIN_S)))

    def _tell(self, address: str, problem: str) -> None:
        """Log each problem once, not at every attempt."""
        if problem != self._problem:
            self._problem = problem
            log.warning("session with controller %s: %s", address, problem)

    async def _session(self, address: str) -> None:
        async with self._dial(address) as stream:
            await self._talk(stream, address)

    async def _talk(self, stream: ControllerStream, address: str) -> None:
        welcome = await self._begin(stream)
        log.info("session with controller %s, epoch %d", address, welcome.epoch)
        self._opened, self._unreachable, self._problem = True, "", ""
        lock = asyncio.Lock()
        news = EndpointNews(self._runner.ports)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._report(stream, lock))
                tasks.create_task(self._beat(stream, lock, welcome.heartbeat_s))
                tasks.create_task(self._acknowledge(stream, lock, news))
                tasks.create_task(self._guard.keep())
                tasks.create_task(self._wake(stream, lock))
                tasks.create_task(self._measure(stream, lock, welcome.sample_s))
                tasks.create_task(self._tell_images(stream, lock))
                tasks.create_task(self._tell_wants(stream, lock))
                tasks.create_task(self._read(stream, lock, news))
                tasks.create_task(self._listen(max(1.0, 3 * welcome.heartbeat_s)))
        except BaseExceptionGroup as group:  # not `except*`: up to Python 3.11.3 what it raises is wrapped again
            ends, others = group.split((Removed, Closed, StreamBroken))
            if ends is None or others is not None:
                raise
            raise _first(ends) from None

    async def _begin(self, stream: ControllerStream) -> pb.Welcome:
        info, known = codec.encode(self._info()), self._runner.prune_specs()
        try:
            async with asyncio.timeout(WELCOME_S):
                await stream.write(wire.hello(self._identity.name, self._identity.id, info, known, self._unreachable))
                return self._welcome(await stream.read())
        except TimeoutError:
            raise Closed("no answer") from None

    def _welcome(self, first: pb.ToNode | None) -> pb.Welcome:
        if first is None:
            raise Closed("closed without an answer")
        self._answered = True
        kind = first.WhichOneof("kind")
        if kind == "redirect":
            self._next = first.redirect.dispatch
            raise Closed(f"not the leader; the leader is {self._next or 'not known'}")
        if kind == "goodbye":
            self._farewell(first.goodbye)
        if kind != "welcome":
            raise Closed(f"began with {kind}")
        if first.welcome.epoch < self._epoch:
            raise Closed(f"its epoch {first.welcome.epoch} is older than {self._epoch}: a deposed leader")
        self._epoch = first.welcome.epoch
        if first.welcome.controllers:
            self._controllers = list(first.welcome.controllers)
            self._on_controllers(self._controllers)
        return first.welcome

    def _farewell(self, goodbye: pb.Goodbye) -> None:
        if goodbye.removed:
            raise Removed(goodbye.reason)
        raise Closed(f"goodbye: {goodbye.reason}")

    # reading

    async def _listen(self, silence_s: float) -> None:
        """One timer that looks now and then costs less than one for each message."""
        while True:
            since = self._waits_since
            waited_s = 0.0 if since is None else self._clock.monotonic() - since
            over = waited_s >= silence_s - LATE_S
            await self._clock.sleep(SECOND_LOOK_S if over else silence_s - waited_s)
            if over and self._waits_since == since:
                raise Closed(f"nothing heard for {silence_s:g} s")

    async def _read(self, stream: ControllerStream, lock: asyncio.Lock, news: EndpointNews) -> None:
        while True:
            self._waits_since = self._clock.monotonic()
            message = await stream.read()
            self._waits_since = None
            if message is None:
                raise Closed("the controller has closed the session")
            match message.WhichOneof("kind"):
                case "desired":
                    await self._take_desired(stream, lock, message.desired)
                case "endpoints":
                    news.take(wire.endpoints_message(message.endpoints))
                case "floor":
                    self._runner.ports.balance.floor(message.floor.number)
                case "blob_source":
                    if self._peers is not None:
                        self._peers.take(message.blob_source)
                case "guarded":
                    self._guard.take(message.guarded.whole, message.guarded.added, message.guarded.removed)
                case "redirect":
                    self._next = message.redirect.dispatch
                    raise Closed("no longer the leader")
                case "goodbye":
                    self._farewell(message.goodbye)

    async def _take_desired(self, stream: ControllerStream, lock: asyncio.Lock, message: pb.Desired) -> None:
        problem = ""
        try:
            desired = merge(self._runner.core.desired, wire.desired_message(message))
            self._runner.take_logins(message)
            self._runner.desire(desired)
        except DesiredMismatch as error:
            problem = str(error)
        async with lock:
            await stream.write(pb.FromNode(ack=pb.Ack(generation=message.generation, problem=problem)))
        if problem:
            await self._clock.sleep(COALESCE_S)  # a call that is given up takes along what has not left yet
            raise Closed(problem)

    # writing

    async def _beat(self, stream: ControllerStream, lock: asyncio.Lock, every_s: float) -> None:
        sequence = 0
        while True:
            await self._clock.sleep(max(0.05, every_s))
            sequence += 1
            async with lock:
                await stream.write(pb.FromNode(heartbeat=pb.Heartbeat(sequence=sequence)))

    async def _acknowledge(self, stream: ControllerStream, lock: asyncio.Lock, news: EndpointNews) -> None:
        while True:
            number = await news.followed()
            async with lock:
                await stream.write(pb.FromNode(endpoints_ack=pb.EndpointsAck(number=number)))

    async def _wake(self, stream: ControllerStream, lock: asyncio.Lock) -> None:
        """Says who is held; a new session has heard of nobody."""
        told: Mapping[str, int] = {}
        while True:
            held = await self._runner.ports.balance.held(told)
            for service_id in sorted({**told, **held}):
                if told.get(service_id, 0) != held.get(service_id, 0):
                    async with lock:
                        await stream.write(pb.FromNode(wake=pb.Wake(service_id=service_id, waiting=held.get(service_id, 0))))
            told = held
            await self._clock.sleep(COALESCE_S)

    async def _measure(self, stream: ControllerStream, lock: asyncio.Lock, every_s: float) -> None:
        """What cannot be sent at once is dropped: nothing else waits behind measurements."""
        if self._sampler is None or every_s <= 0:
            return
        async with aclosing(self._sampler.every(every_s)) as found:
            async for samples in found:
                if not lock.locked():
                    async with lock:
                        await stream.write(pb.FromNode(samples=samples))

    async def _tell_images(self, stream: ControllerStream, lock: asyncio.Lock) -> None:
        if self._holdings is None:
            return
        async with aclosing(self._holdings.news()) as found:
            async for news in found:
                async with lock:
                    await stream.write(pb.FromNode(images_held=news))

    async def _tell_wants(self, stream: ControllerStream, lock: asyncio.Lock) -> None:
        if self._peers is None:
            return
        async with aclosing(self._peers.news()) as found:
            async for news in found:
                async with lock:
                    await stream.write(pb.FromNode(blob_wanted=news))

    async def _report(self, stream: ControllerStream, lock: asyncio.Lock) -> None:
        events = self._reporter.restart()
        try:
            async with lock:
                await stream.write(pb.FromNode(status=self._whole(events)))
            events = []
            while True:
                await self._reporter.news.wait()
                await self._clock.sleep(COALESCE_S)
                batch = self._reporter.take()
                events = batch.events
                status = pb.Status(
                    replicas=[wire.replica(item) for item in batch.changed.values()],
                    gone=[wire.replica_key(key) for key in batch.gone],
                    events=[wire.event(item) for item in batch.events],
                    volumes=batch.volumes or (),
                    volumes_changed=batch.volumes is not None,
                )
                async with lock:
                    await stream.write(pb.FromNode(status=status))
                events = []
        finally:
            for event in events:
                self._reporter.event(event)

    def _whole(self, events: Sequence[Event]) -> pb.Status:
        return pb.Status(
            whole=True,
            replicas=[wire.replica(status) for status in self._runner.core.statuses()],
            volumes=self._reporter.known_volumes(),
            volumes_changed=True,
            events=[wire.event(item) for item in events],
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The most telling error of a session's tasks: a removal before all others."""
    found = list(_leaves(group))
    return next((error for error in found if isinstance(error, Removed)), found[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
