"""A replica's own metrics are read inside its network namespace, whatever answers there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core import metrics_replica
from agent.core.metrics_replica import read_metrics
from agent.network import namespaces
from agent.network.rtnl import Netlink
from agent.plan import netlink
from model.errors import Unavailable

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@contextmanager
def answering(netns: Path, *pieces: bytes, close: bool = True) -> Iterator[int]:
    """A server in the namespace that sends these bytes to whoever asks; its port. Nothing listens outside."""

    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

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


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "replica.net"

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
        page = await read_metrics(str(netns), port, "/metrics")
        assert page == ("text/plain", b"up 1")
        with pytest.raises(Unavailable, match="refused"):
            await read_metrics("/proc/self/ns/net", port, "/metrics")


async def test_without_a_length_the_end_is_the_end(netns: Path) -> None:
    with answering(netns, b"HTTP/1.0 200 OK\r\n\r\n", b"a 1\n", b"b 2\n") as port:
        assert (await read_metrics(str(netns), port, "/")).body == b"a 1\nb 2\n"


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
        await read_metrics(str(netns), port, "/metrics")


async def test_who_says_nothing_or_too_much_is_left(netns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(netns, close=False) as port, pytest.raises(Unavailable, match="no answer within"):
        await read_metrics(str(netns), port, "/metrics", timeout_s=0.2)
    monkeypatch.setattr(metrics_replica, "BYTES_MAX", 1000)
    with answering(netns, b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 5000) as port, pytest.raises(Unavailable, match="more than"):
        await read_metrics(str(netns), port, "/metrics")
