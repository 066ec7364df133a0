"""Pushing to Debian's docker-registry, with skopeo as the witness: what comes out is what went in. Root: it unpacks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme
from backports import zstd

from agent.images.errors import ImageNotFound, RegistryRefused, RegistryUnavailable
from agent.images.records import Credentials, PushProgress, RegistryConfig
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from tests.contract.images_server import OCI_MANIFEST, MadeImage, digest_of, make_image
from tests.contract.registry_process import PASSWORD, USER, Registry, registry_process
from tests.root.test_images_store import docker_archive, oci_files

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="Debian's docker-registry is not installed"),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
]
IMAGE = make_image({"base": os.urandom(400_000)}, {"app": b"1"}, {"end": b"2"}, Cmd=["/app"])
LAYERS = [layer["digest"] for layer in json.loads(IMAGE.manifest)["layers"]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_process(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_process(tmp_path_factory.mktemp("secured"), secured=True) as running:
        yield running


@pytest.fixture
async def store(tmp_path: Path, secured: Registry) -> AsyncIterator[ImageStore]:
    assert secured.ca_file is not None
    config = RegistryConfig(
        ca_files={secured.endpoint: secured.ca_file}, platform="linux/amd64", backoff_s=0.001, attempts=2, timeout_s=20
    )
    made = ImageStore(tmp_path / "store", config=config)
    yield made
    await made.close()
    remove_tree(tmp_path / "store")


def layout(image: MadeImage, directory: Path) -> str:
    """As skopeo's source."""
    files = oci_files(image, "x")
    index = json.loads(files["index.json"])
    index["manifests"][0]["mediaType"] = OCI_MANIFEST
    files["index.json"] = json.dumps(index).encode()
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return f"oci:{directory}:x"


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_what_skopeo_pushed_is_pushed_on_with_equal_digests(
    form: str, store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    source, target = f"from/{form}:1", f"to/{form}:2"
    await asyncio.to_thread(registry.give, layout(IMAGE, tmp_path / "layout"), source, f"--format={form}")
    pulled = await store.pull(f"{registry.endpoint}/{source}")
    assert form != "oci" or pulled.digest == IMAGE.digest
    await store.tag(f"{registry.endpoint}/{source}", f"{registry.endpoint}/{target}")
    pushed = await store.push(f"{registry.endpoint}/{target}")
    assert pushed.digest == pulled.digest
    assert {state for _, state in pushed.layers} == {"mounted"}
    raw, before = await asyncio.to_thread(registry.raw, target), await asyncio.to_thread(registry.raw, source)
    assert raw == before
    assert digest_of(raw) == pushed.digest
    files = await asyncio.to_thread(registry.fetch, target, tmp_path / "copy")
    parts = [json.loads(raw)["config"], *json.loads(raw)["layers"]]
    assert {part["digest"] for part in parts} == {f"sha256:{name}" for name in files if len(name) == 64}
    assert all(digest_of(files[part["digest"].removeprefix("sha256:")]) == part["digest"] for part in parts)
    assert files["manifest.json"] == raw
    assert pushed.size_bytes == sum(part["size"] for part in parts)


async def test_what_was_loaded_is_pushed_and_what_is_there_is_not_sent_again(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.endpoint}/loaded/web:1"
    image = (await store.load(io.BytesIO(docker_archive(IMAGE, name))))[0]
    seen: list[PushProgress] = []
    pushed = await store.push(name, progress=seen.append)
    assert (pushed.digest, [state for _, state in pushed.layers]) == (image.digest, ["pushed"] * 3)
    assert (seen[-1].ref, seen[-1].layers_done, seen[-1].bytes_done) == (name, 3, seen[-1].bytes_total)
    files = await asyncio.to_thread(registry.fetch, "loaded/web:1", tmp_path / "copy")
    assert digest_of(files["manifest.json"]) == image.digest
    assert files[image.id.removeprefix("sha256:")] == IMAGE.config
    again = await store.push(name)
    assert (again.digest, [state for _, state in again.layers]) == (image.digest, ["exists"] * 3)
    by_digest = f"{registry.endpoint}/loaded/web@{image.digest}"
    assert (await store.push(by_digest)).digest == image.digest
    other = f"{registry.endpoint}/loaded/elsewhere"
    await store.tag(image.id, other)
    assert [state for _, state in (await store.push(other)).layers] == ["mounted"] * 3
    await store.remove(image.id)
    assert (await store.pull(by_digest)).id == image.id


async def test_zstd_layers_and_layers_twice(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    twice = make_image({"same": b"s"}, {"other": b"o"}, {"same": b"s"})
    document = json.loads(twice.manifest)
    for part, tar in zip(document["layers"], twice.tars, strict=True):
        data = zstd.compress(tar)
        twice.blobs[digest_of(data)] = data
        part |= {"digest": digest_of(data), "size": len(data), "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}
    twice.manifest = json.dumps(document).encode()
    await asyncio.to_thread(registry.give, layout(twice, tmp_path / "layout"), "zstd/from:1", "--preserve-digests")
    name = f"{registry.endpoint}/zstd/to:1"
    await store.pull(f"{registry.endpoint}/zstd/from:1")
    await store.tag(f"{registry.endpoint}/zstd/from:1", name)
    assert len((await store.push(name)).layers) == 3
    assert await asyncio.to_thread(registry.raw, "zstd/to:1") == twice.manifest


async def test_a_big_layer_goes_in_parts(
    store: ImageStore, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.images.push._CHUNK_BYTES", 100_000)
    name = f"{registry.endpoint}/parts/web:1"
    await store.load(io.BytesIO(docker_archive(IMAGE, name)))
    seen: list[PushProgress] = []
    await store.push(name, progress=seen.append)
    assert digest_of(await asyncio.to_thread(registry.raw, "parts/web:1")) == store.list()[0].digest
    files = await asyncio.to_thread(registry.fetch, "parts/web:1", tmp_path / "copy")
    assert all(digest_of(data) == f"sha256:{file}" for file, data in files.items() if len(file) == 64)


async def test_another_storage_of_the_registry_is_a_variable_away(store: ImageStore, tmp_path: Path) -> None:
    with registry_process(tmp_path / "other", REGISTRY_STORAGE="inmemory") as registry:
        name = f"{registry.endpoint}/kept/web:1"
        await store.load(io.BytesIO(docker_archive(IMAGE, name)))
        pushed = await store.push(name)
        files = await asyncio.to_thread(registry.fetch, "kept/web:1", tmp_path / "copy")
        assert digest_of(files["manifest.json"]) == pushed.digest
        assert not list((registry.directory / "data").rglob("*")), "nothing of it is in a file"


async def test_passwords_and_tls(store: ImageStore, secured: Registry, tmp_path: Path) -> None:
    name = f"{secured.endpoint}/private/web:1"
    await store.load(io.BytesIO(docker_archive(IMAGE, name)))
    with pytest.raises(RegistryRefused, match=rf"^registry {secured.endpoint} refuses {name}: unauthorized .*the name right"):
        await store.push(name)
    with pytest.raises(RegistryRefused, match=r"unauthorized \(are the credentials right\? else `shoal"):
        await store.push(name, auth=Credentials(USER, "wrong"))
    pushed = await store.push(name, auth=Credentials(USER, PASSWORD))
    assert digest_of(await asyncio.to_thread(secured.raw, "private/web:1")) == pushed.digest
    await asyncio.to_thread(secured.give, layout(IMAGE, tmp_path / "layout"), "private/theirs:1")
    theirs = f"{secured.endpoint}/private/theirs:1"
    with pytest.raises(RegistryRefused, match="unauthorized"):
        await store.pull(theirs)
    assert (await store.pull(theirs, auth=Credentials(USER, PASSWORD))).digest == IMAGE.digest
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    other_ca = RegistryConfig(ca_files={secured.endpoint: tmp_path / "other.pem"})
    stranger = ImageStore(tmp_path / "stranger", config=other_ca)
    try:
        await stranger.load(io.BytesIO(docker_archive(make_image({"f": b"x"}), name)))
        with pytest.raises(RegistryRefused, match="TLS failed"):
            await stranger.push(name, auth=Credentials(USER, PASSWORD))
    finally:
        await stranger.close()
        remove_tree(tmp_path / "stranger")


async def test_what_cannot_be_pushed_says_why_in_one_line(store: ImageStore, tmp_path: Path) -> None:
    with registry_process(tmp_path / "fixed", read_only=True) as fixed:
        name = f"{fixed.endpoint}/web:1"
        await store.load(io.BytesIO(docker_archive(make_image({"f": b"x"}), name, "127.0.0.1:1/web:1")))
        with pytest.raises(RegistryRefused, match=rf"^registry {fixed.endpoint} is read-only: {name} cannot be pushed there"):
            await store.push(name)
    with pytest.raises(RegistryUnavailable, match=r"push to registry 127.0.0.1:1: Connection refused \(2 attempts\)$"):
        await store.push("127.0.0.1:1/web:1")
    with pytest.raises(ImageNotFound, match="is not on this node"):
        await store.push(f"{fixed.endpoint}/web:2")


async def test_a_push_over_a_bad_line_arrives(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay in between loses the connection twice, in the middle of a part."""
    monkeypatch.setattr("agent.images.push._CHUNK_BYTES", 100_000)
    store = ImageStore(tmp_path / "store", config=RegistryConfig(platform="linux/amd64", backoff_s=0.001, timeout_s=20))
    losses = iter([150_000, 30_000])
    async with bad_line(registry, losses) as endpoint:
        ref = f"{endpoint}/bad/line:1"
        image = (await store.load(io.BytesIO(docker_archive(IMAGE, ref))))[0]
        assert (await store.push(ref)).digest == image.digest
        await store.close()
    remove_tree(tmp_path / "store")
    assert next(losses, None) is None
    files = await asyncio.to_thread(registry.fetch, "bad/line:1", tmp_path / "copy")
    assert digest_of(files["manifest.json"]) == image.digest
    assert all(digest_of(data) == f"sha256:{name}" for name, data in files.items() if len(name) == 64)


@contextlib.asynccontextmanager
async def bad_line(registry: Registry, losses: Iterator[int]) -> AsyncIterator[str]:
    """Where connections to the registry are lost after that many bytes each; the later ones are good."""
    host, _, port = registry.endpoint.partition(":")
    running: set[asyncio.Task[None] | None] = set()
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        writers.extend((writer, up_writer))
        answers = asyncio.create_task(copy(up_reader, writer, 1 << 40))
        await copy(reader, up_writer, next(losses, 1 << 40))
        for end in (writer, up_writer):
            end.close()
        await answers

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int) -> None:
        with contextlib.suppress(ConnectionError):
            while left > 0 and (piece := await source.read(min(left, 65536))):
                left -= len(piece)
                target.write(piece)
                await target.drain()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for end in writers:
            end.close()
        await asyncio.gather(*(task for task in running if task is not None))
        for end in writers:
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()
