"""Up to which moment a controller has read what came: a leader that is late takes nobody for silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from controller.dispatch.tls_link import TURNS_AT_ONCE, Link, Links

SOCKETS = TURNS_AT_ONCE + 20


class Reader:
    """In the place of a Link. `stubborn`: there is always something more to read. `heard`: done when something was."""

    shaken = True

    def __init__(self, end: socket.socket) -> None:
        self.end, self.turns, self.stubborn = end, 0, False
        self.heard = asyncio.get_running_loop().create_future()

    def readable(self) -> None:
        self.turns += 1
        if not self.stubborn:
            self.end.recv(100)
        if not self.heard.done():
            self.heard.set_result(None)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(SOCKETS)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def watched(pairs: list[tuple[socket.socket, socket.socket]]) -> tuple[Links, list[Reader]]:
    links, readers = Links(), [Reader(ours) for ours, _ in pairs]
    for reader in readers:
        links.watch(reader.end.fileno(), cast(Link, cast(Any, reader)))
    return links, readers


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_with_nothing_to_read_it_is_now(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    links, _ = watched(pairs)
    before = asyncio.get_running_loop().time()
    assert before <= links.read_until() <= asyncio.get_running_loop().time()
    links.close()


async def test_what_stands_in_sockets_was_not_read(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    links, readers = watched(pairs)
    links.read_until()
    began = asyncio.get_running_loop().time()
    for _, theirs in pairs:
        theirs.send(b"a heartbeat")
    while (read := sum(reader.turns for reader in readers)) < SOCKETS:
        assert read in (0, TURNS_AT_ONCE)
        assert links.read_until() <= began, "others wait still"
        await rounds(1)
    await rounds(3)
    assert links.read_until() > began
    links.close()


async def test_what_was_read_counts_when_whoever_waits_for_it_has_had_a_turn(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    links, (reader, *_) = watched(pairs[:1])
    links.read_until()
    began = asyncio.get_running_loop().time()
    pairs[0][1].send(b"a heartbeat")
    while not reader.heard.done():
        assert links.read_until() <= began
        await rounds(1)
    assert links.read_until() <= began, "the session has not been called yet"
    await rounds(3)
    assert links.read_until() > began
    links.close()


async def test_who_always_has_something_to_say_holds_up_nothing(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    links, readers = watched(pairs)
    for reader, (_, theirs) in zip(readers, pairs, strict=True):
        reader.stubborn = True
        theirs.send(b"a heartbeat")
    began = asyncio.get_running_loop().time()
    for _ in range(100):
        await rounds(1)
        if links.read_until() > began:
            break
    assert links.read_until() > began
    assert all(reader.turns for reader in readers)
    links.close()
