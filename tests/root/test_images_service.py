"""What the agent says and does of images, over the real store and a registry. Root: layers are unpacked."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.images_service import ImagesService
from agent.core.ports import Ports
from agent.images.errors import ImageNotFound, RegistryRefused
from agent.images.trees import remove_tree
from agent.network.memory import MemoryNetwork
from agent.volumes.store import VolumeStore
from model.errors import Conflict, NotFound
from protos import node_pb2 as pb
from tests.contract.agent_support import PretendRuntime
from tests.contract.images_server import FakeRegistry, digest_of, fake_registry, make_image
from tests.root.test_images_store import Stores

pytestmark = pytest.mark.root
BASE, TOP = {"base": os.urandom(50_000)}, {"app": b"1"}
APACHE = make_image(BASE, TOP, Cmd=["/app"])
OTHER = make_image(BASE, {"other": b"2"}, Cmd=["/other"])
CHAIN = digest_of(f"{digest_of(APACHE.tars[0])} {digest_of(APACHE.tars[1])}".encode())


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[ImagesService]:
    stores = Stores(tmp_path, registry)
    ports = Ports(PretendRuntime(), stores.new("images"), MemoryNetwork(), VolumeStore(tmp_path / "volumes", dict), tmp_path)
    yield ImagesService(ports, tuple)
    for store in stores.open:
        await store.close()
    remove_tree(tmp_path)


async def pulled(service: ImagesService, name: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async for progress in service.pull(pb.ImageRequest(reference=name, **more)):
        found = json.loads(progress.result) if progress.result else {}
    return found


async def test_a_pull_says_which_layers_were_there(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    registry.put("linuxtips/other:1.0", OTHER)
    first = await pulled(service, "linuxtips/apache:1.0")
    assert (first["current"], [layer["existed"] for layer in first["layers"]]) == (False, [False, False])
    assert [layer["id"] for layer in first["layers"]] == [part["digest"] for part in json.loads(APACHE.manifest)["layers"]]
    assert first["digests"] == {"linuxtips/apache:1.0": APACHE.digest}
    second = await pulled(service, "linuxtips/other:1.0")
    assert [layer["existed"] for layer in second["layers"]] == [True, False]
    blobs = registry.count("/blobs/")
    assert (await pulled(service, "linuxtips/apache:1.0"))["current"]
    assert registry.count("/blobs/") == blobs


async def test_credentials_of_the_call_open_a_private_registry(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("private/apache:1.0", APACHE)
    registry.faults.basic = "ana:right"
    name = f"{registry.endpoint}/private/apache:1.0"
    with pytest.raises(RegistryRefused, match="unauthorized"):
        await pulled(service, name)
    found = await pulled(service, name, auth=pb.RegistryAuth(username="ana", password="right"))
    assert found["names"] == [name]


async def test_inspect_and_history_are_of_the_images_own_words(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    row = await pulled(service, "linuxtips/apache:1.0")
    found = service.inspect(pb.ImageRequest(reference=row["id"]))
    assert found["inspect"]["Created"] == "2024-01-02T03:04:05Z"
    assert found["inspect"]["RepoDigests"] == [f"linuxtips/apache@{APACHE.digest}"]
    assert found["inspect"]["RootFS"]["Layers"] == [digest_of(tar) for tar in APACHE.tars]
    top, base = found["history"]
    assert (top["Size"] < 50_000 <= base["Size"], top["Size"] + base["Size"]) == (True, row["size_bytes"])


async def test_history_of_what_a_registry_has_pulls_nothing(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    registry.faults.basic = "ana:right"
    name = f"{registry.endpoint}/linuxtips/apache:1.0"
    with pytest.raises(RegistryRefused, match="unauthorized"):
        await service.remote(pb.ImageRequest(reference=name))
    registry.requests.clear()
    found = await service.remote(pb.ImageRequest(reference=name, auth=pb.RegistryAuth(username="ana", password="right")))
    sizes = [layer["size"] for layer in json.loads(APACHE.manifest)["layers"]]
    assert (found["id"], found["digest"]) == (digest_of(APACHE.config), APACHE.digest)
    assert [(row["Size"], row["Tags"]) for row in found["history"]] == [(sizes[1], [name]), (sizes[0], None)]
    asked = {path.removeprefix("/v2/linuxtips/apache/") for _, path, headers in registry.requests if "authorization" in headers}
    assert asked == {"manifests/1.0", f"blobs/{digest_of(APACHE.config)}"}
    assert service.all() == []


async def test_a_removal_says_what_went_and_how_much(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    registry.put("linuxtips/other:1.0", OTHER)
    row, other = await pulled(service, "linuxtips/apache:1.0"), await pulled(service, "linuxtips/other:1.0")
    await service.tag(pb.TagRequest(reference=row["id"], name="mine:2"))
    kept = await service.remove(pb.ImageRequest(reference="linuxtips/apache:1.0"))
    assert kept == {"deleted": [], "freed_bytes": 0}
    gone = await service.remove(pb.ImageRequest(reference="mine:2"))
    assert gone["deleted"] == [row["id"], CHAIN]
    assert 0 < gone["freed_bytes"] < 50_000
    last = await service.remove(pb.ImageRequest(reference=other["id"]))
    blobs = len(OTHER.manifest) + sum(layer["size"] for layer in json.loads(OTHER.manifest)["layers"])
    assert (len(last["deleted"]), last["freed_bytes"]) == (3, other["size_bytes"] + blobs)
    assert service.all() == []


async def test_what_a_broken_pull_left_goes_without_a_name(service: ImagesService, registry: FakeRegistry) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    (whole, gone) = (layer["digest"] for layer in json.loads(APACHE.manifest)["layers"])
    kept = registry.blobs.pop(gone)
    with pytest.raises(ImageNotFound):
        await pulled(service, "linuxtips/apache:1.0")
    assert (await service.remove(pb.ImageRequest()))["freed_bytes"] == 50_000 + len(registry.blobs[whole])
    assert await service.remove(pb.ImageRequest()) == {"deleted": [], "freed_bytes": 0}
    registry.blobs[gone] = kept
    row = await pulled(service, "linuxtips/apache:1.0")
    assert (await service.remove(pb.ImageRequest()))["freed_bytes"] == 0
    assert [each["id"] for each in service.all()] == [row["id"]]


async def test_what_is_saved_loads_elsewhere_with_the_same_names_and_digests(
    service: ImagesService, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    registry.put("linuxtips/other:1.0", OTHER)
    names = ("linuxtips/apache:1.0", "linuxtips/other:1.0")
    before = [await pulled(service, name) for name in names]
    request = pb.SaveRequest(images=[pb.ImageNames(id=row["id"], names=row["names"]) for row in before])
    archive = b"".join([chunk.data async for chunk in service.save(request)])
    for row in before:
        await service.remove(pb.ImageRequest(reference=row["id"]))

    async def chunks() -> AsyncIterator[pb.Chunk]:
        yield pb.Chunk(data=archive)

    assert sorted((await service.load(chunks()))["names"]) == sorted(names)
    assert {row["id"]: row["digests"] for row in service.all()} == {row["id"]: row["digests"] for row in before}
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        docker = json.loads(found.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert [entry["RepoTags"] for entry in docker] == [[name] for name in names]
        assert {layer for entry in docker for layer in (*entry["Layers"], entry["Config"])} <= set(found.getnames())


async def test_an_archive_goes_on_behind_a_blob_that_fills_its_blocks(service: ImagesService, registry: FakeRegistry) -> None:
    """Tar fills a member up to 512 bytes; one in 512 blobs needs nothing for that."""
    sizes = (make_image(TOP, Labels={"pad": "x" * count}) for count in range(512))
    registry.put("shop/even:1", next(image for image in sizes if len(image.config) % 512 == 0))
    even = await pulled(service, "shop/even:1")
    request = pb.SaveRequest(images=[pb.ImageNames(id=even["id"], names=["shop/even:1"])])
    archive = b"".join([chunk.data async for chunk in service.save(request)])
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as found:
        assert {"index.json", "manifest.json", "oci-layout"} < set(found.getnames())


async def test_an_image_whose_blobs_are_gone_is_not_saved_in_part(
    service: ImagesService, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.put("linuxtips/apache:1.0", APACHE)
    row = await pulled(service, "linuxtips/apache:1.0")
    request = pb.SaveRequest(images=[pb.ImageNames(id=row["id"])])
    layer = json.loads(APACHE.manifest)["layers"][1]["digest"].removeprefix("sha256:")
    (tmp_path / "images" / "blobs" / "sha256" / layer).unlink()
    with pytest.raises(Conflict, match="pull or load it again"):
        await anext(service.save(request))
    with pytest.raises(NotFound, match="No such image"):
        await anext(service.save(pb.SaveRequest(images=[pb.ImageNames(id="sha256:none")])))
