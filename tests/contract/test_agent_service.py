"""The agent's gRPC service over real mutual TLS: who gets in, and every call once."""

from __future__ import annotations

import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from agent.core.service import start_server
from agent.core.tls import NodePki
from agent.core.wire import desired_message
from agent.plan.container import LogLine
from agent.plan.desired import merge
from agent.plan.records import WantedVolume
from model.pki_names import node_server_name
from model.spec import RestartPolicy, ServiceSpec
from protos import node_pb2 as pb
from protos import node_pb2_grpc
from tests.contract.agent_support import Agent, Keys, desired, web

pytestmark = pytest.mark.contract
KEY = pb.ReplicaKey(service_id="s1", slot=1, created_ms=7)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@asynccontextmanager
async def stub_of(port: int, pki: NodePki) -> AsyncIterator[Any]:
    options = [("grpc.ssl_target_name_override", node_server_name("n1"))]
    async with aio.secure_channel(f"127.0.0.1:{port}", pki.client(), options=options) as channel:
        yield node_pb2_grpc.AgentStub(channel)


@asynccontextmanager
async def serving(
    path: Path, keys: Keys, who: NodePki | None = None, spec: ServiceSpec | None = None
) -> AsyncIterator[tuple[Agent, Any]]:
    agent = Agent(path)
    async with agent.on():
        server, port = await start_server(agent.runner, keys.node, "127.0.0.1:0")
        try:
            agent.runner.desire(merge(agent.core.desired, desired_message(desired(1, 1, spec or web()).desired)))
            await agent.reached(lambda: agent.runtime.running() == 1)
            async with stub_of(port, who or keys.controller) as stub:
                yield agent, stub
        finally:
            await server.stop(0)


@pytest.mark.parametrize("who", ["node", "operator"])
async def test_only_controllers_get_in(tmp_path: Path, keys: Keys, who: str) -> None:
    async with serving(tmp_path, keys, getattr(keys, who)) as (_, stub):
        for method in pb.DESCRIPTOR.services_by_name["Agent"].methods:
            if (method.name, who) == ("Blob", "node"):
                continue
            request = [] if method.client_streaming else [getattr(pb, method.input_type.name)()]
            answer = getattr(stub, method.name)(*request)
            with pytest.raises(aio.AioRpcError, match="only controllers") as caught:
                await (answer.read() if method.server_streaming else answer)
            assert (method.name, caught.value.code()) == (method.name, grpc.StatusCode.PERMISSION_DENIED)


async def test_a_node_may_read_blobs_and_nothing_else(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys, keys.node) as (_, stub):
        assert [chunk.data async for chunk in stub.Blob(pb.BlobRequest(digest="sha256:2", offset=4))] == [b"fest"]
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.Blob(pb.BlobRequest(digest="sha256:3")).read()
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(aio.AioRpcError, match="only controllers"):
            await stub.SaveImages(pb.SaveRequest()).read()
    async with serving(tmp_path / "operator", keys, keys.operator) as (_, stub):
        with pytest.raises(aio.AioRpcError, match="only controllers"):
            await stub.Blob(pb.BlobRequest(digest="sha256:2")).read()


