"""Nodes that fetch from each other: real stores, real agents' gRPC over mutual TLS, the leader's own books between them, and a
registry that counts. Root: layers are unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc import aio

from agent.core.clock import RealClock
from agent.core.holding import Holdings
from agent.core.peers import PeerBlobs
from agent.core.service import start_server
from agent.core.tls import NodePki
from agent.images.records import Image, PullProgress, RegistryConfig
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from controller.dispatch.sources import BlobSources
from controller.images_held import HeldImages
from model.errors import ImageError
from model.pki_names import node_server_name
from protos import node_pb2 as pb
from tests.contract.agent_support import WAIT_S, Agent, Keys
from tests.contract.images_server import FakeRegistry, MadeImage, fake_registry, make_image, make_index
from tests.root.test_images_store import docker_archive

pytestmark = pytest.mark.root
BIG = os.urandom(5_000_000)
SILENCE_S = 0.5
NAME = "shop/web:1"


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@dataclass
class Node:
    """`said`: progress of its last pull."""

    name: str
    store: ImageStore
    peers: PeerBlobs
    server: aio.Server
    address: str
    said: list[PullProgress] = field(default_factory=list)

    async def pull(self, name: str = NAME, digest: str = "") -> Image:
        self.said.clear()
        return await self.store.pull(name, digest=digest, progress=self.said.append)

    def of_peers(self) -> tuple[int, int]:
        return self.said[-1].layers_of_peers, self.said[-1].bytes_of_peers

    def spoil(self, top: Path, digest: str, *, length: int | None = None) -> None:
        """What it keeps by that digest is no longer that: another byte, or only its beginning."""
        file = top / self.name / "blobs" / "sha256" / digest.removeprefix("sha256:")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.chmod(0o600)
        file.write_bytes(data[:length])


class Cluster:
    """`mute`: the leader answers nobody."""

    def __init__(self, path: Path, keys: Keys, registry: FakeRegistry, stack: AsyncExitStack) -> None:
        self.path, self.keys, self.registry, self._stack = path, keys, registry, stack
        self.held = HeldImages(RealClock())
        self.sources = BlobSources(RealClock(), self.held, self._tell)
        self.nodes: dict[str, Node] = {}
        self.given: list[tuple[str, str]] = []
        self.mute = False

    def _tell(self, node: str, source: pb.BlobSource) -> None:
        if not self.mute:
            self.given.append((node, source.node or ("registry" if source.registry else "wait")))
            self.nodes[node].peers.take(source)

    async def add(self, name: str) -> Node:
        pair = self.keys.authority.issue(name, "node", [node_server_name(name)])
        pki = NodePki(self.keys.authority.pem, pair.certificate, pair.key)
        config = RegistryConfig(
            mirrors={"docker.io": (self.registry.endpoint,)}, platform="linux/amd64", backoff_s=0.001, attempts=2
        )
        peers = PeerBlobs(pki, RealClock(), answer_s=SILENCE_S, silence_s=SILENCE_S)
        store = ImageStore(self.path / name, config=config, peers=peers)
        self._stack.push_async_callback(store.close)
        self._stack.push_async_callback(peers.close)
        agent = Agent(self.path / f"{name}.data")
        agent.ports = type(agent.ports)(agent.runtime, store, agent.network, agent.ports.volumes, agent.data_dir)
        agent.runner.ports = agent.ports
        server, port = await start_server(agent.runner, pki, "127.0.0.1:0")
        self._stack.push_async_callback(server.stop, 0)
        node = self.nodes[name] = Node(name, store, peers, server, f"127.0.0.1:{port}")
        self.sources.came(name, node.address)
        for talk in (self._wants(node), self._holds(node)):
            task = asyncio.ensure_future(talk)
            self._stack.push_async_callback(_ended, task)
        async with asyncio.timeout(WAIT_S):
            while not peers.is_online:  # noqa: ASYNC110 - the task has begun then
                await asyncio.sleep(0)
        return node

    async def _wants(self, node: Node) -> None:
        async with contextlib.aclosing(node.peers.news()) as news:
            async for message in news:
                self.sources.take(node.name, message)

    async def _holds(self, node: Node) -> None:
        async with contextlib.aclosing(Holdings(node.store, RealClock()).news()) as news:
            async for message in news:
                self.held.take(node.name, message)

    async def knows(self, digest: str, *names: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.held.nodes_with(digest) != names:  # noqa: ASYNC110 - told by tasks of their own
                await asyncio.sleep(0.01)


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
async def cluster(tmp_path: Path, keys: Keys, registry: FakeRegistry) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        made = Cluster(tmp_path, keys, registry, stack)
        stack.callback(made.sources.clear)
        for name in ("n1", "n2", "n3"):
            await made.add(name)
        yield made
    remove_tree(tmp_path)


def web() -> MadeImage:
    return make_image({"base": BIG}, {"app": b"1"}, Cmd=["/app"])


def layers(image: MadeImage) -> list[str]:
    return [part["digest"] for part in json.loads(image.manifest)["layers"]]


async def test_three_nodes_cost_the_registry_one_copy(cluster: Cluster, registry: FakeRegistry) -> None:
    image = web()
    registry.put(NAME, image)
    registry.manifests["shop/web:1"] = index = make_index(("amd64", image))
    digest = await cluster.nodes["n1"].store.resolve(NAME)
    registry.manifests[f"shop/web@{digest}"] = index
    registry.requests.clear()
    found = await asyncio.gather(*(node.pull(digest=digest) for node in cluster.nodes.values()))
    assert {each.id for each in found} == {found[0].id}
    asked = [path.rpartition("/")[2] for _, path, _ in registry.requests]
    assert sorted(asked) == sorted({digest, image.digest, *image.blobs})
    assert sum(node.of_peers()[0] for node in cluster.nodes.values()) == 2 * len(layers(image))
    assert all((each.layers[0] / "base").stat().st_size == len(BIG) for each in found)
    for node in cluster.nodes.values():
        assert node.said[-1].bytes_done == node.said[-1].bytes_total


async def test_what_was_loaded_on_one_node_reaches_the_others_without_a_registry(cluster: Cluster) -> None:
    first, second, third = cluster.nodes.values()
    (loaded,) = await first.store.load(io.BytesIO(docker_archive(web(), NAME)))
    await cluster.knows(loaded.digest, "n1")
    assert cluster.held.digest_of(f"docker.io/{NAME}") == loaded.digest
    assert (await second.pull(digest=loaded.digest)).id == loaded.id
    await first.server.stop(0)
    cluster.sources.left("n1")
    assert (await third.pull(digest=loaded.digest)).id == loaded.id
    assert cluster.registry.requests == []


async def test_a_peer_that_lies_is_not_believed_nor_asked_again(cluster: Cluster, registry: FakeRegistry) -> None:
    image = web()
    registry.put(NAME, image)
    first, second, third = cluster.nodes.values()
    await first.pull(digest=image.digest)
    await cluster.knows(image.digest, "n1")
    first.spoil(cluster.path, layers(image)[0])
    registry.requests.clear()
    found = await second.pull(digest=image.digest)
    assert (found.layers[0] / "base").read_bytes() == BIG
    assert [path.rpartition("/")[2] for _, path, _ in registry.requests] == [layers(image)[0]]
    assert second.said[-1].bytes_done == second.said[-1].bytes_total
    cluster.given.clear()
    await third.pull(digest=image.digest)
    assert ("n3", "n2") in cluster.given
    assert len(registry.requests) == 1


async def test_what_breaks_off_goes_on_with_another_peer(cluster: Cluster, registry: FakeRegistry) -> None:
    image = web()
    registry.put(NAME, image)
    first, second, third = cluster.nodes.values()
    for node in (first, second):
        await node.pull(digest=image.digest)
    await cluster.knows(image.digest, "n1", "n2")
    big = layers(image)[0]
    file = cluster.path / "n1" / "blobs" / "sha256" / big.removeprefix("sha256:")
    file.chmod(0o600)
    os.truncate(file, 3_000_000)
    registry.requests.clear()
    await third.pull(digest=image.digest)
    assert registry.requests == []
    assert third.of_peers() == (2, sum(len(image.blobs[digest]) for digest in layers(image)))


async def test_a_dead_peer_costs_its_timeout_only(cluster: Cluster, registry: FakeRegistry) -> None:
    """Its machine answers no more, and nobody has seen that yet."""
    image = web()
    registry.put(NAME, image)
    first, second, _ = cluster.nodes.values()
    await first.pull(digest=image.digest)
    await cluster.knows(image.digest, "n1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster.sources.came("n1", f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        await second.pull(digest=image.digest)
        assert time.monotonic() - began < 4 * SILENCE_S + 3
    assert second.of_peers() == (0, 0)
    assert len([path for _, path, _ in registry.requests if path.endswith(layers(image)[0])]) == 2


async def test_a_node_that_reaches_nobody_stops_asking_for_a_while(cluster: Cluster, registry: FakeRegistry) -> None:
    image = make_image(*({f"file{number}": os.urandom(100)} for number in range(6)))
    registry.put(NAME, image)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    for name in ("x1", "x2", "x3", "x4", "x5"):
        cluster.sources.came(name, address)
        told = pb.HeldImage(id="i", blobs=[image.digest, *image.blobs])
        cluster.held.take(name, pb.ImagesHeld(whole=True, images=[told]))
    await cluster.nodes["n1"].pull(digest=image.digest)
    assert len([source for node, source in cluster.given if node == "n1" and source.startswith("x")]) <= 6
    assert not cluster.nodes["n1"].peers.asks()
    assert cluster.nodes["n2"].peers.asks()


async def test_without_an_answer_the_registry_is_asked(cluster: Cluster, registry: FakeRegistry) -> None:
    image = make_image(*({f"app{number}": b"2"} for number in range(9)))
    registry.put(NAME, image)
    cluster.mute = True
    began = time.monotonic()
    await cluster.nodes["n1"].pull(digest=image.digest)
    assert time.monotonic() - began < 3 * SILENCE_S + 3
    await cluster.nodes["n2"].peers.close()  # no session
    began = time.monotonic()
    await cluster.nodes["n2"].pull(digest=image.digest)
    assert time.monotonic() - began < SILENCE_S + 3


async def test_what_is_nowhere_is_one_error_everywhere(cluster: Cluster) -> None:
    found = await asyncio.gather(
        *(node.pull(digest=f"sha256:{'0' * 64}") for node in cluster.nodes.values()), return_exceptions=True
    )
    assert [str(each).split(" not found at")[0] for each in found] == [f"image {NAME}@sha256:{'0' * 64}"] * 3


async def test_what_is_being_given_is_not_deleted(cluster: Cluster) -> None:
    store = cluster.nodes["n1"].store
    (loaded,) = await store.load(io.BytesIO(docker_archive(make_image({"base": BIG}), NAME)))
    big = next(digest for digest in store.held()[0].blobs if store.blob_path(digest).exists() and digest != loaded.digest)
    size = store.blob_path(big).stat().st_size
    async with contextlib.aclosing(store.blob(big)) as pieces:  # type: ignore[type-var]
        read = len(await anext(pieces))
        await store.remove(NAME)
        assert store.blob_path(big).exists()
        read += sum([len(piece) async for piece in pieces])
    assert read == size
    await store.collect()
    assert not store.blob_path(big).exists()
    with pytest.raises(ImageError, match="not on this node"):
        await anext(store.blob(big))
