"""The simulation's network: order, partitions, resets, death without a word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from agent.core.stream import ControllerStream, StreamBroken
from controller.certificates import Peer
from controller.dispatch.stream import NodeStream, Refusal
from protos import node_pb2 as pb
from sim.chance import Chance
from sim.loop import VirtualLoop
from sim.pipe import WINDOW
from sim.process import Process
from sim.trace import Trace
from sim.wire import KEEPALIVE_S, Wire

ADDRESS = "c1:7443"


class Net:
    """One controller c1 and one node n1. `heard`: (number of the heartbeat, when), `ends`: how and when its sessions ended."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop)
        self.wire = Wire(self.loop, Chance(1), self.trace)
        self.controller = Process(self.loop, "c1")
        self.agent = Process(self.loop, "n1")
        self.dial = self.wire.dial("n1", self.agent, lambda: Peer("n1", "node", "ab"))
        self.heard: list[tuple[int, float]] = []
        self.ends: list[tuple[str, float]] = []
        self.results: list[object] = []
        self.wire.listen(ADDRESS, "c1", self.controller, self.serve)

    async def serve(self, stream: NodeStream) -> None:
        """Answers every heartbeat; number 99 is the last one."""
        try:
            while (message := await stream.read()) is not None:
                number = message.heartbeat.sequence
                self.heard.append((number, self.loop.time()))
                await stream.write(beat_back(number).SerializeToString() if number % 2 else beat_back(number))
                if number == 99:
                    break
            self.ends.append(("returned", self.loop.time()))
        except asyncio.CancelledError:
            self.ends.append(("cancelled", self.loop.time()))
            raise

    def talk(self, what: Callable[[ControllerStream], Awaitable[object]], at: float = 0.0) -> None:
        """The agent opens a stream at that time and does `what`; what it returns or raises is a result."""

        async def main() -> None:
            try:
                async with self.dial(ADDRESS) as stream:
                    self.results.append(await what(stream))
            except StreamBroken as error:
                self.results.append(f"broken: {error}")

        self.loop.call_at(at, lambda: self.agent.spawn(main()))

    def at(self, when: float, what: Callable[..., object], *arguments: object) -> None:
        self.loop.call_at(when, what, *arguments)

    def run(self, until: float = 10.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(until))


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()
    yield net
    assert net.wire.connections("n1") == net.wire.connections("c1") == 0, "connections are left"
    net.loop.close()


def beat(number: int) -> pb.FromNode:
    return pb.FromNode(heartbeat=pb.Heartbeat(sequence=number))


def beat_back(number: int) -> pb.ToNode:
    return pb.ToNode(heartbeat=pb.Heartbeat(sequence=number))


async def say(stream: ControllerStream, *numbers: int) -> None:
    for number in numbers:
        await stream.write(beat(number))


async def answers(stream: ControllerStream, count: int) -> list[int]:
    return [message.heartbeat.sequence for _ in range(count) if (message := await stream.read()) is not None]


async def listen_on(stream: ControllerStream) -> list[int]:
    """Everything until the stream is closed."""
    return await answers(stream, 1000)


