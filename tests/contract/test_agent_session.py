"""The agent's session with a controller, over real mutual TLS and gRPC; containers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.core.session import Removed, SessionClient
from agent.network.balance_port import NoBalancer, Place
from agent.network.memory import MemoryNetwork
from agent.plan.names import EndpointsMessage
from model.errors import RuntimeFailed
from model.spec import Port, RestartPolicy
from protos import node_pb2 as pb
from tests.contract.agent_support import WAIT_S, Agent, Dispatcher, Keys, desired, web

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@asynccontextmanager
async def running(client: SessionClient) -> AsyncIterator[asyncio.Future[None]]:
    task = asyncio.ensure_future(client.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_desired_is_taken_acknowledged_run_and_reported(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        assert (session.hello.node, session.hello.node_id, session.hello.generation) == ("n1", "id1", 0)
        assert (await session.next("status")).whole
        await session.send(desired(1, 3, web()))
        assert await session.next("ack") == pb.Ack(generation=1)
        await session.until_states({1: "running", 2: "running", 3: "running"})
        assert agent.images.pulls == ["web:1"]
        await session.send(desired(2, 1, base=1))
        await session.until_states({1: "running"})
        assert agent.runtime.running() == len(agent.network.attached) == 1


async def test_it_tells_which_images_it_has_and_what_became_of_them(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        first = await session.next("images_held")
        assert (first.whole, [image.id for image in first.images]) == (True, ["sha256:1"])
        assert [(name.name, name.digest) for name in first.images[0].names] == [("docker.io/library/web:1", "sha256:2")]
        agent.images.id = "sha256:9"
        agent.images.moved.set()
        then = await session.next("images_held")
        assert (then.whole, [image.id for image in then.images], list(then.gone)) == (False, ["sha256:9"], ["sha256:1"])


async def test_a_new_session_says_what_it_knows_and_restarts_nothing(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on():
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            await session.send(desired(1, 2, web()))
            await session.until_states({1: "running", 2: "running"})
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            assert session.hello.generation == 1
            assert [(spec.service_id, spec.version) for spec in session.hello.known_specs] == [("s1", 1)]
            whole = await session.next("status")
            assert (whole.whole, len(whole.replicas)) == (True, 2)
            await session.send(desired(1, 2))
            await session.next("ack")
    assert agent.runtime.starts == 2


async def test_a_difference_that_does_not_fit_asks_for_the_whole(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(9, 1, web(), base=8))
        ack = await session.next("ack")
        assert "builds on 8" in ack.problem
        assert (await dispatcher.session()).hello.generation == 0


async def test_it_follows_a_redirect_to_the_leader(tmp_path: Path, keys: Keys) -> None:
    agent, leader = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), leader.on():
        standby = Dispatcher(keys, redirect=leader.address)
        async with standby.on(), running(agent.client(keys, standby.address)):
            assert (await leader.session()).hello.node == "n1"


async def test_it_tells_a_standby_whom_it_has_tried_in_vain(tmp_path: Path, keys: Keys) -> None:
    agent, lost, standby = Agent(tmp_path), Dispatcher(keys), Dispatcher(keys)
    async with agent.on(), standby.on():
        async with lost.on():
            pass
        async with running(agent.client(keys, lost.address, standby.address)):
            assert (await standby.session()).hello.unreachable == lost.address


async def test_a_leader_of_an_older_epoch_is_not_believed(tmp_path: Path, keys: Keys) -> None:
    agent, new, old = Agent(tmp_path), Dispatcher(keys, epoch=5), Dispatcher(keys, epoch=4)
    async with agent.on(), old.on():
        async with new.on(), running(agent.client(keys, new.address, old.address)) as task:
            session = await new.session()
            await session.send(pb.ToNode(redirect=pb.Redirect(dispatch=old.address)))
            await new.session()
            assert old.visits >= 1
            assert not task.done()
        assert agent.core.desired.generation == 0


async def test_a_silent_controller_is_left(tmp_path: Path, keys: Keys) -> None:
    agent, silent, other = Agent(tmp_path), Dispatcher(keys, heartbeat_s=0.1), Dispatcher(keys)
    async with agent.on(), silent.on(), other.on(), running(agent.client(keys, silent.address, other.address)):
        await silent.session()
        silent.mute = True
        assert (await other.session()).hello.node == "n1"


async def test_a_removed_node_is_told_so(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)) as task:
        session = await dispatcher.session()
        await session.send(pb.ToNode(goodbye=pb.Goodbye(reason="drained", removed=True)))
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(Removed, match="drained"):
                await task


async def test_the_agent_believes_only_its_own_cluster(tmp_path: Path, keys: Keys) -> None:
    agent, stranger = Agent(tmp_path), Dispatcher(Keys.make())
    async with agent.on(), stranger.on(), running(agent.client(keys, stranger.address)) as task:
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        assert stranger.sessions.empty()


async def test_without_a_controller_a_restarted_agent_keeps_and_restarts(tmp_path: Path, keys: Keys) -> None:
    """SIGKILL of the agent: containers go on; one that ended meanwhile keeps its code and is started again."""
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 3, web()))
        await session.until_states({1: "running", 2: "running", 3: "running"})
    first, second, third = agent.runtime.containers
    agent.runtime.end(first, 9)
    again = Agent(tmp_path, agent.runtime, agent.network)
    async with again.on():
        await again.reached(lambda: again.runtime.starts == 4)
        assert {second, third} < set(again.runtime.containers)
        assert first not in again.runtime.containers
        sentences = [event.sentence for event in again.reporter.take().events]
        assert sentences == ["shop_web.1: exited with code 9; started again at once"]


async def test_exit_code_and_reason_are_reported(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 1, web(RestartPolicy("none"))))
        await session.until_states({1: "running"})
        agent.runtime.end(next(iter(agent.runtime.containers)), 3)
        await session.until_states({1: "failed"})
        (status,) = agent.core.statuses()
        assert (status.exit_code, status.message) == (3, "exited with code 3")


@pytest.mark.parametrize(("image", "broken", "words", "code"), [
    ("missing:1", "", "image missing:1 is in no registry", None),
    ("web:1", "serve: not found in the image", "serve: not found in the image", 127),
])  # fmt: skip
async def test_what_can_never_start_is_rejected_with_its_reason(
    tmp_path: Path, keys: Keys, image: str, broken: str, words: str, code: int | None
) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    agent.runtime.broken = broken
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 1, web(image=image)))
        await session.until_states({1: "rejected"})
        (status,) = agent.core.statuses()
        assert (status.message, status.exit_code) == (words, code)
        await agent.reached(lambda: not agent.network.attached)
        assert not agent.runtime.containers


class Callers(NoBalancer):
    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, int] = {}
        self.news = asyncio.Event()

    def are(self, now: dict[str, int]) -> None:
        self.now = now
        self.news.set()

    async def held(self, beyond: Mapping[str, int]) -> Mapping[str, int]:
        while self.now == beyond:
            self.news.clear()
            await self.news.wait()
        return self.now


async def test_who_is_held_is_told_and_told_again_to_the_next_controller(tmp_path: Path, keys: Keys) -> None:
    callers = Callers()
    agent, dispatcher = Agent(tmp_path, balance=callers), Dispatcher(keys)
    async with agent.on(), dispatcher.on():
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            callers.are({"s1": 2})
            assert await session.next("wake") == pb.Wake(service_id="s1", waiting=2)
            callers.are({"s2": 1})
            assert await session.next("wake") == pb.Wake(service_id="s1")
            assert await session.next("wake") == pb.Wake(service_id="s2", waiting=1)
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            assert await session.next("wake") == pb.Wake(service_id="s2", waiting=1)


class HeldBalancer(NoBalancer):
    """Applies nothing before the test says so; keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[EndpointsMessage] = []
        self.floors: list[int] = []
        self.drains: list[tuple[Place, ...]] = []
        self.draining = asyncio.Event()
        self.drained_now = asyncio.Event()

    def take(self, message: EndpointsMessage) -> None:
        self.taken.append(message)

    def apply(self) -> None:
        super().take(self.taken[-1])

    def floor(self, number: int) -> None:
        self.floors.append(number)

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        self.drains.append(tuple(places))
        self.draining.set()
        await self.drained_now.wait()


