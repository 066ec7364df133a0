"""The ends of a reign that meet something else: a session that is just being opened, a controller that is just stopping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc import aio

from controller.certificates import serial_of
from controller.clock import RealClock, RealRandom
from controller.dispatch.grpc_server import DispatchServer
from controller.dispatch.server import Dispatch
from controller.election import Election, Reign
from controller.loops.picture import Picture
from controller.pki import ensure_pki
from controller.store.memory import MemoryStore
from controller.wiring import listen
from model.documents import LeaderDoc, NodeDoc, key
from model.pki_names import CONTROLLER_SERVER_NAME, ROLE_NODE
from model.store_port import Guard
from protos import node_pb2 as pb

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


class Asked:
    """Answers for the store about one node, when told to."""

    def __init__(self, document: NodeDoc) -> None:
        self.document = document
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def read(self, node: str) -> NodeDoc:
        self.begun.set()
        await self.go_on.wait()
        return self.document


@contextlib.asynccontextmanager
async def opening(folder: Path) -> AsyncIterator[tuple[Dispatch, Asked, Any, Reign]]:
    """A leader's dispatch, and a node's session that waits for the store's word about the node."""
    pki = ensure_pki(folder / "pki", "c1", [])
    pair = pki.authority.issue("n1", ROLE_NODE, ["n1.node.shoal"])
    asked = Asked(NodeDoc("n1", "id", serial_of(x509.load_pem_x509_certificate(pair.certificate))))
    picture = Picture(asyncio.get_running_loop().call_soon)
    dispatch = Dispatch(picture, RealClock(), 1.0, asked.read, lambda node: None, lambda events: None)
    server = DispatchServer(dispatch, pki)
    port = server.start(listen("--dispatch", "127.0.0.1", 0))
    reign = Reign(Guard(key("leader"), 1), 1, "c", 1, 0, RealClock().monotonic, good_until=float("inf"))
    dispatch.open(reign)
    credentials = grpc.ssl_channel_credentials(pki.authority.pem, pair.key, pair.certificate)
    options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),)
    try:
        async with aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel, asyncio.timeout(20):
            path = "/shoal.node.v1.Dispatch/Session"
            call = channel.stream_stream(path, pb.FromNode.SerializeToString, pb.ToNode.FromString)()
            await call.write(pb.FromNode(hello=pb.Hello(node="n1")))
            await asked.begun.wait()
            yield dispatch, asked, call, reign
    finally:
        await server.stop()


async def test_a_session_that_opens_during_a_reign_is_welcome(tmp_path: Path) -> None:
    async with opening(tmp_path) as (dispatch, asked, call, _):
        asked.go_on.set()
        assert (await call.read()).WhichOneof("kind") == "welcome"
        assert dispatch.sessions()["n1"].open


async def test_a_session_that_opens_while_the_reign_ends_is_sent_on(tmp_path: Path) -> None:
    async with opening(tmp_path) as (dispatch, asked, call, _):
        dispatch.shut()
        asked.go_on.set()
        assert (await call.read()).WhichOneof("kind") == "redirect"
        assert await call.read() is aio.EOF
        assert dispatch.sessions() == {}, "the node would believe that somebody looks after it"


async def test_who_stood_still_for_longer_than_its_lease_tells_no_node_its_old_state(tmp_path: Path) -> None:
    async with opening(tmp_path) as (_, asked, call, reign):
        reign.good_until = 0.0
        asked.go_on.set()
        assert (await call.read()).WhichOneof("kind") == "redirect"


async def test_whose_lease_is_over_tells_its_sessions_nothing_more(tmp_path: Path) -> None:
    async with opening(tmp_path) as (_, asked, call, reign):
        asked.go_on.set()
        kinds = [(await call.read()).WhichOneof("kind")]
        while kinds[-1] != "endpoints":  # with the first of them everything is said that there is
            kinds.append((await call.read()).WhichOneof("kind"))
        assert kinds[0] == "welcome"
        reign.good_until = 0.0
        await call.write(pb.FromNode(heartbeat=pb.Heartbeat(sequence=1)))
        answer = await call.read()
        assert answer.WhichOneof("kind") == "goodbye"
        assert not answer.goodbye.removed
        assert await call.read() is aio.EOF


async def test_an_election_that_is_ended_while_a_reign_ends_does_end() -> None:
    store, picture = MemoryStore(), Picture(asyncio.get_running_loop().call_soon)
    election = Election(store, picture, RealClock(), RealRandom(), LeaderDoc("c1", 0, id="x"))
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def lead(reign: Reign) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    running = asyncio.create_task(election.run(lead))
    async with asyncio.timeout(20):
        while election.reign is None:
            await picture.changed()
        await store.lease_revoke(election.reign.lease)  # the reign is over with the next renewal
        await ending.wait()
        running.cancel()
        await asyncio.wait({running}, timeout=0.5)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
