"""One agent's session: what it knows, what it was sent, what it has to be told.

Rules: nothing is queued. Others only raise flags; the session's own writer looks at the newest facts when the wire is free, so
a slow node costs one message, however much changed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.decide.types import Session
from controller.dispatch.desired import SpecKey, Wanted
from controller.dispatch.status import NodeStatus
from protos import node_pb2 as pb


@dataclass(eq=False, slots=True)
class NodeSession:
    """`heard_s`, `since_s`: when it last said something, and when it began, monotonic seconds. `beat`: the number of the newest
    heartbeat that waits for its answer (0: none)."""

    node: str
    serial: str
    status: NodeStatus
    known: frozenset[SpecKey]
    """Specs that need not be sent: the node had them at first, or was sent them since. One object for all who know the same."""
    heard_s: float
    held: frozenset[SpecKey] = frozenset()
    """Specs the node said it had when the session began."""
    since_s: float = 0.0
    waits: int = 0
    """Statuses of it that were read and wait for their turn: meanwhile it is not silent."""
    sent: Wanted | None = None
    sent_whole: bool = False
    endpoints: dict[str, int] = field(default_factory=dict)
    """Network -> number of the newest endpoints it was told."""
    told: int = 0
    """The highest number its endpoints carried."""
    acked: int = 0
    """The highest one up to which it follows everything it was told."""
    open_numbers: list[int] = field(default_factory=list)
    """Those that end what was said at once and are not acknowledged yet: until its end nothing of it counts."""
    lost: int = 0
    """The number at which it lost endpoints; it has to hear of the floor when it was told (0: none)."""
    floor: int = 0
    """To be told (0: nothing)."""
    guarded: int = 0
    """Number of the newest guarded addresses it was told."""
    unguarded: bool = True
    """There may be newer ones."""
    stale: bool = True
    """What it must run may differ from what it was sent."""
    news: bool = True
    """Endpoints may differ from what it was told."""
    sources: dict[str, pb.BlobSource] = field(default_factory=dict)
    """Where to fetch blobs, by digest, that it has to be told."""
    beat: int = 0
    farewell: pb.ToNode | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self) -> None:
        """What the node must run may have changed."""
        self.stale = self.news = True
        self.wake.set()

    def tell(self) -> None:
        """Who can be reached has changed on one of its networks."""
        self.news = True
        self.wake.set()

    def current(self) -> bool:
        """Whether the node follows all endpoints there are for it."""
        return not self.news and not self.open_numbers

    def said(self, number: int) -> None:
        """It is being told everything there is for it; the last message carries `number`."""
        self.news = False
        if number > self.told:
            self.told = number
            self.open_numbers.append(number)

    def take_ack(self, number: int) -> None:
        while self.open_numbers and self.open_numbers[0] <= number:
            self.acked = self.open_numbers.pop(0)

    def start_over(self) -> None:
        """The node could not take a difference: everything again, specs too."""
        self.sent = None
        self.endpoints.clear()
        self.known = frozenset()
        self.mark()

    def tell_source(self, source: pb.BlobSource) -> None:
        self.sources[source.digest] = source
        self.wake.set()

    def answer(self, sequence: int) -> None:
        self.beat = sequence
        self.wake.set()

    def end(self, farewell: pb.ToNode) -> None:
        """Says `farewell` and closes."""
        self.farewell = self.farewell or farewell
        self.wake.set()

    def facts(self, zero: float, now_s: float) -> Session:
        """`zero`: the Unix ms at which monotonic time was 0."""
        heard_s = now_s if self.waits else self.heard_s
        heard_ms, since_ms = int(zero + heard_s * 1000), int(zero + self.since_s * 1000)
        return Session(self.farewell is None, heard_ms, self.status.whole, self.status.generation, since_ms)


class SessionFacts(Mapping[str, Session]):
    """By node, of those with a session and of `ended` ones (when they were last heard). Each is made when it is asked for, and
    then stays as it is: most decisions ask for none. `zero`, `now_s`: as those of `NodeSession.facts`."""

    def __init__(self, sessions: Mapping[str, NodeSession], ended: Mapping[str, float], zero: float, now_s: float) -> None:
        self._sessions = dict(sessions)
        self._ended = dict(ended)
        self._zero, self._now_s = zero, now_s
        self._made: dict[str, Session] = {}

    def __getitem__(self, node: str) -> Session:
        made = self._made.get(node)
        if made is None:
            session = self._sessions.get(node)
            if session is None:
                facts = Session(False, int(self._zero + self._ended[node] * 1000))
            else:
                facts = session.facts(self._zero, self._now_s)
            made = self._made[node] = facts
        return made

    def get(self, node: str, default: Any = None) -> Any:
        """As that of Mapping, for which an unknown name is an exception."""
        made = self._made.get(node)
        if made is not None:
            return made
        return self[node] if node in self._sessions or node in self._ended else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._ended | self._sessions)

    def __len__(self) -> int:
        return len(self._ended.keys() | self._sessions.keys())


def goodbye(reason: str, *, removed: bool = False) -> pb.ToNode:
    return pb.ToNode(goodbye=pb.Goodbye(reason=reason, removed=removed))


def redirect(dispatch: str) -> pb.ToNode:
    return pb.ToNode(redirect=pb.Redirect(dispatch=dispatch))
