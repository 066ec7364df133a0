"""What the API passes on to agents: logs, exec, images, volumes; against a gRPC server that plays the agent of a node."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from protos import node_pb2 as pb
from protos import node_pb2_grpc as rpc
from tests.contract.controller_harness import (
    INFO,
    Client,
    ControllerProcess,
    Node,
    controller_process,
    eventually,
    service_body,
)

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


class PlayedAgent(rpc.AgentServicer):
    """Answers as an agent would, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.stdin = b""
        self.archive = b""
        self.exports: list[bytes] = []
        self.following = asyncio.Event()
        self.let_go = asyncio.Event()

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogLine]:
        self.asked.append(request)
        yield pb.LogLine(at_ns=1, stream="stdout", line=b"hello\n")
        yield pb.LogLine(at_ns=2, stream="stderr", line=b"\xff\xfe\n")
        if request.follow:
            self.following.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.let_go.set()

    async def Exec(self, requests: AsyncIterator[pb.ExecInput], context: Any) -> AsyncIterator[pb.ExecOutput]:
        start = (await anext(requests)).start
        self.asked.append(start)
        if start.command[0] == "missing":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "missing: no such program")
        yield pb.ExecOutput(started=True)
        try:
            async for request in requests:
                if request.WhichOneof("kind") == "stdin":
                    yield pb.ExecOutput(stdout=request.stdin.upper())
                elif request.WhichOneof("kind") == "resize":
                    yield pb.ExecOutput(stderr=f"{request.resize.rows}x{request.resize.columns}".encode())
                elif request.stdin_closed:
                    yield pb.ExecOutput(exit_code=3)
                    return
        finally:
            self.let_go.set()

    def Attach(self, requests: AsyncIterator[pb.ExecInput], context: Any) -> AsyncIterator[pb.ExecOutput]:
        return self.Exec(requests, context)

    async def Stats(self, request: pb.Empty, context: Any) -> pb.Json:
        return pb.Json(json=b"{}")

    async def Traffic(self, request: pb.Empty, context: Any) -> pb.Json:
        return pb.Json(json=b"[]")

    async def Inspect(self, request: pb.ContainerRequest, context: Any) -> pb.Json:
        return pb.Json(json=json.dumps({"Id": "abc", "slot": request.key.slot}).encode())

    async def Images(self, request: pb.Empty, context: Any) -> pb.Json:
        used = [{"id": "c" * 64, "name": "web.1", "running": True}]
        images = [
            {"id": "sha256:1", "names": ["localhost:5000/a/b:1"], "size_bytes": 5, "created": "2026"},
            {"id": "sha256:2", "names": ["busybox:latest"], "size_bytes": 5, "created": "2025", "containers": used},
        ]
        return pb.Json(json=json.dumps(images).encode())

    async def PullImage(self, request: pb.ImageRequest, context: Any) -> AsyncIterator[pb.Progress]:
        yield pb.Progress(text="1/2 layers", done_bytes=1, total_bytes=2)
        if request.reference == "gone":
            await context.abort(grpc.StatusCode.NOT_FOUND, "image gone: the registry does not have it")
        yield pb.Progress(text="pulled", result=b'{"id":"sha256:1"}')

    async def InspectImage(self, request: pb.ImageRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        rows = [{"Id": request.reference, "CreatedBy": "CMD"}, {"Id": "<missing>", "CreatedBy": "ADD"}]
        return pb.Json(json=json.dumps({"inspect": {"Id": request.reference}, "history": rows}).encode())

    async def RemoteImage(self, request: pb.ImageRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b'{"id":"sha256:1","history":[]}')

    async def CommitContainer(self, request: pb.CommitRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b'{"id":"sha256:8","names":["mine:1"]}')

    async def Export(self, request: pb.ContainerRequest, context: Any) -> AsyncIterator[pb.Chunk]:
        self.asked.append(request)
        for data in self.exports:
            yield pb.Chunk(data=data)
        if not self.exports:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "web.1 has no container yet")

    async def TagImage(self, request: pb.TagRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b"{}")

    async def PushImage(self, request: pb.ImageRequest, context: Any) -> AsyncIterator[pb.Progress]:
        self.asked.append(request)
        yield pb.Progress(text="1/1 layers", done_bytes=1, total_bytes=1)
        if not request.HasField("auth"):
            await context.abort(grpc.StatusCode.UNKNOWN, "registry localhost:5000 refuses a/b: unauthorized")
        yield pb.Progress(text="pushed", result=b'{"digest":"sha256:9"}')

    async def SaveImages(self, request: pb.SaveRequest, context: Any) -> AsyncIterator[pb.Chunk]:
        self.asked.append(request)
        yield pb.Chunk(data=b"arch")
        yield pb.Chunk(data=b"ive")

    async def RemoveImage(self, request: pb.ImageRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=json.dumps({"deleted": ["sha256:1", "sha256:2"], "freed_bytes": 5}).encode())

    async def LoadImage(self, requests: AsyncIterator[pb.Chunk], context: Any) -> pb.Json:
        async for chunk in requests:
            self.archive += chunk.data
        return pb.Json(json=b'{"names":["loaded:1"]}')

    async def ResolveImage(self, request: pb.ImageRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b'{"digest":"sha256:9"}')

    async def Blob(self, request: pb.BlobRequest, context: Any) -> AsyncIterator[pb.Chunk]:
        yield pb.Chunk(data=b"blob")

    async def Build(self, requests: AsyncIterator[pb.BuildInput], context: Any) -> AsyncIterator[pb.BuildOutput]:
        """The target says what becomes of it."""
        start = (await anext(requests)).start
        self.asked.append(start)
        parts = [request async for request in requests]
        if start.target == "refused":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such stage")
        self.archive = b"".join(part.context for part in parts)
        assert [part.WhichOneof("kind") for part in parts][-1] == "context_end"
        yield pb.BuildOutput(output="step \u00fc\n".encode())
        if start.target == "failing":
            yield pb.BuildOutput(failure=pb.BuildFailure(text="make returned 7", exit_code=7))
            return
        if start.target == "endless":
            self.following.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.let_go.set()
        yield pb.BuildOutput(result=json.dumps({"id": "sha256:3", "digest": "sha256:4", "names": [], "size_bytes": 1}).encode())

    async def Volumes(self, request: pb.Empty, context: Any) -> pb.Json:
        return pb.Json(json=json.dumps([{"Name": "data", "Mountpoint": "/somewhere"}]).encode())

    async def RemoveVolume(self, request: pb.VolumeRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b"{}")

    async def PruneVolumes(self, request: pb.PruneRequest, context: Any) -> pb.Json:
        self.asked.append(request)
        return pb.Json(json=b'{"removed":["anonymous1"]}')


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[tuple[ControllerProcess, Client, PlayedAgent]]:
    """A controller, one node `n1` whose agent is played here, and the service `web` with one replica on it."""
    with controller_process("--node-timeout", "5s") as controller:
        operator = controller.operator()
        node, agent = Node(controller, "n1"), PlayedAgent()
        server = aio.server()
        credentials = grpc.ssl_server_credentials(
            [(node.key, node.joined["certificate"].encode())], node.joined["ca"].encode(), require_client_auth=True
        )
        rpc.add_AgentServicer_to_server(agent, server)  # type: ignore[no-untyped-call, unused-ignore]
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        info = {**INFO, "address": f"127.0.0.1:{port}"}
        try:
            async with node.session(pb.Hello(node="n1", info=json.dumps(info).encode())):
                body = service_body("web")
                body["container"]["mounts"] = [{"type": "volume", "source": "data", "target": "/data"}]
                await asyncio.to_thread(operator.ok, "POST", "/v1/services", body)
                await asyncio.to_thread(eventually, lambda: operator.ok("GET", "/v1/services/web")["running"] == 1)
                yield controller, operator, agent
        finally:
            await server.stop(None)


