"""Sessions of agents against a real controller: who is let in, what they are told, what survives a killed controller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from cli.client import Client as CommandLine
from cli.context import Context
from model.pki_names import CONTROLLER_SERVER_NAME
from protos import node_pb2 as pb
from tests.contract.controller_harness import (
    ENDED,
    INFO,
    ControllerProcess,
    Node,
    controller_process,
    eventually,
    running,
    service_body,
)
from tests.contract.etcd_harness import Certificates
from tests.contract.etcd_harness import Member as EtcdMember

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


async def rows(controller: ControllerProcess, path: str) -> Any:
    return await asyncio.to_thread(controller.operator().ok, "GET", path)


async def until(controller: ControllerProcess, path: str, probe: Any) -> Any:
    async with asyncio.timeout(25):
        while True:
            found = await rows(controller, path)
            if probe(found):
                return found
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def raw_session(node: Node, hello: pb.Hello) -> AsyncIterator[Any]:
    credentials = grpc.ssl_channel_credentials(node.joined["ca"].encode(), node.key, node.joined["certificate"].encode())
    options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),)
    async with aio.secure_channel(node.dispatch, credentials, options=options) as channel:
        call = channel.stream_stream("/shoal.node.v1.Dispatch/Session", pb.FromNode.SerializeToString, pb.ToNode.FromString)()
        with contextlib.suppress(*ENDED):  # a refusal may come before anything was sent
            await call.write(pb.FromNode(hello=hello))
        yield call
        call.cancel()


async def refusal(node: Node, hello: pb.Hello) -> grpc.StatusCode:
    async with raw_session(node, hello) as call:
        with contextlib.suppress(aio.AioRpcError):
            await call.read()
        code: grpc.StatusCode = await call.code()
        return code


async def test_only_the_nodes_own_name_is_believed(controller: ControllerProcess) -> None:
    node = Node(controller, "honest")
    assert await refusal(node, pb.Hello(node="other")) is grpc.StatusCode.PERMISSION_DENIED


async def test_hello_has_to_make_sense(controller: ControllerProcess) -> None:
    node = Node(controller, "garbled")
    assert await refusal(node, pb.Hello(node="garbled", info=b"{")) is grpc.StatusCode.INVALID_ARGUMENT
    assert await refusal(node, pb.Hello(node="garbled", info=b'{"cpus":"many"}')) is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_operator_opens_no_session(controller: ControllerProcess) -> None:
    node = Node(controller, "role")
    context = controller.context()
    node.key, node.joined = context["key"].encode(), {**node.joined, "certificate": context["certificate"]}
    assert await refusal(node, pb.Hello(node="role")) is grpc.StatusCode.PERMISSION_DENIED


async def test_without_a_certificate_there_is_no_connection(controller: ControllerProcess) -> None:
    node = Node(controller, "nameless")
    credentials = grpc.ssl_channel_credentials(node.joined["ca"].encode())
    options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),)
    async with aio.secure_channel(node.dispatch, credentials, options=options) as channel:
        call = channel.stream_stream("/shoal.node.v1.Dispatch/Session", pb.FromNode.SerializeToString, pb.ToNode.FromString)()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_heartbeats_are_answered(controller: ControllerProcess) -> None:
    node = Node(controller, "beating")
    async with node.session():
        await node.until(lambda: [row for row in node.received if row.WhichOneof("kind") == "heartbeat"])
        welcome = node.received[0].welcome
        assert welcome.heartbeat_s == pytest.approx(0.5)
        assert list(welcome.controllers) == [node.dispatch]


async def test_nodes_are_told_where_blobs_are(controller: ControllerProcess) -> None:
    """One is sent to the registry, the other waits, and is sent to the first when that has it; until its session ends."""
    first, second = Node(controller, "fetching"), Node(controller, "waiting")
    digest = f"sha256:{'a' * 64}"

    def hello(node: Node) -> pb.Hello:
        return pb.Hello(node=node.name, info=json.dumps({**INFO, "address": f"{node.name}:7445"}).encode())

    def told(node: Node) -> list[tuple[str, str, bool]]:
        sources = [row.blob_source for row in node.received if row.WhichOneof("kind") == "blob_source"]
        return [(source.node, source.address, source.registry) for source in sources if source.digest == digest]

    async def say(node: Node, call: Any, phase: str) -> None:
        await node._say(call, pb.FromNode(blob_wanted=pb.BlobWanted(digest=digest, size_bytes=1 << 30, phase=phase)))

    async with second.session(hello(second)) as other:
        async with first.session(hello(first)) as call:
            await say(first, call, "wanted")
            await first.until(lambda: told(first) == [("", "", True)])
            await say(second, other, "wanted")
            await second.until(lambda: told(second) == [("", "", False)])
            held = pb.ImagesHeld(whole=True, images=[pb.HeldImage(id="sha256:1", blobs=[digest])])
            await first._say(call, pb.FromNode(images_held=held))
            await say(first, call, "got")
            await second.until(lambda: told(second)[1:] == [("fetching", "fetching:7445", False)])
            second.received.clear()
        await say(second, other, "gave_up")
        await say(second, other, "wanted")
        await second.until(lambda: told(second) == [("", "", True)])


async def test_a_difference_that_was_not_taken_is_followed_by_the_whole(controller: ControllerProcess) -> None:
    node, operator = Node(controller, "confused"), controller.operator()
    body = service_body("again", placement={"constraints": ["node.hostname==confused"]})
    async with node.session() as call:
        await until(controller, "/v1/nodes/confused", lambda row: row["state"] == "ready")
        await asyncio.to_thread(operator.ok, "POST", "/v1/services", body)
        await node.until(lambda: node.slots() == 1)
        assert not node.received[-1].desired.whole
        node.received.clear()
        async with node.writing:
            await call.write(pb.FromNode(ack=pb.Ack(generation=node.generation, problem="I have lost my mind")))
        await node.until(lambda: any(row.WhichOneof("kind") == "desired" for row in node.received))
        (desired,) = [row.desired for row in node.received if row.WhichOneof("kind") == "desired"]
        assert desired.whole
        assert [spec.version for spec in desired.services[0].specs] == [1]
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/services/again")


async def test_the_newer_session_wins(controller: ControllerProcess) -> None:
    node, twin = Node(controller, "twice"), None
    async with node.session():
        await node.until(lambda: node.received)
        twin = _twin(node)
        async with twin.session():
            await node.until(lambda: node.received[-1].WhichOneof("kind") == "goodbye")
            assert not node.received[-1].goodbye.removed
            await twin.until(lambda: twin.received)
            await until(controller, "/v1/nodes/twice", lambda row: row["state"] == "ready")


def _twin(node: Node) -> Node:
    twin = Node.__new__(Node)
    twin.__dict__.update(node.__dict__)
    twin.received, twin.desired, twin.networks, twin.generation, twin.news = [], {}, {}, 0, asyncio.Condition()
    twin.writing = asyncio.Lock()
    return twin


async def test_a_removed_node_is_told_and_refused(controller: ControllerProcess) -> None:
    node = Node(controller, "removed")
    async with node.session():
        await until(controller, "/v1/nodes/removed", lambda row: row["state"] == "ready")
        status, answer = await asyncio.to_thread(controller.operator().request, "DELETE", "/v1/nodes/removed")
        assert status == 409, "a ready node is not removed by mistake"
        assert "drain" in answer["error"]["message"]
        await asyncio.to_thread(controller.operator().ok, "DELETE", "/v1/nodes/removed?force=true")
        await node.until(lambda: node.received[-1].WhichOneof("kind") == "goodbye")
        assert node.received[-1].goodbye.removed
    async with raw_session(node, pb.Hello(node="removed")) as call:
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "removed from the cluster" in await call.details()
        assert "`shoal node token`" in await call.details(), "the agent's log says what to do"


async def test_a_node_that_joined_again_refuses_the_old_certificate(controller: ControllerProcess) -> None:
    old = Node(controller, "again")
    new = Node(controller, "again")
    assert await refusal(old, pb.Hello(node="again")) is grpc.StatusCode.PERMISSION_DENIED
    async with new.session():
        await new.until(lambda: new.received)


async def test_known_specs_are_not_sent_and_statuses_come_back(controller: ControllerProcess) -> None:
    node = Node(controller, "knowing")
    operator = controller.operator()
    body = service_body("known", placement={"constraints": ["node.hostname==knowing"]})
    made = await asyncio.to_thread(operator.ok, "POST", "/v1/services", body)
    try:
        hello = pb.Hello(
            node="knowing", info=json.dumps(INFO).encode(), known_specs=[pb.SpecKey(service_id=made["id"], version=1)]
        )
        async with node.session(hello) as call:
            await node.until(lambda: node.slots() == 1)
            (service,) = node.desired.values()
            assert not service.specs
            node.reports = False
            (replica,) = running(service)
            replica.state, replica.exit_code, replica.message, replica.restarts = "failed", 137, "killed\nby someone", 4
            event = pb.NodeEvent(at_ms=1, kind="replica", about="service/known", sentence="known.1 was killed")
            async with node.writing:
                await call.write(pb.FromNode(status=pb.Status(replicas=[replica], events=[event])))
            (row,) = await until(controller, "/v1/replicas?service=known", lambda rows: rows and rows[0]["state"] == "failed")
            assert (row["exit_code"], row["restarts"], row["message"], row["node"]) == (137, 4, "killed", "knowing")
            found = await until(
                controller, "/v1/services/known/explain", lambda row: any("was killed" in e["sentence"] for e in row["events"])
            )
            assert found["name"] == "known"
    finally:
        await asyncio.to_thread(operator.ok, "DELETE", "/v1/services/known")


async def test_a_silent_node_is_down_and_its_replica_moves() -> None:
    with controller_process("--node-timeout", "2s") as controller:
        nodes = [Node(controller, f"n{number}") for number in (1, 2, 3)]
        async with contextlib.AsyncExitStack() as stack:
            for node in nodes[1:]:
                await stack.enter_async_context(node.session())
            async with nodes[0].session():
                for node in nodes:
                    await until(controller, f"/v1/nodes/{node.name}", lambda row: row["state"] == "ready")
                await asyncio.to_thread(controller.operator().ok, "POST", "/v1/services", service_body("web", replicas=3))
                await until(controller, "/v1/services", lambda rows: rows[0]["running"] == 3)
                assert [node.slots() for node in nodes] == [1, 1, 1], "spread"
            begin = time.monotonic()
            await until(controller, "/v1/nodes/n1", lambda row: row["state"] == "down")
            assert time.monotonic() - begin > 1.5, "silence counts from the last word, not from the end of the session"
            await until(controller, "/v1/services", lambda rows: rows[0]["running"] == 3)
            assert nodes[1].slots() + nodes[2].slots() == 3
            lost = [row for row in await rows(controller, "/v1/replicas") if row["state"] == "lost"]
            assert [row["node"] for row in lost] == ["n1"]


async def test_a_session_that_is_back_within_the_timeout_moves_nothing() -> None:
    with controller_process("--node-timeout", "3s") as controller:
        nodes = [Node(controller, f"n{number}") for number in (1, 2)]
        async with nodes[1].session():
            async with nodes[0].session():
                await until(controller, "/v1/nodes", lambda found: [row["state"] for row in found] == ["ready", "ready"])
                await asyncio.to_thread(controller.operator().ok, "POST", "/v1/services", service_body("web", replicas=2))
                await until(controller, "/v1/services", lambda found: found[0]["running"] == 2)
            async with nodes[0].session():
                await until(controller, "/v1/services", lambda found: found[0]["running"] == 2)
                placed = await rows(controller, "/v1/replicas?all=true")
    assert sorted(row["node"] for row in placed) == ["n1", "n2"]
    assert {row["state"] for row in placed} == {"running"}


async def test_a_killed_controller_comes_back_and_moves_nothing() -> None:
    with controller_process("--node-timeout", "2s") as controller:
        node = Node(controller, "n1")
        await asyncio.to_thread(controller.operator().ok, "POST", "/v1/services", service_body("web", replicas=4))
        async with node.session():
            await node.until(lambda: node.slots() == 4)
            await until(controller, "/v1/services", lambda rows: rows[0]["running"] == 4)
            before = {service.SerializeToString() for service in _without_specs(node)}
            controller.kill()
        await asyncio.to_thread(controller.start)
        version = await rows(controller, "/v1/version")
        assert (version["leader"], version["epoch"]) == ("c1", 2), "its own stale key is taken over at once"
        node.dispatch = _dispatch_address(controller)
        node.received.clear()
        async with node.session():
            await node.until(lambda: any(row.WhichOneof("kind") == "desired" for row in node.received))
            assert node.received[0].welcome.epoch == 2
            assert {service.SerializeToString() for service in _without_specs(node)} == before
            await until(controller, "/v1/nodes/n1", lambda row: row["state"] == "ready")


def _without_specs(node: Node) -> list[pb.Service]:
    found = []
    for service in node.desired.values():
        copy = pb.Service()
        copy.CopyFrom(service)
        del copy.specs[:]
        found.append(copy)
    return found


def _dispatch_address(controller: ControllerProcess) -> str:
    lines = [line for line in controller.log().splitlines() if ", agents " in line]
    return lines[-1].rpartition(" ")[2]


async def test_a_standby_redirects_reads_writes_and_takes_over() -> None:
    folder = Path(tempfile.mkdtemp(prefix="shoal-test-standby-"))
    certificates = Certificates.make(folder / "tls")
    etcd = EtcdMember(folder, "one", tls=certificates)
    flags = (
        "--etcd", etcd.endpoint, "--etcd-cacert", str(certificates.ca), "--etcd-cert", str(certificates.cert),
        "--etcd-key", str(certificates.key), "--node-timeout", "2s",
    )  # fmt: skip
    try:
        etcd.start()
        with controller_process(*flags) as leader:
            second = ControllerProcess(folder / "c2", *flags, name="c2")
            (second.folder / "pki").mkdir(parents=True)
            for name in ("ca.pem", "ca.key"):
                shutil.copy(leader.folder / "pki" / name, second.folder / "pki" / name)
            try:
                await asyncio.to_thread(second.start)
                await _standby(leader, second)
            finally:
                if second.process is not None:
                    await asyncio.to_thread(second.stop)
    finally:
        etcd.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _context(controller: ControllerProcess) -> dict[str, Any]:
    row = controller.context()
    return {"apis": tuple(row["apis"]), **{name: row[name] for name in ("ca", "certificate", "key")}}


async def _standby(leader: ControllerProcess, second: ControllerProcess) -> None:
    version = await rows(second, "/v1/version")
    assert (version["controller"], version["leader"], version["epoch"]) == ("c2", "c1", 1)
    node = Node(second, "n1")
    assert node.joined["controllers"] == [_dispatch_address(second), _dispatch_address(leader)]
    async with raw_session(node, pb.Hello(node="n1")) as call:
        message = await call.read()
        assert message.redirect.dispatch == _dispatch_address(leader)
    await asyncio.to_thread(second.operator().ok, "POST", "/v1/services", service_body("web"))
    assert [row["name"] for row in await until(leader, "/v1/services", bool)] == ["web"]
    asking = second.operator()
    assert (await asyncio.to_thread(asking.get, "/v1/nodes/n1/history?fields=cpu_cores"))[0] == 307, "only the leader has them"
    assert asking.headers["location"] == leader.context()["apis"][0] + "/v1/nodes/n1/history?fields=cpu_cores"
    with CommandLine(Context("c2", **_context(second))) as client:
        assert (await asyncio.to_thread(client.get, "/v1/nodes/n1/history"))["name"] == "n1", "the command line goes there"
    told = await until(leader, "/v1/nodes/n1/explain", lambda row: row["events"])
    assert told["events"][0]["sentence"] == "node n1 joined the cluster", "the leader tells what a standby took in"
    node.dispatch = _dispatch_address(leader)
    async with node.session():
        await node.until(lambda: node.slots() == 1)
        both = [_dispatch_address(leader), _dispatch_address(second)]
        assert list(node.received[0].welcome.controllers) == both
        await asyncio.to_thread(leader.stop)
        await node.until(lambda: node.received[-1].WhichOneof("kind") in ("redirect", "goodbye"))
    version = await until(second, "/v1/version", lambda row: row["leader"] == "c2")
    assert version["epoch"] == 2
    node.dispatch = _dispatch_address(second)
    async with node.session():
        await until(second, "/v1/services", lambda rows: rows[0]["running"] == 1)


def test_two_controllers_do_not_share_a_directory(controller: ControllerProcess) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "shoal", "controller", "--data-dir", str(controller.folder), "--api", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "another controller uses" in done.stderr
    assert "Traceback" not in done.stderr
    eventually(lambda: controller.operator().get("/healthz") == (200, "ok"))
