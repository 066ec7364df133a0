"""Who finds no leader waits at the controller it has reached, for the one to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from controller.certificates import Peer
from controller.clock import RealClock
from controller.dispatch import server
from controller.dispatch.server import Dispatch
from controller.dispatch.stream import Refusal
from controller.election import Reign
from controller.loops.picture import Picture
from model import codec
from model.documents import LeaderDoc, NodeDoc, key
from model.pki_names import ROLE_NODE
from model.store_port import Entry, Guard
from protos import node_pb2 as pb

LOST, NEXT, HERE = "10.0.0.1:7443", "10.0.0.2:7443", "10.0.0.3:7443"


class Stream:
    """A node that says Hello and listens."""

    def __init__(self, unreachable: str) -> None:
        self._said: list[pb.FromNode] = [pb.FromNode(hello=pb.Hello(node="n1", unreachable=unreachable))]
        self.heard: asyncio.Queue[pb.ToNode] = asyncio.Queue()

    async def identify(self) -> Peer:
        return Peer("n1", ROLE_NODE, "1")

    async def read(self) -> pb.FromNode | None:
        if not self._said:
            await asyncio.Event().wait()
        return self._said.pop()

    async def write(self, message: pb.ToNode | bytes) -> None:
        self.heard.put_nowait(pb.ToNode.FromString(message) if isinstance(message, bytes) else message)

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        raise ConnectionError(text)

    def where(self) -> str:
        return "a test"


class Standby:
    def __init__(self) -> None:
        self.changes: list[object] = []
        self.picture = Picture(self.changes.append)
        self.dispatch = Dispatch(self.picture, RealClock(), 1.0, self._node, lambda node: None, lambda events: None)
        self.dispatch.address = HERE
        self._revision = 0

    async def _node(self, name: str) -> NodeDoc:
        return NodeDoc(name, "id", "1")

    def leader(self, dispatch: str | None) -> None:
        self._revision += 1
        path = key("leader")
        value = codec.encode(LeaderDoc("c", self._revision, dispatch=dispatch)) if dispatch is not None else None
        self.picture.from_mirror(path, Entry(path, value, self._revision, self._revision) if value is not None else None)
        while self.changes:
            self.changes.pop()()  # type: ignore[operator]

    def reign(self) -> None:
        self.dispatch.open(Reign(Guard(key("leader"), 1), 1, "c", 1, 0, lambda: 0.0, good_until=1.0))


@pytest.fixture
def standby() -> Standby:
    found = Standby()
    found.leader(LOST)
    return found


@asynccontextmanager
async def session(standby: Standby, unreachable: str) -> AsyncIterator[Stream]:
    """Of a node, so far that all it can be told at once is told."""
    stream = Stream(unreachable)
    task = asyncio.ensure_future(standby.dispatch.session(stream))
    try:
        for _ in range(10):
            await asyncio.sleep(0)
        yield stream
    finally:
        task.cancel()
        await asyncio.wait([task])


async def heard(stream: Stream) -> pb.ToNode:
    async with asyncio.timeout(10):
        return await stream.heard.get()


async def test_it_is_welcome_as_soon_as_this_one_leads(standby: Standby) -> None:
    async with session(standby, LOST) as stream:
        assert stream.heard.empty(), "it has tried that leader in vain"
        standby.leader(None)
        await asyncio.sleep(0)
        assert stream.heard.empty()
        standby.reign()
        assert (await heard(stream)).WhichOneof("kind") == "welcome"


async def test_it_is_sent_on_as_soon_as_another_one_leads(standby: Standby) -> None:
    async with session(standby, LOST) as stream:
        standby.leader(NEXT)
        assert (await heard(stream)).redirect.dispatch == NEXT


@pytest.mark.parametrize("unreachable", ["", NEXT])
async def test_a_leader_it_has_not_tried_is_named_at_once(standby: Standby, unreachable: str) -> None:
    async with session(standby, unreachable) as stream:
        assert stream.heard.get_nowait().redirect.dispatch == LOST


async def test_nobody_waits_for_ever(standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LEADERLESS_S", 0.0)
    standby.leader(None)
    async with session(standby, "") as stream:
        assert (await heard(stream)).redirect.dispatch == ""