async def test_a_stranger_does_not_get_a_connection(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys, Keys.make().controller) as (_, stub):
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.Images(pb.Empty(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_inspect_has_the_shape_of_docker(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        await agent.reached(lambda: agent.core.statuses()[0].state == "running")
        found = json.loads((await stub.Inspect(pb.ContainerRequest(key=KEY))).json)
        assert (found["Name"], found["State"]["Status"], found["State"]["Pid"]) == ("/shop_web.1", "running", 4242)
        assert found["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"].startswith("10.0.1.")
        assert (found["Config"]["Image"], found["Path"]) == ("web:1", "serve")


async def test_a_node_without_a_builder_says_so(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (_, stub):
        messages = [pb.BuildInput(start=pb.BuildStart()), *[pb.BuildInput(context=bytes(60_000))] * 200]
        with pytest.raises(aio.AioRpcError, match="this node builds no images: install buildah") as caught:
            await stub.Build(iter(messages)).read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_commit_is_of_the_container_that_is_there(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        await agent.reached(lambda: agent.core.statuses()[0].state == "running")
        found = json.loads((await stub.CommitContainer(pb.CommitRequest(key=KEY, name="mine:1", changes=["ENV A=1"]))).json)
        assert found == {"id": "sha256:8", "names": ["mine:1"]}
        with pytest.raises(aio.AioRpcError, match="RUN is not taken here") as caught:
            await stub.CommitContainer(pb.CommitRequest(key=KEY, changes=["RUN make"]))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        agent.runtime.containers.clear()
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.CommitContainer(pb.CommitRequest(key=KEY))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_an_export_that_is_refused_says_why(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (_, stub):
        with pytest.raises(aio.AioRpcError, match="its files are not at hand on this node") as caught:
            await stub.Export(pb.ContainerRequest(key=KEY)).read()
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_what_is_not_there_is_not_found(tmp_path: Path, keys: Keys) -> None:
    other = pb.ReplicaKey(service_id="s1", slot=2)
    async with serving(tmp_path, keys) as (_, stub):
        with pytest.raises(aio.AioRpcError, match=r"replica s1\.2 is not on node n1") as caught:
            await stub.Inspect(pb.ContainerRequest(key=other))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.RemoveImage(pb.ImageRequest(reference="x"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_logs(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        agent.runtime.lines = [LogLine(number, "stdout", b"line %d\n" % number) for number in range(5)]
        lines = [line.line async for line in stub.Logs(pb.LogsRequest(key=KEY, tail=2))]
        assert lines == [b"line 3\n", b"line 4\n"]


@pytest.mark.parametrize("call", ["Exec", "Attach"])
async def test_a_process_is_joined_with_its_caller(tmp_path: Path, keys: Keys, call: str) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        await agent.reached(lambda: agent.core.statuses()[0].state == "running")
        stream = getattr(stub, call)()
        await stream.write(_start())
        assert (await stream.read()).started
        await stream.write(pb.ExecInput(stdin=b"hello"))
        assert (await stream.read()).stdout == b"hello"
        await stream.write(pb.ExecInput(signal=9))
        assert (await stream.read()).exit_code == 137
        assert await stream.read() == aio.EOF
        assert agent.runtime.sessions[0].closed


async def test_a_process_that_ended_before_it_could_be_joined_gives_its_output_and_code(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys, spec=web(RestartPolicy("none"))) as (agent, stub):
        agent.runtime.lines = [LogLine(1, "stdout", b"out\n"), LogLine(2, "stderr", b"err\n")]
        (container_id,) = agent.runtime.containers
        agent.runtime.end(container_id, 5)
        await agent.reached(lambda: agent.core.statuses()[0].state == "failed")
        stream = stub.Attach()
        await stream.write(_start())
        found = [output async for output in stream]
        assert [output.WhichOneof("kind") for output in found] == ["started", "stdout", "stderr", "exit_code"]
        assert (found[1].stdout, found[2].stderr, found[3].exit_code) == (b"out\n", b"err\n", 5)


async def test_a_caller_that_goes_away_ends_its_exec(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        await agent.reached(lambda: agent.core.statuses()[0].state == "running")
        stream = stub.Exec()
        await stream.write(_start())
        await stream.read()
        stream.cancel()
        (session,) = agent.runtime.sessions
        await session.ended.wait()


async def test_images(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (_, stub):
        assert json.loads((await stub.Images(pb.Empty())).json)[0]["names"] == ["web:1"]
        progress = [item async for item in stub.PullImage(pb.ImageRequest(reference="db:1"))]
        assert json.loads(progress[-1].result)["names"] == ["db:1"]
        assert (progress[-1].text, json.loads(progress[-1].result)["current"]) == ("pulled db:1", False)
        found = json.loads((await stub.InspectImage(pb.ImageRequest(reference="db:1"))).json)
        assert (found["inspect"]["RepoTags"], found["inspect"]["Config"]["Cmd"], found["history"]) == (["db:1"], ["serve"], [])
        tagged = await stub.TagImage(pb.TagRequest(reference="db:1", name="localhost:5000/db:1"))
        assert json.loads(tagged.json)["names"] == ["localhost:5000/db:1"]
        (pushed,) = [item async for item in stub.PushImage(pb.ImageRequest(reference="localhost:5000/db:1"))]
        assert [row["state"] for row in json.loads(pushed.result)["layers"]] == ["pushed", "exists"]
        with pytest.raises(aio.AioRpcError, match="is in no registry"):
            await stub.PullImage(pb.ImageRequest(reference="missing:1")).read()
        loaded = await stub.LoadImage(iter([pb.Chunk(data=b"arch"), pb.Chunk(data=b"ive")]))
        assert json.loads(loaded.json)["names"] == ["web:1"]
        assert not list(tmp_path.glob(".load-*"))


async def test_an_archive_that_the_disk_does_not_take_is_refused_in_words(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (_, stub):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            with pytest.raises(aio.AioRpcError, match=rf"image load: cannot write below {tmp_path}\S*: File too large"):
                await stub.LoadImage(iter([pb.Chunk(data=bytes(60_000))] * 200))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.glob(".load-*"))


async def test_volumes(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        agent.ports.volumes.ensure(WantedVolume("data"))
        assert [row["Name"] for row in json.loads((await stub.Volumes(pb.Empty())).json)] == ["data"]
        await stub.RemoveVolume(pb.VolumeRequest(name="data"))
        agent.ports.volumes.ensure(WantedVolume("other"))
        assert json.loads((await stub.PruneVolumes(pb.PruneRequest(all=True))).json) == {"removed": ["other"]}


async def test_stats(tmp_path: Path, keys: Keys) -> None:
    async with serving(tmp_path, keys) as (agent, stub):
        await agent.reached(lambda: agent.core.statuses()[0].state == "running")
        (row,) = json.loads((await stub.Stats(pb.Empty())).json)["replicas"]
        assert (row["name"], row["cpu_s"], row["memory_bytes"]) == ("shop_web.1", 2.0, 3)


def _start() -> pb.ExecInput:
    return pb.ExecInput(start=pb.ExecStart(key=KEY, command=["sh"], stdin=True))
