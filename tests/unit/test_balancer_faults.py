"""The load balancer goes on whatever the kernel answers. Rules are taken by a list."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, cast

import pytest

from agent.core.clock import RealClock
from agent.network.balancer import KernelBalancer
from agent.network.counting import LOOK_EVERY_S
from agent.network.draining import Draining
from agent.network.nft import Nft
from agent.network.published import PublishedPorts
from agent.plan.balance_book import BalanceBook
from agent.plan.forget import Forgetting
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import NetworkWanted, link_plan
from agent.plan.pace import REST_S_MIN
from model.spec import Port


class Rules:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.texts: list[str] = []

    def run(self, text: str) -> str:
        if self.errors:
            raise self.errors.pop(0)
        self.texts.append(text)
        return ""


class NoConnections:
    def delete_where(self, *_: Any, **__: Any) -> int:
        return 0

    def open_connections(self, addresses: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(addresses, 0)

    def balanced(self, *, six: bool) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing was opened."""


def published(*rows: tuple[str, Port]) -> EndpointsMessage:
    endpoint = EndpointName("web.1", "10.0.0.2", "n1", network="net")
    services = tuple(ServiceNames(name, name, endpoints=(endpoint,), ports=(port,)) for name, port in rows)
    return EndpointsMessage("ingress", True, services, number=1)


class Unheard(NoConnections):
    """Does not answer the first time."""

    def __init__(self) -> None:
        self.looks: list[Any] = []

    def delete_where(self, *what: Any, **_: Any) -> int:
        self.looks.append(what)
        if len(self.looks) == 1:
            raise OSError(105, "No buffer space available")
        return 0


async def test_connections_that_could_not_be_forgotten_are_tried_again_and_news_do_not_wait_for_it() -> None:
    connections = Unheard()
    balancer = KernelBalancer(cast(Nft, Rules()), "n1", connections, RealClock(), lambda *_: None)
    balancer.take(published(("web", Port(53, free_port(), "udp"))))
    assert await balancer._apply(0.0) == 0
    assert await balancer.applied(0) == 1
    assert len(connections.looks) == 1
    assert await balancer._apply(0.0) == 0
    assert len(connections.looks) > 1
    looks = len(connections.looks)
    assert await balancer._apply(0.0) == 0
    assert len(connections.looks) == looks
    await balancer.close()


async def test_an_error_nobody_thought_of_is_answered_by_writing_the_whole_table() -> None:
    rules = Rules(KeyError("no such thing"))
    balancer = KernelBalancer(cast(Nft, rules), "n1", NoConnections(), RealClock(), lambda *_: None)
    balancer.take(published(("web", Port(80, free_port()))))
    assert await balancer._apply(0.0) > 0
    assert await balancer._apply(0.1) == 0
    assert "delete table inet shoal-lb" in rules.texts[-1]
    assert await balancer.applied(0) == 1
    await balancer.close()


def test_a_port_that_goes_is_let_go_before_another_one_takes_its_number() -> None:
    number, said = free_port(), list[str]()
    book = BalanceBook("n1")
    ports = PublishedPorts(book, lambda kind, about, sentence: said.append(sentence))
    book.take(published(("b", Port(80, number, host_ip="127.0.0.1"))))
    ports.ingress(book.ingress_ports())
    book.take(
        published(
            ("a", Port(80, number)),
        )
    )
    changed = book.ingress_ports()
    ports.ingress(dict(sorted(changed.items(), key=lambda row: not row[1])))
    assert (said, book.blocked) == ([], ())
    ports.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hours:
    """A clock that only sleeping moves, and looking."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def test_slow_looks_at_connections_are_rare_and_the_drain_stays_in_its_time() -> None:
    clock, forgetting, looks = Hours(), Forgetting(), list[float]()

    def look(addresses: Iterable[str]) -> dict[str, int]:
        looks.append(clock.time)
        clock.time += 0.5
        return dict.fromkeys(addresses, 1)

    forgetting.take(published(("web", Port(80, 80))), 0.0)
    await Draining(forgetting, look, lambda _: "", clock).drained([("net", "10.0.0.2"), ("net", "never told")], 10.0)
    assert looks == pytest.approx([2.0, 4.5, 7.0, 9.5], abs=0.1)
    assert clock.time <= 10.5


class Sets(Rules):
    """Counts of connections, as the kernel would have them."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.ended = 0
        self.read: list[str] = []

    def counts(self, table: str, name: str) -> dict[str, tuple[int, int]]:
        self.read.append(name)
        packets = {"opened": self.opened, "ended": self.ended}.get(name, self.opened + self.ended)
        return {"10.0.0.2": (packets, 0)}


class Open(NoConnections):
    """So many are open; counts the passes."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.passes = 0

    def balanced(self, *, six: bool) -> dict[str, int]:
        self.passes += 1
        return dict(self.now)


async def test_open_connections_are_counted_each_time_and_compared_with_the_kernels_table_seldom() -> None:
    sets, connections, clock = Sets(), Open(), Hours()
    balancer = KernelBalancer(cast(Nft, sets), "n1", connections, clock, lambda *_: None)
    endpoint = EndpointName("web.1", "10.0.0.2", "n1", network="net")
    balancer.networks({"net": link_plan(NetworkWanted("net", 7, "10.0.0.0/16", "10.0.0.0/24"), 1500)})
    web = ServiceNames("web", "web", vip="10.0.255.1", endpoints=(endpoint,))
    balancer.take(EndpointsMessage("net", True, (web,), number=1))

    async def told(after_s: float = LOOK_EVERY_S) -> tuple[int, int]:
        clock.time += after_s
        [row] = await balancer.load()
        return row.open, connections.passes

    connections.now = {"10.0.0.2": 4}
    assert await told() == (4, 1), "what an earlier agent left open is found at first"
    sets.opened += 3
    assert await told() == (7, 1)
    sets.ended += 2
    assert await told() == (5, 1)
    sets.read.clear()
    assert await told() == (5, 1)
    assert sets.read == ["begun", "to", "from"], "nothing went to and fro, so nothing has opened or ended"
    sets.opened += 1
    assert await told() == (6, 1)
    sets.opened += 1
    assert await told(0.0) == (6, 1), "not before it has rested"
    assert await told() == (7, 1)
    connections.now = {"10.0.0.2": 1}
    assert await told(REST_S_MIN) == (1, 2), "six have gone without a word"
    sets.ended += 1
    connections.now = {}
    assert await told() == (0, 2)
    assert await told(REST_S_MIN) == (0, 2), "nothing is open and nothing has begun"
    sets.opened, sets.ended = 6, 6
    assert await told() == (0, 3)
    await balancer.close()