def endpoints(number: int) -> pb.ToNode:
    message = pb.Endpoints(network="ingress", whole=True, number=number, prefix6="fd00::/96")
    service = message.services.add(service_id="s1", name="shop_web", names=["web"], vip="10.0.192.1")
    service.endpoints.add(replica="shop_web.1", address="10.0.1.2", ready=True, network="shop_default", underlay="192.0.2.1")
    service.ports.add(published=8080, target=80, protocol="udp", host_ip="127.0.0.1", local=True)
    return pb.ToNode(endpoints=message)


async def test_endpoints_are_acknowledged_when_the_node_follows_them(tmp_path: Path, keys: Keys) -> None:
    balance = HeldBalancer()
    agent, dispatcher = Agent(tmp_path, balance=balance), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(endpoints(4))
        await session.send(endpoints(5))
        await session.send(desired(1, 0))
        await session.next("ack")
        assert [message.number for message in balance.taken] == [4, 5]
        (service,) = balance.taken[0].services
        assert (service.vip, service.ports) == ("10.0.192.1", (Port(80, 8080, "udp", host_ip="127.0.0.1", local=True),))
        assert (service.endpoints[0].network, service.endpoints[0].underlay) == ("shop_default", "192.0.2.1")
        assert balance.taken[0].prefix6 == "fd00::/96"
        assert session.messages.empty()
        balance.apply()
        assert (await session.next("endpoints_ack")).number == 5