def test_messages_arrive_in_order_and_as_they_were_when_sent(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        message = beat(1)
        await stream.write(message)
        message.heartbeat.sequence = 1000
        await say(stream, *range(2, 30))
        return await answers(stream, 29)

    net.wire.slow("c1", 0.0, 1.0)
    net.talk(session)
    net.run(60)
    assert net.results == [[*range(1, 30)]]
    assert [number for number, _ in net.heard] == [*range(1, 30)]
    assert net.heard[0][1] < net.heard[-1][1]


def test_the_controller_closes(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await say(stream, 1, 99)
        heard = await listen_on(stream)
        with pytest.raises(StreamBroken, match="closed by the controller"):
            await say(stream, 5)
        return heard

    net.talk(session)
    net.run()
    assert net.results == [[1, 99]]
    assert [how for how, _ in net.ends] == ["returned"]


def test_the_node_leaves(net: Net) -> None:
    net.talk(lambda stream: say(stream, 1))
    net.run()
    assert net.results == [None]
    assert [how for how, _ in net.ends] == ["cancelled"]


def test_refused_the_node_hears_why(net: Net) -> None:
    async def serve(stream: NodeStream) -> None:
        peer = await stream.identify()
        assert peer is not None
        await stream.refuse(Refusal.NOT_ALLOWED, f"{peer.name} {peer.serial} {stream.where()}")

    net.wire.listen(ADDRESS, "c1", net.controller, serve)
    net.talk(listen_on)
    net.run()
    assert net.results == ["broken: not allowed: n1 ab n1#1"]


def test_an_unexpected_exception_ends_the_session_only(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    async def serve(_: NodeStream) -> None:
        raise ValueError("what")

    net.wire.listen(ADDRESS, "c1", net.controller, serve)
    net.talk(listen_on)
    with caplog.at_level(logging.ERROR):
        net.run()
    assert net.results == ["broken: unknown: ValueError: what"]
    assert net.controller.alive
    assert "a session failed" in caplog.text


def test_nobody_listens(net: Net) -> None:
    net.at(1, net.controller.kill)
    net.talk(listen_on, at=2)
    net.run()
    assert net.results == ["broken: cannot be reached (connection refused)"]


@pytest.mark.parametrize("way", [("n1", "c1"), ("c1", "n1"), ("*", "c1"), ("n1", "*"), ("*", "*")])
def test_dialling_over_a_cut_way_waits_and_gives_up(net: Net, way: tuple[str, str]) -> None:
    async def now(_: ControllerStream) -> float:
        return net.loop.time()

    net.wire.cut(*way)
    net.talk(now, at=1)
    net.at(3.5, net.wire.mend, *way)
    net.at(10, net.wire.cut, *way)
    net.talk(now, at=10)
    net.run(30)
    when, problem = net.results
    assert isinstance(when, float)
    assert 4 < when < 4.1, "the first try after the way was mended"
    assert problem == "broken: cannot be reached (no answer within 5 s)"


@pytest.mark.parametrize(("mended", "arrives"), [(2.9, (2.9, 4.2)), (20.0, (20.0, 40.0))])
def test_what_is_sent_over_a_cut_way_arrives_after_it(net: Net, mended: float, arrives: tuple[float, float]) -> None:
    async def session(stream: ControllerStream) -> object:
        await asyncio.sleep(1.5)
        await say(stream, 1, 2)
        heard = await answers(stream, 2)
        await say(stream, 99)
        return heard

    net.talk(session)
    net.at(1, net.wire.cut, "n1", "c1")
    net.at(mended, net.wire.mend, "n1", "c1")
    net.run(60)
    assert net.results == [[1, 2]]
    low, high = arrives
    assert all(low <= at <= high for _, at in net.heard)


def test_what_is_sent_after_mending_does_not_overtake_what_is_resent(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await asyncio.sleep(2 - net.loop.time())
        await say(stream, 1, 2)
        await asyncio.sleep(3 - net.loop.time())
        await say(stream, 3, 99)
        return await answers(stream, 4)

    net.talk(session)
    net.at(1, net.wire.cut, "n1", "c1")
    net.at(2.9, net.wire.mend, "n1", "c1")
    net.run()
    assert net.results == [[1, 2, 3, 99]]
    assert net.heard[0][1] > 3.2


def test_one_way_is_not_the_other(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await say(stream, 1)
        try:
            async with asyncio.timeout(5):
                return await answers(stream, 1)
        except TimeoutError:
            return "silence"

    net.at(0.5, net.wire.cut, "c1", "n1")
    net.at(6.5, net.wire.mend, "c1", "n1")
    net.talk(lambda stream: late(session, stream))
    net.run(30)
    assert [number for number, _ in net.heard] == [1]
    assert net.results == ["silence"]


async def late(session: Callable[[ControllerStream], Awaitable[object]], stream: ControllerStream) -> object:
    await asyncio.sleep(1)
    return await session(stream)


def test_the_controller_drops_who_does_not_answer_pings(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.wire.cut, "n1", "*")
    net.at(15, net.wire.mend, "n1", "*")
    net.at(20, net.wire.cut, "n1", "*")
    net.run(100)
    assert net.ends == [("cancelled", 20 + KEEPALIVE_S)]
    assert net.results == ["broken: cannot be reached (connection reset)"], "the reset gets through to the node"


def test_a_paused_node_is_dropped_and_notices_when_it_goes_on(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.agent.pause)
    net.at(90, net.agent.resume)
    net.run(80)
    assert net.ends == [("cancelled", 5 + KEEPALIVE_S)]
    assert net.results == []
    net.run(20)
    assert net.results == ["broken: cannot be reached (connection reset)"]


def test_a_paused_controller_answers_when_it_goes_on(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await asyncio.sleep(2)
        await say(stream, 1, 99)
        return await answers(stream, 2), net.loop.time()

    net.talk(session)
    net.at(1, net.controller.pause)
    net.at(8, net.controller.resume)
    net.run()
    ((heard, when),) = net.results  # type: ignore[misc]
    assert heard == [1, 99]  # type: ignore[has-type]
    assert 8 < when < 8.1  # type: ignore[has-type]


def test_a_killed_agent_is_noticed(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.agent.kill)
    net.run()
    ((how, when),) = net.ends
    assert how == "cancelled"
    assert 5 < when < 5.1
    assert net.results == []


def test_what_is_on_the_way_arrives_when_its_sender_is_killed(net: Net) -> None:
    async def session(stream: ControllerStream) -> None:
        await say(stream, 1)
        net.agent.kill()

    net.talk(session)
    net.run()
    assert [number for number, _ in net.heard] == [1]
    assert [how for how, _ in net.ends] == ["cancelled"]


def test_a_reset_loses_what_was_not_read(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await say(stream, 1, 2)
        await asyncio.sleep(5)
        return await answers(stream, 2)

    net.talk(session)
    net.at(2, net.wire.reset, "n1")
    net.run()
    assert [number for number, _ in net.heard] == [1, 2]
    assert net.results == ["broken: cannot be reached (connection reset)"]


def test_a_killed_controller_is_noticed(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.controller.kill)
    net.run()
    assert net.results == ["broken: cannot be reached (connection reset)"]
    assert net.ends == []


def test_a_vanished_node_is_silent(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.wire.vanish, "n1")
    net.at(5, net.agent.kill)
    net.run(20)
    assert net.ends == []
    net.run(20)
    assert net.ends == [("cancelled", 5 + KEEPALIVE_S)]


@pytest.mark.parametrize("place", ["n1", "c1"])
def test_writing_to_somebody_who_vanished_stops_when_the_window_is_full(net: Net, place: str) -> None:
    written: list[int] = []

    async def write(stream: ControllerStream | NodeStream) -> None:
        await asyncio.sleep(2)
        for number in range(2 * WINDOW):
            await (stream.write(beat(number)) if place == "c1" else stream.write(beat_back(number)))  # type: ignore[arg-type]
            written.append(number)

    async def wait(_: ControllerStream | NodeStream) -> None:
        await asyncio.sleep(1000)

    net.wire.listen(ADDRESS, "c1", net.controller, write if place == "n1" else wait)
    net.talk(write if place == "c1" else wait)
    net.at(1, net.wire.vanish, place)
    net.at(1, (net.agent if place == "n1" else net.controller).kill)
    net.run(5)
    assert len(written) == WINDOW - 1
    net.at(6, net.agent.kill)
    net.run(50)


def test_a_paused_controller_drops_nobody_before_it_goes_on(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.wire.cut, "n1", "c1")
    net.at(6, net.controller.pause)
    net.at(40, net.wire.mend, "n1", "c1")
    net.at(50, net.controller.resume)
    net.run(60)
    assert net.ends == []
    net.at(60, net.agent.kill)
    net.run(1)


def test_a_vanished_controller_is_silent_and_answers_nobody_until_it_is_back(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        try:
            async with asyncio.timeout(30):
                return await listen_on(stream)
        except TimeoutError:
            return "silence"

    net.talk(session)
    net.at(5, net.wire.vanish, "c1")
    net.at(5, net.controller.kill)
    net.talk(listen_on, at=6)
    net.run(50)
    assert net.results == ["broken: cannot be reached (no answer within 5 s)", "silence"]
    net.wire.listen(ADDRESS, "c1", Process(net.loop, "c1 again"), net.serve)
    net.talk(lambda stream: say(stream, 99), at=51)
    net.run(10)
    assert net.results[2:] == [None]
    assert [number for number, _ in net.heard] == [99]


def test_reset_breaks_both_ends(net: Net) -> None:
    net.talk(listen_on)
    net.at(5, net.wire.reset, "c1")
    net.run()
    assert net.results == ["broken: cannot be reached (connection reset)"]
    assert net.ends == [("cancelled", 5)]


def test_losses_stall(net: Net) -> None:
    async def session(stream: ControllerStream) -> object:
        await say(stream, *range(40))
        return await answers(stream, 40)

    net.wire.lossy("n1", 0.3)
    net.talk(session)
    net.run(300)
    assert net.results == [[*range(40)]]
    assert net.heard[-1][1] > 0.2
    net.wire.normal("n1")
    net.talk(session, at=301)
    net.run(10)
    assert net.heard[-1][1] < 301.1


def test_a_writer_waits_for_a_reader(net: Net) -> None:
    written: list[int] = []

    async def session(stream: ControllerStream) -> None:
        for number in range(2 * WINDOW):
            await stream.write(beat(number))
            written.append(number)

    async def serve(stream: NodeStream) -> None:
        await asyncio.sleep(5)
        while await stream.read() is not None:
            pass

    net.wire.listen(ADDRESS, "c1", net.controller, serve)
    net.talk(session)
    net.run(4)
    assert WINDOW - 1 <= len(written) < 2 * WINDOW
    net.run(4)
    assert len(written) == 2 * WINDOW
    assert net.results == [None]


def test_the_trace_tells_the_node_s_story() -> None:
    def story() -> list[str]:
        net = Net()
        net.talk(lambda stream: stream.write(pb.FromNode(hello=pb.Hello(node="n1"))))
        net.talk(lambda stream: say(stream, 1, 99), at=2)
        net.run()
        net.loop.close()
        return [line.split(" ", 1)[1] for line in net.trace.story("n1")] + [net.trace.sha256()]

    first = story()
    assert first[:2] == ["session n1 with c1#1", "says n1 hello 6 B to c1#1"]
    assert story() == first