@contextlib.asynccontextmanager
async def socket(controller: ControllerProcess, path: str, *, certificate: bool = True) -> AsyncIterator[Any]:
    context = controller.context()
    tls = ssl.create_default_context(cadata=context["ca"])
    if certificate:
        with tempfile.NamedTemporaryFile("w", prefix="shoal-test-", suffix=".pem") as file:
            file.write(context["certificate"] + context["key"])
            file.flush()
            tls.load_cert_chain(file.name)
    url = context["apis"][0].replace("https", "wss")
    async with connect(url + path, ssl=tls, compression=None, proxy=None) as found:
        yield found


async def test_everything_that_is_passed_on() -> None:
    async with cluster() as (controller, operator, agent):
        await _logs(operator, agent)
        await _exec(controller, agent)
        await _refused(controller)
        await _images(operator, agent)
        await _committed(operator, agent)
        await _built(operator, agent)
        await _exported(operator, agent)
        await _volumes(operator, agent)
        row = await asyncio.to_thread(operator.ok, "GET", "/v1/replicas/web.1")
        assert row["container"] == {"Id": "abc", "slot": 1}


async def _logs(operator: Client, agent: PlayedAgent) -> None:
    status, text = await asyncio.to_thread(operator.get, "/v1/replicas/web.1/logs?tail=7&since=5")
    assert status == 200
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(row["replica"], row["node"], row["at_ns"], row["stream"]) for row in rows] == [
        ("web.1", "n1", 1, "stdout"),
        ("web.1", "n1", 2, "stderr"),
    ]
    assert rows[0]["line"] == "hello\n"
    assert rows[1]["base64"] == "//4K"
    assert (agent.asked[-1].tail, agent.asked[-1].since_ms, agent.asked[-1].follow) == (7, 5, False)
    await asyncio.to_thread(_follow_one_line, operator)
    async with asyncio.timeout(20):
        await agent.following.wait()
        await agent.let_go.wait()
    assert agent.asked[-1].tail == -1