async def test_a_new_session_knows_no_floor_and_acknowledges_only_what_it_was_told(tmp_path: Path, keys: Keys) -> None:
    balance = HeldBalancer()
    agent, dispatcher = Agent(tmp_path, balance=balance), Dispatcher(keys)
    async with agent.on(), dispatcher.on():
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            await session.send(endpoints(7))
            await session.send(pb.ToNode(floor=pb.Floor(number=6)))
            await session.send(desired(1, 0, web()))
            await session.next("ack")
            balance.apply()
            await session.next("endpoints_ack")
        async with running(agent.client(keys, dispatcher.address)):
            session = await dispatcher.session()
            await session.send(desired(1, 0))
            await session.next("ack")
            assert balance.floors == [0, 6, 0]
            assert session.messages.empty()
            await session.send(endpoints(3))
            assert (await session.next("endpoints_ack")).number == 3


async def test_guarded_addresses_are_merged_and_given_again_when_that_failed(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    given, works, news = [], [False], asyncio.Event()

    async def guard(addresses: Collection[str]) -> None:
        if not works[0]:
            works[0] = True
            raise RuntimeFailed("no rules today")
        given.append(tuple(addresses))
        news.set()

    agent.network.guard = guard  # type: ignore[method-assign]
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        async with asyncio.timeout(WAIT_S):
            await session.send(pb.ToNode(guarded=pb.Guarded(whole=True, added=["192.0.2.1:7443", "192.0.2.2:2379"])))
            await news.wait()
            news.clear()
            await session.send(pb.ToNode(guarded=pb.Guarded(added=["192.0.2.3:7445"], removed=["192.0.2.1:7443"])))
            await news.wait()
    assert given == [("192.0.2.1:7443", "192.0.2.2:2379"), ("192.0.2.2:2379", "192.0.2.3:7445")]


async def test_a_stop_waits_for_connections_and_a_removed_node_for_none(tmp_path: Path, keys: Keys) -> None:
    balance = HeldBalancer()
    agent, dispatcher = Agent(tmp_path, balance=balance), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 2, web()))
        await session.until_states({1: "running", 2: "running"})
        await session.send(desired(2, 1, base=1))
        async with asyncio.timeout(WAIT_S):
            await balance.draining.wait()
        assert (agent.runtime.running(), balance.drains[0][0][0]) == (2, "shop_default")
        balance.drained_now.set()
        await session.until_states({1: "running"})
        balance.drained_now.clear()
        agent.runner.leave()
        await agent.reached(lambda: not agent.core.lives)
        assert len(balance.drains) == 1


async def test_networks_of_a_running_container_follow_the_service(tmp_path: Path, keys: Keys) -> None:
    agent, dispatcher = Agent(tmp_path), Dispatcher(keys)
    async with agent.on(), dispatcher.on(), running(agent.client(keys, dispatcher.address)):
        session = await dispatcher.session()
        await session.send(desired(1, 1, web()))
        await session.until_states({1: "running"})
        message = desired(2, 1, base=1)
        message.desired.services[0].rewired = True
        message.desired.services[0].networks.add(network="other", aliases=["o"])
        message.desired.networks.add(name="other", vni=8, subnet="10.1.0.0/16", slice="10.1.1.0/24", prefix6="fd00:8::/96")
        await session.send(message)
        while not (status := await session.next("status")).replicas or status.replicas[0].addresses[0].network != "other":
            pass
        (order,) = agent.runtime.orders.values()
        assert (order.addresses, order.nameservers) == (("10.1.1.2", "fd00:8::a01:102"), ("10.1.1.1",))
        assert agent.runtime.starts == 1


async def test_one_look_that_fails_keeps_no_other_look_from_being_taken(tmp_path: Path) -> None:
    looks: list[str] = []

    class Blind(MemoryNetwork):
        async def repair(self) -> tuple[str, ...]:
            looks.append("networks")
            raise LookupError("nobody thought of this")

    class Balance(NoBalancer):
        async def repair(self) -> tuple[str, ...]:
            looks.append("balance")
            return ("a rule was gone and is back",)

    agent = Agent(tmp_path, network=Blind(), balance=Balance())
    async with agent.on():
        await agent.runner.repair()
        assert looks == ["networks", "balance"]
    assert [event.sentence for event in agent.reporter.restart()] == ["a rule was gone and is back"]
