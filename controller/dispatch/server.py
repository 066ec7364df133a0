"""The sessions of the agents with this controller, for as long as it leads.

Rules:
- Identity is the certificate: OU `node`, CN the node's name, serial that of its node document. What Hello says of names is
  compared, never believed.
- Only the leader keeps sessions. Everybody else says where the leader is. When the reign ends every session is redirected.
- Who finds no leader waits here for a while: thousands that dial again and again would cost the next one its first seconds.
- One session a node: the newer wins, the older is told goodbye. Heartbeats stay in memory.
- Endpoints are acknowledged; how far everybody follows is told to the nodes that wait for it (followers.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from controller.certificates import Peer
from controller.decide.types import Session
from controller.dispatch.admission import identify, not_admitted, read_hello, refuse
from controller.dispatch.books import Books, News
from controller.dispatch.floor import LATE_S
from controller.dispatch.followers import Followers
from controller.dispatch.outgoing import write_session
from controller.dispatch.session import NodeSession, SessionFacts, goodbye, redirect
from controller.dispatch.sources import BlobSources
from controller.dispatch.status import NodeStatus
from controller.dispatch.status_writer import StatusWriter
from controller.dispatch.stream import NodeStream, Refusal
from controller.dispatch.turns import Turns
from controller.election import Reign
from controller.images_held import HeldImages
from controller.loops.picture import Change, Picture
from controller.samples.pace import sample_s
from controller.samples.port import Samples
from controller.sealing import Seals
from controller.steady import zero_ms
from model.documents import Event, NodeDoc, StatusDoc
from model.errors import ShoalError
from model.ports import Clock
from protos import node_pb2 as pb

log = logging.getLogger(__name__)

EVENTS_MAX: Final = 100
LEADERLESS_S: Final = 4.0
"""So long an agent waits for a leader here; less than it waits for an answer."""
STATUSES_WAITING_MAX: Final = 4
"""Of one session."""
TOLD_S: Final = 10.0
"""What nodes have is told within this time of a reign's beginning."""
GUARDED_S: Final = 0.5
"""Guarded addresses that change are told so much later: where a thousand nodes come, each has to hear of each."""