def _follow_one_line(operator: Client) -> None:
    """Reads a line of a followed log and goes away: the agent's stream must end with it."""
    with contextlib.closing(operator.connect()) as connection:
        connection.request("GET", "/v1/services/web/logs?follow=true")
        assert json.loads(connection.getresponse().readline())["line"] == "hello\n"


async def _exec(controller: ControllerProcess, agent: PlayedAgent) -> None:
    agent.let_go.clear()
    path = "/v1/replicas/web.1/exec?cmd=cat&cmd=-v&tty=true&stdin=true&user=nobody&env=A%3D1&rows=24&cols=80"
    async with socket(controller, path) as found:
        assert json.loads(await found.recv()) == {"started": True}
        await found.send(b"\0abc")
        assert await found.recv() == b"\x01ABC"
        await found.send(json.dumps({"resize": [30, 90]}))
        assert await found.recv() == b"\x0230x90"
        await found.send("nonsense")
        await found.send(json.dumps({"stdin_closed": True}))
        assert json.loads(await found.recv()) == {"exit_code": 3}
    start = agent.asked[-1]
    assert (list(start.command), start.tty, start.stdin, start.user) == (["cat", "-v"], True, True, "nobody")
    assert (list(start.env), start.size.rows, start.size.columns) == (["A=1"], 24, 80)
    agent.let_go.clear()
    async with socket(controller, "/v1/replicas/web.1/exec?cmd=cat") as found:
        await found.recv()
    async with asyncio.timeout(20):
        await agent.let_go.wait()
    async with socket(controller, "/v1/replicas/web.1/exec?cmd=missing") as found:
        assert "no such program" in json.loads(await found.recv())["error"]


