"""The dispatch server's own gRPC against the library the agents use: messages of every size, streams that end in every way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc import aio

from controller.dispatch.grpc_server import PATH, DispatchServer
from controller.dispatch.server import Dispatch
from controller.dispatch.stream import NodeStream, Refusal
from controller.pki import Pki, ensure_pki
from controller.wiring import listen
from model.pki_names import CONTROLLER_SERVER_NAME, ROLE_NODE
from protos import node_pb2 as pb
from tests.contract.controller_harness import ENDED

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


class Echo:
    """In the place of Dispatch: gives back what comes as the reason of a goodbye; `refuse` and `fail` do what they say."""

    def __init__(self) -> None:
        self.over: list[str] = []
        self.ended = asyncio.Event()

    read_until: Callable[[], float]

    def shut(self) -> None:
        """Nobody is told anything."""

    async def session(self, stream: NodeStream) -> None:
        peer = await stream.identify()
        try:
            while (message := await stream.read()) is not None:
                word = message.hello.node
                if word == "refuse":
                    await stream.refuse(Refusal.NOT_ALLOWED, "nein: ü")
                assert word != "fail"
                await stream.write(pb.ToNode(goodbye=pb.Goodbye(reason=f"{peer.name if peer else ''}:{word}")))
        finally:
            self.over.append(peer.name if peer else "")
            self.ended.set()


class Server:
    def __init__(self, pki: Pki) -> None:
        self.pki, self.echo = pki, Echo()
        self.server = DispatchServer(cast(Dispatch, self.echo), pki)
        self.port = self.server.start(listen("--dispatch", "127.0.0.1", 0))

    @contextlib.asynccontextmanager
    async def channel(self, name: str = "n1") -> AsyncIterator[aio.Channel]:
        pair = self.pki.authority.issue(name, ROLE_NODE, [])
        credentials = grpc.ssl_channel_credentials(self.pki.authority.pem, pair.key, pair.certificate)
        options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME), ("grpc.max_receive_message_length", -1))
        async with aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options) as channel:
            yield channel


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(ensure_pki(tmp_path / "pki", "c1", []))
    yield found
    await found.server.stop()


def call(channel: aio.Channel, path: str = PATH) -> Any:
    return channel.stream_stream(path, pb.FromNode.SerializeToString, pb.ToNode.FromString)()


def said(word: str) -> pb.FromNode:
    return pb.FromNode(hello=pb.Hello(node=word))


@pytest.mark.parametrize("size", [0, 1, 16_370, 70_000, 1 << 20, 5 << 20])
async def test_messages_of_every_size_go_both_ways(server: Server, size: int) -> None:
    async with server.channel() as channel:
        stream = call(channel)
        for _ in range(3):
            await stream.write(said("x" * size))
            assert (await stream.read()).goodbye.reason == "n1:" + "x" * size
        await stream.done_writing()
        assert await stream.read() is aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_several_streams_on_one_connection_and_one_after_the_other(server: Server) -> None:
    async with server.channel() as channel:
        for _ in range(3):
            streams = [call(channel) for _ in range(5)]
            for number, stream in enumerate(streams):
                await stream.write(said(str(number)))
            assert [(await stream.read()).goodbye.reason for stream in streams] == [f"n1:{number}" for number in range(5)]
            for stream in streams:
                await stream.done_writing()
            assert {await stream.code() for stream in streams} == {grpc.StatusCode.OK}


@pytest.mark.parametrize(
    ("word", "path", "code", "details"),
    [
        ("refuse", PATH, grpc.StatusCode.PERMISSION_DENIED, "nein: ü"),
        ("fail", PATH, grpc.StatusCode.INTERNAL, "AssertionError"),
        ("", "/shoal.node.v1.Dispatch/Other", grpc.StatusCode.UNIMPLEMENTED, "there is no /shoal.node.v1.Dispatch/Other here"),
    ],
)
async def test_why_it_ended_is_told(server: Server, word: str, path: str, code: grpc.StatusCode, details: str) -> None:
    async with server.channel() as channel:
        stream = call(channel, path)
        if word:  # writing to a call that the server ends meanwhile is an inner error of gRPC's client
            await stream.write(said(word))
        assert await stream.code() is code
        assert await stream.details() == details


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_an_agent_that_goes_ends_its_session(server: Server, how: str) -> None:
    async with server.channel("n7") as channel:
        stream = call(channel)
        await stream.write(said("x"))
        await stream.read()
        if how == "cancel":
            stream.cancel()
        else:
            await channel.close()
        await asyncio.wait_for(server.echo.ended.wait(), 10)
    assert server.echo.over == ["n7"]


async def test_a_server_that_stops_ends_its_sessions(server: Server) -> None:
    async with server.channel() as channel:
        stream = call(channel)
        await stream.write(said("x"))
        await stream.read()
        await server.server.stop()
        with contextlib.suppress(*ENDED):
            await stream.read()
        assert await stream.code() is not grpc.StatusCode.OK
    assert server.echo.over == ["n1"]


async def test_strangers_who_say_nothing_or_nonsense_keep_nobody_out(server: Server) -> None:
    strangers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    try:
        for stranger in strangers[:20]:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        async with server.channel() as channel:
            stream = call(channel)
            await stream.write(said("x"))
            assert (await stream.read()).goodbye.reason == "n1:x"
    finally:
        for stranger in strangers:
            stranger.close()
