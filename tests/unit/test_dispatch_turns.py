"""Heavy work of many sessions leaves room in every round of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from controller.certificates import Peer
from controller.clock import RealClock
from controller.dispatch.server import STATUSES_WAITING_MAX, Dispatch
from controller.dispatch.stream import Refusal
from controller.dispatch.turns import AT_ONCE, Turns
from controller.election import Reign
from controller.loops.picture import Picture
from model.documents import NodeDoc, key
from model.pki_names import ROLE_NODE
from model.store_port import Guard
from protos import node_pb2 as pb

NODES = 100


async def test_only_so_many_have_a_turn_in_one_round() -> None:
    turns, rounds, done, order = Turns(3), 0, [0], list[int]()

    async def work(number: int) -> None:
        async with turns:
            done[-1] += 1
            order.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(10)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rounds += 1
        done.append(0)
    assert max(done) == 3
    assert order == list(range(10))
    assert rounds < 20, "whoever waits is woken as soon as there is room"


async def test_who_gives_up_or_fails_leaves_the_turn_to_others() -> None:
    turns = Turns(1)

    async def fail() -> None:
        async with turns:
            raise ValueError

    first = asyncio.create_task(fail())
    given_up = asyncio.create_task(fail())
    await asyncio.sleep(0)
    given_up.cancel()
    assert [type(row) for row in await asyncio.gather(first, given_up, return_exceptions=True)] == [
        ValueError,
        asyncio.CancelledError,
    ]
    async with asyncio.timeout(5), turns:
        pass


class Stream:
    """A node that says what the test wants, and keeps what it hears."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._said: asyncio.Queue[pb.FromNode] = asyncio.Queue()
        self.heard: list[str | None] = []
        self.says(pb.FromNode(hello=pb.Hello(node=node)))

    def says(self, *messages: pb.FromNode) -> None:
        for message in messages:
            self._said.put_nowait(message)

    async def identify(self) -> Peer:
        return Peer(self._node, ROLE_NODE, "1")

    async def read(self) -> pb.FromNode | None:
        return await self._said.get()

    async def write(self, message: pb.ToNode | bytes) -> None:
        found = pb.ToNode.FromString(message) if isinstance(message, bytes) else message
        self.heard.append(found.WhichOneof("kind"))

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        raise ConnectionError(text)

    def where(self) -> str:
        return "a test"


async def rounds_until(probe: Callable[[], bool]) -> None:
    for _ in range(10 * NODES * STATUSES_WAITING_MAX):
        if probe():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


async def test_what_a_node_must_run_does_not_wait_behind_the_statuses_of_all_others() -> None:
    """Else thousands that say all they have at one moment are told nothing for as long, hear no heartbeat, and come again."""
    taken = 0

    def status_was_taken(events: object) -> None:
        nonlocal taken
        taken += 1

    async def document(node: str) -> NodeDoc:
        return NodeDoc(node, "id", "1")

    picture = Picture(asyncio.get_running_loop().call_soon)
    dispatch = Dispatch(picture, RealClock(), 1.0, document, lambda node: None, status_was_taken)
    dispatch.open(Reign(Guard(key("leader"), 1), 1, "c", 1, 0, lambda: 0.0, good_until=1.0))
    streams = [Stream(f"n{number}") for number in range(NODES)]
    late = Stream("late")
    tasks = [asyncio.create_task(dispatch.session(stream)) for stream in streams]
    try:
        await rounds_until(lambda: all("desired" in stream.heard for stream in streams))
        for stream in streams:
            status = pb.FromNode(status=pb.Status(events=[pb.NodeEvent(kind="test")]))
            stream.says(*[status] * STATUSES_WAITING_MAX)
        late.says(pb.FromNode(heartbeat=pb.Heartbeat(sequence=1)))
        await rounds_until(lambda: taken > 0)
        tasks.append(asyncio.create_task(dispatch.session(late)))
        await rounds_until(lambda: {"desired", "heartbeat"} <= set(late.heard))
        assert taken <= 10 * AT_ONCE, f"it waited for {taken} of {NODES * STATUSES_WAITING_MAX} statuses"
        await rounds_until(lambda: taken == NODES * STATUSES_WAITING_MAX)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