async def _built(operator: Client, agent: PlayedAgent) -> None:
    context = bytes(range(256)) * 12_000
    args = base64.urlsafe_b64encode(b'{"A":"secret"}').decode()
    logins = base64.urlsafe_b64encode(b'{"one:5000":{"username":"ana","password":"x"}}').decode()

    async def build(query: str, body: bytes = context, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, text = await asyncio.to_thread(operator.request, "POST", f"/v1/build?{query}", body, **(headers or {}))
        return status, [json.loads(line) for line in text.splitlines()] if status == 200 else text["error"]["message"]

    query = "dockerfile=a/D&label=k%3Dv&label=e&no_cache=true&node=n1&name=web%3A1&base=nix&base=A"
    headers = {"X-Shoal-Build-Args": args, "X-Registry-Config": logins}
    status, rows = await build(query, headers=headers)
    done = {"id": "sha256:3", "digest": "sha256:4", "names": [], "size_bytes": 1}
    assert (status, rows) == (
        200, [{"node": "n1", "text": "step \u00fc\n"}, {"node": "n1", "text": "", "built": done}]
    )  # fmt: skip
    start = agent.asked[-1]
    assert (start.dockerfile, dict(start.labels), start.no_cache, start.pull) == ("a/D", {"k": "v", "e": ""}, True, False)
    assert (list(start.names), dict(start.args), start.auths["one:5000"].username) == (["web:1"], {"A": "secret"}, "ana")
    assert agent.archive == context
    assert (await build("target=failing"))[1][-1] == {
        "node": "n1", "text": "", "error": "make returned 7", "exit_code": 7
    }  # fmt: skip
    assert (await build("target=refused", context * 10))[1] == [
        {"node": "n1", "text": "", "error": "no such stage", "exit_code": 1}
    ]  # fmt: skip
    assert await build("node=nix", context * 10) == (404, "no node is called nix: see `shoal node ls`")
    assert (await build("name=A%20B"))[0] == (await build("", headers={"X-Shoal-Build-Args": "e30x"}))[0] == 400
    agent.following.clear()
    agent.let_go.clear()
    await asyncio.to_thread(_build_given_up, operator)
    async with asyncio.timeout(20):
        await agent.following.wait()
        await agent.let_go.wait()


def _build_given_up(operator: Client) -> None:
    with contextlib.closing(operator.connect()) as connection:
        connection.request("POST", "/v1/build?target=endless", b"context")
        assert json.loads(connection.getresponse().readline())["text"] == "step \u00fc\n"


async def _refused(controller: ControllerProcess) -> None:
    for path, status in (("web.9/exec?cmd=x", 404), ("web.1/exec", 400), ("web.1/exec?cmd=x&rows=a", 400)):
        with pytest.raises(InvalidStatus) as caught:
            async with socket(controller, f"/v1/replicas/{path}"):
                pass
        assert caught.value.response.status_code == status
        assert set(json.loads(caught.value.response.body or b"{}")) == {"error"}
    with pytest.raises(InvalidStatus) as caught:
        async with socket(controller, "/v1/replicas/web.1/exec?cmd=x", certificate=False):
            pass
    assert caught.value.response.status_code == 403


async def _images(operator: Client, agent: PlayedAgent) -> None:
    rows = await asyncio.to_thread(operator.ok, "GET", "/v1/images")
    assert [(row["node"], row["names"]) for row in rows] == [("n1", ["localhost:5000/a/b:1"]), ("n1", ["busybox:latest"])]
    (_, row) = await asyncio.to_thread(operator.ok, "GET", "/v1/images?merged=true&node=n1")
    assert (row["names"], row["nodes"]) == ({"busybox:latest": ["n1"]}, ["n1"])
    found = await asyncio.to_thread(operator.ok, "GET", "/v1/images/localhost:5000/a/b:1/json")
    assert found == {"Id": "sha256:1", "RepoTags": ["localhost:5000/a/b:1"], "Nodes": ["n1"]}
    rows = await asyncio.to_thread(operator.ok, "GET", "/v1/images/2/history")
    assert [(row["Id"], row.get("Tags")) for row in rows] == [("sha256:2", ["busybox:latest"]), ("<missing>", None)]
    _, text = await asyncio.to_thread(operator.request, "POST", "/v1/images/pull", {"reference": "busybox"})
    assert [json.loads(line)["text"] for line in text.splitlines()] == ["1/2 layers", "pulled"]
    _, text = await asyncio.to_thread(operator.request, "POST", "/v1/images/pull", {"reference": "gone"})
    assert "does not have it" in json.loads(text.splitlines()[-1])["error"]
    archive = bytes(range(256)) * 12_000
    (loaded,) = await asyncio.to_thread(operator.ok, "POST", "/v1/images/load?node=n1", archive)
    assert (loaded, agent.archive) == ({"node": "n1", "names": ["loaded:1"], "ids": []}, archive)
    _, text = await asyncio.to_thread(operator.get, "/v1/images/save?name=busybox&name=localhost:5000/a/b:1")
    assert text == "archive"
    assert [(row.id, list(row.names)) for row in agent.asked[-1].images] == [
        ("sha256:2", ["busybox:latest"]), ("sha256:1", ["localhost:5000/a/b:1"])
    ]  # fmt: skip
    assert (await asyncio.to_thread(operator.get, "/v1/images/save?name=nix"))[0] == 404
    await _named_and_pushed(operator, agent)
    rows = await asyncio.to_thread(operator.ok, "DELETE", "/v1/images/localhost:5000/a/b:1")
    assert agent.asked[-1].reference == "localhost:5000/a/b:1"
    assert [row.get("Untagged") or row["Deleted"] for row in rows] == ["localhost:5000/a/b:1", "sha256:1", "sha256:2"]
    status, answer = await asyncio.to_thread(operator.request, "DELETE", "/v1/images/localhost:5000/a/none:1")
    assert (status, answer["error"]["message"]) == (404, "No such image: localhost:5000/a/none:1")
    status, answer = await asyncio.to_thread(operator.request, "DELETE", "/v1/images/busybox?force=true")
    assert (status, "is being used by running container cccccccccccc" in answer["error"]["message"]) == (409, True)
    done = await asyncio.to_thread(operator.ok, "POST", "/v1/images/prune", {"all": True})
    assert done["reclaimed_bytes"] == 5 + 5
    assert [asked.reference for asked in agent.asked[-2:]] == ["localhost:5000/a/b:1", ""]


async def _committed(operator: Client, agent: PlayedAgent) -> None:
    body = {"name": "mine:1", "message": "hm", "changes": ["ENV A=1"]}
    done = await asyncio.to_thread(operator.ok, "POST", "/v1/replicas/web.1/commit", body)
    assert done == {"id": "sha256:8", "names": ["mine:1"], "node": "n1"}
    asked = agent.asked[-1]
    assert (asked.key.slot, asked.name, asked.message, asked.pause) == (1, "mine:1", "hm", True)
    assert list(asked.changes) == ["ENV A=1"]
    assert asked.created.endswith("Z")
    for path, name, status in (("web.9", "x", 404), ("web.1", "Upper", 400), ("web.1", f"x@sha256:{'1' * 64}", 400)):
        assert (await asyncio.to_thread(operator.request, "POST", f"/v1/replicas/{path}/commit", {"name": name}))[0] == status


async def _exported(operator: Client, agent: PlayedAgent) -> None:
    agent.exports = [b"a" * 70_000, b"b"]
    assert await asyncio.to_thread(operator.request, "GET", "/v1/replicas/web.1/export") == (200, "a" * 70_000 + "b")
    assert (agent.asked[-1].key.slot, operator.headers["content-type"]) == (1, "application/x-tar")
    agent.exports = []
    status, answer = await asyncio.to_thread(operator.request, "GET", "/v1/replicas/web.1/export")
    assert (status, answer["error"]["message"]) == (409, "node n1: web.1 has no container yet")
    assert (await asyncio.to_thread(operator.request, "GET", "/v1/replicas/web.9/export"))[0] == 404


async def _named_and_pushed(operator: Client, agent: PlayedAgent) -> None:
    done = await asyncio.to_thread(operator.ok, "POST", "/v1/images/2/tag", {"name": "linuxtips/apache"})
    assert done == {"id": "sha256:2", "name": "linuxtips/apache:latest", "nodes": ["n1"]}
    assert (agent.asked[-1].reference, agent.asked[-1].name) == ("sha256:2", "docker.io/linuxtips/apache:latest")
    status, answer = await asyncio.to_thread(operator.request, "POST", "/v1/images/busybox/tag", {"name": "Upper"})
    assert (status, "upper-case" in answer["error"]["message"]) == (400, True)
    _, text = await asyncio.to_thread(operator.request, "POST", "/v1/images/localhost:5000/a/b:1/push")
    assert "unauthorized" in json.loads(text.splitlines()[-1])["error"]
    login = base64.urlsafe_b64encode(b'{"username": "ana", "password": "right"}').decode()
    _, text = await asyncio.to_thread(_with_login, operator, "/v1/images/localhost:5000/a/b:1/push", login)
    rows = [json.loads(line) for line in text.splitlines()]
    assert (rows[0]["text"], rows[-1]["pushed"]) == ("1/1 layers", {"digest": "sha256:9"})
    assert (agent.asked[-1].auth.username, agent.asked[-1].auth.password) == ("ana", "right")
    path = "/v1/images/localhost:5000/a/b:1/remote"
    status, answer = await asyncio.to_thread(operator.request, "GET", path, None, **_login(login))
    assert (status, answer) == (200, {"node": "n1", "id": "sha256:1", "history": []})
    assert (agent.asked[-1].reference, agent.asked[-1].auth.username) == ("localhost:5000/a/b:1", "ana")
    status, answer = await asyncio.to_thread(operator.request, "POST", "/v1/images/2/push")
    told = "An image does not exist locally with the tag: 2"
    assert (status, answer["error"]["message"]) == (404, told)
    status, answer = await asyncio.to_thread(_with_login, operator, "/v1/images/busybox/push", "c2VjcmV0")
    assert (status, "secret" in answer["error"]["message"]) == (400, False)


def _with_login(operator: Client, path: str, login: str) -> tuple[int, Any]:
    return operator.request("POST", path, None, **_login(login))


def _login(login: str) -> dict[str, str]:
    return {"X-Registry-Auth": login}


async def _volumes(operator: Client, agent: PlayedAgent) -> None:
    row = await asyncio.to_thread(operator.ok, "GET", "/v1/volumes/data")
    assert (row["nodes"], row["in_use_by"], row["mountpoint"]) == (["n1"], ["web.1"], "/somewhere")
    status, answer = await asyncio.to_thread(operator.request, "DELETE", "/v1/volumes/data")
    assert (status, answer["error"]["code"]) == (409, "conflict")
    pruned = await asyncio.to_thread(operator.ok, "POST", "/v1/volumes/prune", {"all": True})
    assert pruned == {"removed": ["anonymous1"]}
    assert list(agent.asked[-1].keep) == ["data"]


async def test_a_killed_etcd_is_started_again_and_the_cluster_goes_on() -> None:
    with controller_process("--node-timeout", "3s") as controller:
        operator = controller.operator()
        node = Node(controller, "n1")
        async with node.session():
            await asyncio.to_thread(operator.ok, "POST", "/v1/services", service_body("before", replicas=2))
            await node.until(lambda: node.slots() == 2)
            _kill_etcd(controller)
            async with asyncio.timeout(15):
                while True:
                    status, _ = await asyncio.to_thread(operator.request, "POST", "/v1/services", service_body("after"))
                    if status in (200, 409):
                        break
                    assert status == 503
            await node.until(lambda: node.slots() == 3)


def _kill_etcd(controller: ControllerProcess) -> None:
    import os
    import signal

    pid = json.loads((controller.folder / "etcd" / "etcd.pid").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
