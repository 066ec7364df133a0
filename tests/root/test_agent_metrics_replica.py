"""A replica's own metrics are read inside its network namespace, whatever answers there."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.core.clock import RealClock
from agent.core.metrics_replica import Limits, read_metrics, read_replica
from agent.core.scraping import Scraper
from agent.network import namespaces
from agent.network.rtnl import Netlink
from agent.plan import netlink
from agent.plan.records import Life, ReplicaId, WantedService
from model.autoscale import MetricsPort
from model.errors import Unavailable
from model.spec import ContainerSpec, ServiceSpec

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@contextmanager
def answering(netns: Path, *pieces: bytes, close: bool = True, address: str = "127.0.0.1") -> Iterator[int]:
    """A server in the namespace that sends these bytes to whoever asks; its port. Nothing listens outside."""

    def listen() -> socket.socket:
        return socket.create_server((address, 0))

    server = namespaces.enter(str(netns), listen)
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            caller.recv(4096)
            try:
                for piece in pieces:
                    caller.sendall(piece)
            except OSError:
                pass
            if close:
                caller.close()
            held.append(caller)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for caller in held:
            caller.close()


OWN, NEIGHBOUR = "10.251.7.5", "10.251.7.6"


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    with namespace(tmp_path / "replica.net") as path:
        yield path


@pytest.fixture
def neighbour(tmp_path: Path, netns: Path) -> Iterator[Path]:
    """Another namespace on one network with the replica's: NEIGHBOUR and OWN."""
    with namespace(tmp_path / "neighbour.net") as path:
        sh(netns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(path))
        for inside, address in ((netns, OWN), (path, NEIGHBOUR)):
            sh(inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            sh(inside, "ip", "link", "set", "eth0", "up")
        yield path


def sh(netns: Path, *words: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", *words], check=True)


@contextmanager
def namespace(path: Path) -> Iterator[Path]:
    def up() -> None:
        with Netlink() as nl:
            nl.send([netlink.set_up(1)])

    descriptor, _ = namespaces.create(path, up)
    os.close(descriptor)
    try:
        yield path
    finally:
        namespaces.remove(path)


async def test_a_page_is_read_inside_and_nowhere_else(netns: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
    with answering(netns, head, b"up 1", close=False) as port:
        page = await read_metrics(str(netns), MetricsPort(port))
        assert page == ("text/plain", b"up 1")
        with pytest.raises(Unavailable, match="refused"):
            await read_metrics("/proc/self/ns/net", MetricsPort(port))


async def test_who_listens_on_its_network_address_only_is_read_there(netns: Path, neighbour: Path) -> None:
    where, text = partial(read_metrics, str(netns), own=[NEIGHBOUR, OWN]), b"HTTP/1.0 200 OK\r\n\r\n"
    with answering(netns, text, b"own 1\n", address=OWN) as port:
        assert (await where(MetricsPort(port))).body == b"own 1\n"
        with pytest.raises(Unavailable, match="refused"):
            await read_metrics(str(netns), MetricsPort(port))
    with answering(neighbour, text, b"secret 1\n", address=NEIGHBOUR) as port:
        sh(netns, "bash", "-c", f"exec 3<>/dev/tcp/{NEIGHBOUR}/{port}")
        with pytest.raises(Unavailable, match=f"port {port}: Connection refused"):
            await where(MetricsPort(port))


async def test_without_a_length_the_end_is_the_end(netns: Path) -> None:
    with answering(netns, b"HTTP/1.0 200 OK\r\n\r\n", b"a 1\n", b"b 2\n") as port:
        assert (await read_metrics(str(netns), MetricsPort(port, "/"))).body == b"a 1\nb 2\n"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 'HTTP/1.1 404 Not Found'"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"x" * 200_000, "does not speak HTTP"),
    ],
)
async def test_what_is_no_page_is_one_line(netns: Path, said: bytes, problem: str) -> None:
    with answering(netns, said) as port, pytest.raises(Unavailable, match=problem):
        await read_metrics(str(netns), MetricsPort(port))


async def test_who_says_nothing_or_too_much_is_left(netns: Path) -> None:
    with answering(netns, close=False) as port, pytest.raises(Unavailable, match="no answer within"):
        await read_metrics(str(netns), MetricsPort(port), Limits(timeout_s=0.2))
    with answering(netns, b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 5000) as port, pytest.raises(Unavailable, match="more than"):
        await read_metrics(str(netns), MetricsPort(port), Limits(size_bytes=1000))


async def test_a_replica_without_a_network_says_what_its_policy_asks(netns: Path) -> None:
    inside = namespaces.enter(str(netns), lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE))  # ends with this process
    runner = SimpleNamespace(performer=SimpleNamespace(pids={"c1": inside.pid}))
    scraper = Scraper(RealClock(), partial(read_replica, cast(Any, runner)))
    life = Life(ReplicaId("s1", 1, 1, 1), ServiceSpec("web", ContainerSpec("web")), "web.1", stage="running", container_id="c1")
    try:
        with answering(netns, b"HTTP/1.0 200 OK\r\n\r\n", b"jobs 3\n") as port:
            asked = [WantedService("s1", "web", scraped=("jobs",), metrics=MetricsPort(port))]
            await scraper.look([life], asked)
            assert scraper.values(life.id) == {"jobs": 3.0}
    finally:
        inside.communicate()
    with pytest.raises(Unavailable, match="it does not run"):
        await read_replica(cast(Any, SimpleNamespace(performer=SimpleNamespace(pids={}))), life, MetricsPort(1))
