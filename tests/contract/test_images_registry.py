"""The registry client and the push client against Debian's docker-registry."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.images.calls import Calls
from agent.images.errors import ImageNotFound
from agent.images.records import RegistryConfig
from agent.images.registry import RegistryClient
from deploy.images.debs import FileEntry
from deploy.images.layout import make_layer, write_layout
from lab.push import push_layout
from lab.registry import LabRegistry, RegistryFailed
from model.image_ref import parse_image_ref

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="Debian's docker-registry is not installed"),
]


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LabRegistry]:
    running = LabRegistry(tmp_path / "registry")
    await running.start()
    yield running
    await running.stop()


def layout(directory: Path, name: str, text: bytes = b"hello") -> Path:
    base = make_layer([FileEntry("etc/base", "file", 0o644, data=os.urandom(1000))], "base")
    top = make_layer([FileEntry("etc/text", "file", 0o644, data=text)], "top")
    write_layout(directory, name, [base, top], {"Cmd": ["sh"]}, "amd64")
    return directory


async def test_what_is_pushed_can_be_pulled(registry: LabRegistry, tmp_path: Path) -> None:
    path = layout(tmp_path / "image", "shop/web:1")
    first = await registry.push_layout(path, "shop/web:1")
    again = await registry.push_layout(path, "shop/web:1")
    other = await registry.push_layout(path, "shop/web:2")
    assert (first.exists, first.blobs_sent) == (False, 3)
    assert (again.exists, again.blobs_sent) == (True, 0)
    assert (other.exists, other.blobs_sent) == (False, 0)
    client = RegistryClient(RegistryConfig(mirrors={"docker.io": (registry.endpoint,)}, platform="linux/amd64"))
    try:
        ref = parse_image_ref("shop/web:2")
        found = await asyncio.to_thread(client.resolve, ref)
        endpoint, manifest, raw = found.endpoint, found.manifest, found.documents.raw
        assert (endpoint, manifest.digest) == (registry.endpoint, first.digest)
        assert json.loads(raw)["schemaVersion"] == 2
        for blob in (manifest.config, *manifest.layers):
            got = await asyncio.to_thread(client.blob_bytes, endpoint, ref, blob)
            assert len(got) == blob.size_bytes
        pinned = await asyncio.to_thread(client.resolve, parse_image_ref(f"shop/web@{first.digest}"))
        assert pinned.manifest == manifest
        with pytest.raises(ImageNotFound, match=f"image shop/web:3 not found at registry {registry.endpoint}"):
            await asyncio.to_thread(client.resolve, parse_image_ref("shop/web:3"))
        with pytest.raises(ImageNotFound, match="image nobody:latest not found"):
            await asyncio.to_thread(client.resolve, parse_image_ref("nobody"))
    finally:
        client.close()


async def test_a_broken_blob_goes_on_where_it_stopped(registry: LabRegistry, tmp_path: Path) -> None:
    """A relay in between cuts each connection after 100 kB."""
    data = os.urandom(700_000)
    write_layout(tmp_path / "i", "x:1", [make_layer([FileEntry("f", "file", 0o644, data=data)], "")], {}, "amd64")
    await registry.push_layout(tmp_path / "i", "x:1")
    links: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(registry.host, registry.port)
        links.append(1)
        asked = asyncio.ensure_future(copy(reader, up_writer, 1 << 40))
        await copy(up_reader, writer, 100_000)
        asked.cancel()
        for end in (writer, up_writer):
            end.close()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (piece := await source.read(min(left, 65536))):
            left -= len(piece)
            target.write(piece)
            await target.drain()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = RegistryClient(RegistryConfig(backoff_s=0.001, platform="linux/amd64", timeout_s=5))
    try:
        ref = parse_image_ref(f"127.0.0.1:{port}/library/x:1")
        layer = (await asyncio.to_thread(client.resolve, ref)).manifest.layers[0]
        got = await asyncio.to_thread(client.blob_bytes, ref.registry, ref, layer)
        assert len(got) == layer.size_bytes
        assert len(links) >= 7
    finally:
        client.close()
        server.close()


async def test_a_killed_registry_is_started_again_and_stop_ends_it(tmp_path: Path) -> None:
    registry = LabRegistry(tmp_path / "registry")
    await registry.start()
    try:
        path = layout(tmp_path / "image", "x:1")
        await registry.push_layout(path, "x:1")
        first = registry.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(15):
            while not await asyncio.to_thread(answers, registry):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        second = registry.pid
        assert second not in (None, first)
        assert (await registry.push_layout(path, "x:1")).exists
    finally:
        await registry.stop()
    assert registry.pid is None
    assert not await asyncio.to_thread(answers, registry)


def answers(registry: LabRegistry) -> bool:
    connection = http.client.HTTPConnection(registry.host, registry.port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RegistryFailed, match=rf"127.0.0.1:{port}"):
            await LabRegistry(tmp_path / "registry", port=port).start()


async def test_a_stopped_registry_makes_one_clear_error(tmp_path: Path) -> None:
    path = layout(tmp_path / "image", "x:1")
    calls = Calls(RegistryConfig(backoff_s=0.001))
    with pytest.raises(Exception, match=r"^image x:1 cannot be pushed to registry 127.0.0.1:1: .*refused"):
        await asyncio.to_thread(push_layout, calls, "127.0.0.1:1", path, "x:1")