class Dispatch:
    """`open(reign)` and `shut()` when the lead comes and goes; `session(stream)` for every agent that dials."""

    def __init__(
        self,
        picture: Picture,
        clock: Clock,
        heartbeat_s: float,
        read_node: Callable[[str], Awaitable[NodeDoc | None]],
        on_facts: Callable[[str], None],
        on_events: Callable[[Sequence[Event]], None],
        guarded: Iterable[str] = (),
        late_s: float = LATE_S,
        samples: Samples | None = None,
    ) -> None:
        self._picture = picture
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self.address = ""
        """What agents are told to dial; set once the port is known."""
        self.read_until: Callable[[], float] | None = None
        """Monotonic seconds up to which whatever carries the sessions has read what came; set by it where it may be late."""
        self._read_node = read_node
        self._on_facts = on_facts
        self._on_events = on_events
        self._sessions: dict[str, NodeSession] = {}
        self._ended: dict[str, float] = {}
        """When those without a session were last heard, monotonic seconds."""
        """The last facts of nodes whose session broke: their silence counts from the last word, not from the break."""
        self._reign: Reign | None = None
        self._led = asyncio.Event()
        """Replaced each time the lead may have changed."""
        self._books = Books(picture, guarded)
        self._samples = samples
        self.images = HeldImages(clock)
        self._sources = BlobSources(clock, self.images, self._tell_source)
        self._reading, self._writing = Turns(), Turns()
        """Who is told what it must run does not wait behind all that others say: its heartbeats are answered only then."""
        self._guarding: asyncio.TimerHandle | None = None
        self._followers = Followers(clock, lambda: self._books.number, late_s)
        self.writer = StatusWriter(picture, clock, self._status_of)
        picture.subscribe(self._on_changes)

    def open_seals_with(self, seals: Seals) -> None:
        """Nodes are told the credentials of the services they run."""
        self._books.seals = seals

    # ---- the reign

    def open(self, reign: Reign) -> None:
        self._books.reload(reign.epoch)
        self._followers.open()
        self._ended.clear()
        self._reign = reign
        self._wake_leaderless()

    def shut(self) -> None:
        self._reign = None
        self._wake_leaderless()
        for session in self._sessions.values():
            session.end(redirect(self._leader_address()))
        self._followers.shut()
        if self._guarding is not None:
            self._guarding.cancel()
            self._guarding = None
        if self._samples is not None:
            self._samples.clear()
        self._sources.clear()
        self.images.clear()

    def sessions(self) -> Mapping[str, Session]:
        """What the nodes' decision needs to know. Reckoned back from now: a clock that was set has made nobody silent."""
        return SessionFacts(self._sessions, self._ended, zero_ms(self._clock), self._clock.monotonic())

    def listened_ms(self) -> int | None:
        """Unix ms: what nodes had said by then was heard. A leader that is late in reading must take nobody for silent. None:
        they are heard at once."""
        return int(zero_ms(self._clock) + self.read_until() * 1000) if self.read_until is not None else None

    def _status_of(self, node: str) -> NodeStatus | None:
        session = self._sessions.get(node)
        return session.status if session else None

    def leads(self) -> bool:
        """Not when it has stood still and another may lead by now: what it would tell a node is old."""
        return self._reign is not None and self._reign.valid()

    def knows_images(self) -> bool:
        """Whether it has led for so long that every node it can reach has told what it has."""
        reign = self._reign
        return self.leads() and reign is not None and self._clock.monotonic() - reign.started_s >= TOLD_S

    def _leader_address(self) -> str:
        """Of the other controller that leads; empty when there is none: one that has led may still stand in the document."""
        leader = self._picture.snapshot().one("leader")
        return leader.dispatch if leader is not None and self._reign is None and leader.dispatch != self.address else ""

    def _controllers(self) -> list[str]:
        """Where agents may try: here first, then every controller that ever registered."""
        known = self._picture.snapshot().of("controllers")
        return list(dict.fromkeys([self.address, *(known[name].dispatch for name in sorted(known))]))

    def _welcome(self) -> pb.Welcome:
        epoch = self._reign.epoch if self._reign else 0
        pace_s = sample_s(len(self._picture.snapshot().of("nodes"))) if self._samples is not None else 0
        return pb.Welcome(epoch=epoch, heartbeat_s=self._heartbeat_s, controllers=self._controllers(), sample_s=pace_s)

    # ---- changes in the store

    def _on_changes(self, changes: list[Change]) -> None:
        news = self._books.take(changes)
        for session in self._sessions_of(news.nodes):
            session.mark()
        self._tell(news)
        self._services_changed({change.old.id for change in changes if change.kind == "services" and change.old is not None})
        for change in changes:
            if change.kind == "nodes":
                self._node_changed(change)
            elif change.kind == "health":
                self._health_changed(change)
            elif change.kind == "leader":
                self._wake_leaderless()
        self._followers.settle()

    def _tell(self, news: News) -> None:
        for session in [*self._sessions.values()] if news.everybody else self._sessions_of(news.told):
            session.tell()
            self._followers.fell_behind(session, news.before)
        for node, number in news.lost.items():
            for session in self._sessions_of((node,)):
                session.lost = number
                session.tell()
        if news.guarded and self._guarding is None:
            self._guarding = asyncio.get_running_loop().call_later(GUARDED_S, self._tell_guarded)

    def _tell_guarded(self) -> None:
        self._guarding = None
        for session in self._sessions.values():
            session.unguarded = True
            session.wake.set()

    def _tell_source(self, node: str, source: pb.BlobSource) -> None:
        for session in self._sessions_of((node,)):
            session.tell_source(source)

    def _sessions_of(self, nodes: Iterable[str]) -> list[NodeSession]:
        return [session for node in nodes if (session := self._sessions.get(node)) is not None]

    def _health_changed(self, change: Change) -> None:
        for session in self._sessions_of((change.name,)):
            self._followers.ready(session, change.new is not None and change.new.state == "ready")

    def _node_changed(self, change: Change) -> None:
        if change.new is None:
            self._ended.pop(change.name, None)
        session = self._sessions.get(change.name)
        if session is None or (change.new is not None and change.new.serial == session.serial):
            return
        reason = "the node was removed from the cluster" if change.new is None else "the node has joined again elsewhere"
        session.end(goodbye(reason, removed=True))

    def _services_changed(self, ids: set[str]) -> None:
        for session in self._sessions.values() if ids else ():
            if session.sent is not None and any(row.service_id in ids for row in session.sent.services):
                session.mark()

    # ---- one session

    async def session(self, stream: NodeStream) -> None:
        """From Hello to the end, whoever ends it."""
        hello = await read_hello(stream)
        peer = await identify(stream)
        if not self.leads():
            await self._leader_to_come(hello.unreachable)
        if not self.leads():
            await stream.write(redirect(self._leader_address()))
            return
        await self._admit(peer, stream)
        session = await self._begin(peer, hello, stream)
        del peer, hello
        if not self.leads():  # it ended meanwhile: `shut` has not seen this session
            await stream.write(redirect(self._leader_address()))
            return
        older = self._sessions.get(session.node)
        if older is not None:
            older.end(goodbye("another session of this node took over"))
            self._followers.gone(older)
            self._sources.left(session.node)
        self._sessions[session.node] = session
        self._followers.came(session)
        self._ended.pop(session.node, None)
        self._sources.came(session.node, session.status.address)
        self._on_facts(session.node)
        reading = asyncio.ensure_future(self._read(session, stream))
        try:
            await write_session(session, stream, self._welcome(), self._books, self._followers, self._writing, self.leads)
        finally:
            reading.cancel()
            self._followers.gone(session)
            if self._sessions.get(session.node) is session:
                del self._sessions[session.node]
                self.images.left(session.node)
                self._sources.left(session.node)
                if self._samples is not None:
                    self._samples.forget_node(session.node)
                if session.node in self._picture.snapshot().of("nodes"):
                    self._ended[session.node] = session.heard_s
                self._on_facts(session.node)
            self._followers.settle()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading

    async def _leader_to_come(self, unreachable: str) -> None:
        """Returns when this controller leads, when another one does that the node has not tried in vain, or after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEADERLESS_S):
                while not self.leads() and self._leader_address() in ("", unreachable):
                    await self._led.wait()

    def _wake_leaderless(self) -> None:
        self._led.set()
        self._led = asyncio.Event()

    async def _admit(self, peer: Peer, stream: NodeStream) -> None:
        """The picture may be a moment behind a join at another controller: before a refusal the store itself is asked."""
        document: NodeDoc | None = self._picture.snapshot().of("nodes").get(peer.name)
        if document is not None and document.serial == peer.serial:
            return
        try:
            document = await self._read_node(peer.name)
        except ShoalError as error:
            await refuse(stream, Refusal.UNAVAILABLE, str(error))
        if document is None or document.serial != peer.serial:
            await refuse(stream, Refusal.NOT_ALLOWED, not_admitted(peer.name, document))

    async def _begin(self, peer: Peer, hello: pb.Hello, stream: NodeStream) -> NodeSession:
        if hello.node and hello.node != peer.name:
            text = f"the certificate is that of node {peer.name}, Hello says {hello.node[:80]!r}"
            await refuse(stream, Refusal.NOT_ALLOWED, text)
        before = self._picture.snapshot().of("status").get(peer.name) or StatusDoc(peer.name)
        status = NodeStatus(before)
        try:
            if hello.info:
                status.take_info(hello.info)
        except ValueError as error:
            await refuse(stream, Refusal.BAD_MESSAGE, f"Hello.info: {error}")
        status.take_generation(hello.generation)
        held = frozenset((row.service_id, row.version) for row in hello.known_specs)
        now_s = self._clock.monotonic()
        return NodeSession(peer.name, peer.serial, status, held, now_s, held, now_s)

    async def _read(self, session: NodeSession, stream: NodeStream) -> None:
        """Statuses wait for their turn, of thousands at one moment for many seconds; meanwhile heartbeats are answered."""
        waiting: list[asyncio.Task[None]] = []
        try:
            while (message := await stream.read()) is not None:
                if self._sessions.get(session.node) is not session:
                    return
                if message.WhichOneof("kind") == "status":
                    session.heard_s = self._clock.monotonic()
                    if len(waiting) >= STATUSES_WAITING_MAX:
                        await waiting.pop(0)
                    session.waits += 1
                    waiting.append(asyncio.ensure_future(self._take_in_turn(session, message)))
                else:
                    self._take(session, message)
                del message  # a thousand whole statuses must not be held until the next word
            while waiting:
                await waiting.pop(0)
            session.end(goodbye("the node has closed its side"))
        except Exception as error:  # whatever it is, a session that is no longer read must not stay open
            self._not_taken(session, error)
        finally:
            for task in waiting:
                task.cancel()

    async def _take_in_turn(self, session: NodeSession, message: pb.FromNode) -> None:
        try:
            async with self._reading:
                self._take(session, message)
        except Exception as error:
            self._not_taken(session, error)
        finally:
            session.waits -= 1

    def _not_taken(self, session: NodeSession, error: Exception) -> None:
        log.warning("node %s: %s: %s", session.node, type(error).__name__, error)
        session.end(goodbye(f"message refused: {error}"))

    def _take(self, session: NodeSession, message: pb.FromNode) -> None:
        if self._sessions.get(session.node) is not session:
            return
        session.heard_s = self._clock.monotonic()
        kind = message.WhichOneof("kind")
        if kind == "heartbeat":
            session.answer(message.heartbeat.sequence)
            health = self._picture.snapshot().of("health").get(session.node)
            if health is None or health.state != "ready":
                self._on_facts(session.node)
        elif kind == "ack":
            self._take_ack(session, message.ack)
        elif kind == "endpoints_ack":
            self._followers.acknowledged(session, message.endpoints_ack.number)
        elif kind == "samples" and self._samples is not None:
            self._samples.take(session.node, message.samples)
        elif kind == "wake" and self._samples is not None:
            self._samples.wake(session.node, message.wake.service_id, message.wake.waiting)
        elif kind == "images_held":
            self.images.take(session.node, message.images_held)
        elif kind == "blob_wanted":
            self._sources.take(session.node, message.blob_wanted)
        elif kind == "status":
            first = not session.status.whole
            session.status.merge(message.status)
            self.writer.mark(session.node)
            if first and session.status.whole:
                self._on_facts(session.node)
            if message.status.events:
                self._on_events([_event(session.node, row) for row in message.status.events[:EVENTS_MAX]])

    def _take_ack(self, session: NodeSession, ack: pb.Ack) -> None:
        if ack.problem:
            log.warning("node %s did not take generation %d: %s", session.node, ack.generation, ack.problem[:500])
            if not session.sent_whole:
                session.start_over()
            return
        session.status.take_generation(ack.generation)  # stored with what the node says next: nothing is decided by it


def _event(node: str, row: pb.NodeEvent) -> Event:
    return Event(row.at_ms, row.kind[:64], row.about[:256] or f"node/{node}", row.sentence[:1000].split("\n")[0], node)
