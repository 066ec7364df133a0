"""An agent that was away and is back is asked at once: nobody meets the connection of before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from controller.agents import Agents
from controller.pki import Pki, ensure_pki
from model.documents import NodeDoc, NodeInfo, StatusDoc
from model.errors import Unavailable
from model.pki_names import node_server_name
from protos import node_pb2 as pb
from protos import node_pb2_grpc as rpc
from tests.contract.etcd_harness import free_port

pytestmark = pytest.mark.contract


class Answering(rpc.AgentServicer):
    async def Images(self, request: pb.Empty, context: Any) -> pb.Json:
        return pb.Json(json=b"[]")


@dataclass
class Pictured:
    """One node whose agent is at `address`; as much of a picture as calls need."""

    address: str

    def snapshot(self) -> Pictured:
        return self

    def of(self, kind: str) -> dict[str, Any]:
        status = StatusDoc("n1", NodeInfo(self.address))
        kinds: dict[str, dict[str, Any]] = {"nodes": {"n1": NodeDoc("n1", "id1")}, "status": {"n1": status}}
        return kinds.get(kind, {})


@asynccontextmanager
async def serving(pki: Pki, port: int) -> AsyncIterator[None]:
    pair = pki.authority.issue("n1", "node", [node_server_name("n1")])
    server = aio.server()
    answering = Answering()  # type: ignore[abstract, unused-ignore]
    rpc.add_AgentServicer_to_server(answering, server)  # type: ignore[no-untyped-call, unused-ignore]
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)], pki.authority.pem, require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def test_an_agent_that_is_back_answers_the_first_call(tmp_path: Path) -> None:
    pki, port = ensure_pki(tmp_path, "c1", []), free_port()
    agents = Agents(Pictured(f"127.0.0.1:{port}"), pki)  # type: ignore[arg-type]
    try:
        async with serving(pki, port):
            assert (await agents.call("n1", "Images", pb.Empty())).json == b"[]"
        with pytest.raises(Unavailable, match="node n1 cannot be reached"):
            await agents.call("n1", "Images", pb.Empty(), 1.0)
        async with serving(pki, port):
            assert (await agents.call("n1", "Images", pb.Empty())).json == b"[]"
    finally:
        await agents.close()
