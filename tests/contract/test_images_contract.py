"""What the agent may expect of its images: the store on the disk with a registry, and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.images.errors import ImageInUse, ImageNotFound
from agent.images.memory import MemoryImages, registry_of
from agent.images.records import ImageConfig, PullProgress, RegistryConfig
from agent.images.store import ImageStore
from model.errors import BadInput, ImageError
from model.image_ref import parse_image_ref
from tests.contract.images_server import fake_registry, make_image

pytestmark = pytest.mark.contract


@dataclass
class Rig:
    """`put`: the registry has that image under that name from now on. `again`: as the next agent finds it."""

    images: MemoryImages | ImageStore
    put: Callable[[str, str], None]
    again: Callable[[], Awaitable[MemoryImages | ImageStore]]


@pytest.fixture(params=["memory", pytest.param("store", marks=pytest.mark.root)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield _memory() if request.param == "memory" else _on_disk(stack, tmp_path)


def _memory() -> Rig:
    has: dict[str, ImageConfig] = {}
    memory = MemoryImages(registry_of(has))

    def put(name: str, command: str) -> None:
        has[parse_image_ref(name).canonical] = ImageConfig(cmd=(command,), stop_signal="SIGINT")

    async def again() -> MemoryImages:
        memory.crash()
        return memory

    return Rig(memory, put, again)


def _on_disk(stack: AsyncExitStack, path: Path) -> Rig:
    registry = stack.enter_context(fake_registry())
    config = RegistryConfig(mirrors={"docker.io": (registry.endpoint,)}, platform="linux/amd64", backoff_s=0.001)
    stores = [ImageStore(path / "images", config=config)]

    def put(name: str, command: str) -> None:
        registry.put(name, make_image({"file": command.encode()}, Cmd=[command], StopSignal="SIGINT"))

    async def again() -> ImageStore:
        await stores.pop().close()
        stores.append(ImageStore(path / "images", config=config))
        return stores[0]

    async def close() -> None:
        await stores[0].close()

    stack.push_async_callback(close)
    return Rig(stores[0], put, again)


async def test_what_is_kept_of_an_image_names_its_digests(rig: Rig) -> None:
    rig.put("shop/web:1", "serve")
    image = await rig.images.pull("shop/web:1")
    await rig.images.tag(image.id, "other:2")
    found = rig.images.details(image.id)
    assert found.manifest == image.digest
    assert found.manifests == found.digests == {"shop/web:1": image.digest, "other:2": image.digest}
    with pytest.raises(ImageNotFound):
        rig.images.details("sha256:none")


async def test_what_was_pulled_is_found_by_name_and_id_also_by_the_next_agent(rig: Rig) -> None:
    rig.put("shop/web:1", "serve")
    told: list[PullProgress] = []
    image = await rig.images.pull("shop/web:1", progress=told.append)
    assert (image.names, image.config.cmd, image.config.stop_signal) == (("shop/web:1",), ("serve",), "SIGINT")
    assert told
    images = await rig.again()
    for ref in ("shop/web:1", "docker.io/shop/web:1", image.id, image.id.removeprefix("sha256:")[:12]):
        assert (found := images.get(ref)) is not None
        assert found.id == image.id
    assert (images.get("shop/web:2"), images.get(image.id[:15])) == (None, None)
    assert [found.id for found in images.list()] == [image.id]


async def test_policies(rig: Rig) -> None:
    with pytest.raises(ImageNotFound, match="pull policy is 'never'"):
        await rig.images.pull("shop/web:1", policy="never")
    with pytest.raises(ImageNotFound, match="image shop/web:1 not found at registry"):
        await rig.images.pull("shop/web:1")
    rig.put("shop/web:1", "old")
    old = await rig.images.pull("shop/web:1")
    rig.put("shop/web:1", "new")
    assert (await rig.images.pull("shop/web:1")).id == (await rig.images.pull("shop/web:1", policy="never")).id == old.id
    new = await rig.images.pull("shop/web:1", policy="always")
    assert (new.config.cmd, new.names) == (("new",), ("shop/web:1",))
    assert (found := rig.images.get(old.id)) is not None
    assert found.names == ()
    with pytest.raises(BadInput):
        await rig.images.pull("shop/web:")


async def test_what_is_held_is_not_removed(rig: Rig) -> None:
    for name in ("shop/web:1", "shop/web:2"):
        rig.put(name, "serve")
    image = await rig.images.pull("shop/web:1")
    assert (await rig.images.pull("shop/web:2")).id == image.id
    rig.images.hold(image.id, "container")
    assert (await rig.images.remove("shop/web:1")).id == ""
    with pytest.raises(ImageInUse, match="is used on this node"):
        await rig.images.remove("shop/web:2")
    rig.images.release("container")
    assert (await rig.images.remove(image.id)).id == image.id
    assert await rig.images.collect() == 0
    assert rig.images.list() == []
    with pytest.raises(ImageNotFound, match="not on this node"):
        await rig.images.remove("shop/web:2")


async def test_by_force_what_is_held_loses_its_last_name_and_stays(rig: Rig) -> None:
    rig.put("shop/web:1", "serve")
    image = await rig.images.pull("shop/web:1")
    rig.images.hold(image.id, "container")
    assert (await rig.images.remove("shop/web:1", force=True)).id == ""
    assert [(found.id, found.names) for found in rig.images.list()] == [(image.id, ())]
    with pytest.raises(ImageInUse, match="is used on this node"):
        await rig.images.remove(image.id, force=True)
    images = await rig.again()
    assert images.get(image.id) is not None
    await images.remove(image.id)
    assert images.list() == []


async def test_an_image_gets_names_and_only_what_has_the_name_is_pushed(rig: Rig) -> None:
    for name in ("shop/web:1", "shop/web:2"):
        rig.put(name, name)
    one, two = [await rig.images.pull(f"shop/web:{version}") for version in "12"]
    assert (await rig.images.tag("shop/web:1", "shop/new")).names == ("shop/new:latest", "shop/web:1")
    assert (await rig.images.tag(two.id, "shop/new:latest")).names == ("shop/new:latest", "shop/web:2")
    images = await rig.again()
    assert [found.id if (found := images.get(name)) else None for name in ("shop/new", "shop/web:1")] == [two.id, one.id]
    with pytest.raises(ImageNotFound, match=r"^image shop/other:latest is not on this node: give one that is this name"):
        await images.push("shop/other")
    with pytest.raises(ImageNotFound, match="not on this node"):
        await images.tag("shop/other", "x")
    with pytest.raises(BadInput, match="has a digest"):
        await images.tag("shop/web:1", f"x@{one.digest}")


async def test_what_is_no_archive_is_not_loaded(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no archive" * 100)
    with pytest.raises(ImageError, match=r"^image archive: not a tar archive"):
        await rig.images.load(tmp_path / "file")


async def test_a_name_stands_for_the_digest_it_was_pulled_with(rig: Rig) -> None:
    rig.put("shop/web:1", "serve")
    digest = await rig.images.resolve("shop/web:1")
    image = await rig.images.pull("shop/web:1", digest=digest)
    assert (image.digest, image.names) == (digest, ("shop/web:1",))
    (held,) = rig.images.held()
    assert (held.id, held.names) == (image.id, (("docker.io/shop/web:1", digest),))
    assert {image.id, digest} <= set(held.blobs)
    assert rig.images.moved.is_set()
    rig.put("shop/web:1", "serve newer")
    newer = await rig.images.resolve("shop/web:1")
    assert newer != digest
    assert await rig.images.resolve(f"shop/web@{digest}") == digest
    assert await rig.images.pull("shop/web:1", digest=digest, policy="always") == image
    found = await rig.images.pull("shop/web:1", digest=newer)
    assert (found.digest, found.config.cmd) == (newer, ("serve newer",))
    back = await rig.images.pull("shop/web:1", digest=digest, policy="never")  # it is still there, without a name
    assert (back.id, back.names) == (image.id, ("shop/web:1",))
    also = await rig.images.pull("else/where:2", digest=newer, policy="never")  # and this one had another
    assert (also.id, also.digest, also.names) == (found.id, newer, ("else/where:2",))
    with pytest.raises(ImageNotFound, match="not on this node"):
        await rig.images.pull("shop/web:1", digest=f"sha256:{'1' * 64}", policy="never")
    with pytest.raises(ImageNotFound):
        await rig.images.pull("shop/web:1", digest=f"sha256:{'0' * 64}")
    with pytest.raises(BadInput):
        await rig.images.pull("shop/web:1", digest="sha256:1")
