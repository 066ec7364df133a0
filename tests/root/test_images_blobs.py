"""What images came in is kept, whole, for as long as it is needed, also across crashes. Root: layers are unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from backports import zstd

from agent.images.errors import ImageInUse
from agent.images.records import Credentials, Pushed
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from model.errors import ImageError
from tests.contract.hostile_registry import PASSWORD, USER, Hostile, Request, hostile_registry
from tests.contract.images_server import FakeRegistry, MadeImage, digest_of, fake_registry, make_image, make_index
from tests.root.test_images_store import Stores, blobs, docker_archive, layer_count, oci_files, prune, tar_files, tmp_count

pytestmark = pytest.mark.root
BIG = os.urandom(300_000)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
async def stores(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Stores]:
    made = Stores(tmp_path, registry)
    yield made
    for store in made.open:
        await store.close()
    remove_tree(tmp_path)


def web(version: str = "1") -> MadeImage:
    return make_image({"base": BIG}, {"app": version.encode()}, Cmd=["/app"])


def repacked(image: MadeImage) -> MadeImage:
    """The same image with its layers in zstd: another manifest, other blobs, the same id."""
    packed = [zstd.compress(tar) for tar in image.tars]
    document = json.loads(image.manifest)
    for part, data in zip(document["layers"], packed, strict=True):
        part |= {"digest": digest_of(data), "size": len(data), "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}
    return MadeImage(
        json.dumps(document).encode(), image.config, image.tars, {digest_of(image.config): image.config}
        | {digest_of(data): data for data in packed},
    )  # fmt: skip


def came_in(image: MadeImage) -> set[str]:
    """Manifest and layers; the config stands in the image's own file."""
    return {image.digest, *(layer["digest"] for layer in json.loads(image.manifest)["layers"])}


def check_whole(top: Path, name: str = "store") -> None:
    for file in (top / name / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name


async def synced(top: Path) -> None:
    async with asyncio.timeout(10):
        while any(file.stat().st_mode & 0o200 for file in (top / "store/blobs/sha256").iterdir()):  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.005)


async def test_a_pull_keeps_what_came_byte_for_byte(stores: Stores, registry: FakeRegistry) -> None:
    ours, index = web(), make_index(("arm64", make_image({"x": b"theirs"}, architecture="arm64")), ("amd64", web()))
    registry.put("shop/web:1", ours)
    registry.manifests["shop/web:both"] = index
    store = stores.new()
    await store.pull("shop/web:1")
    assert blobs(stores.top) == came_in(ours)
    await store.pull("shop/web:both")
    assert blobs(stores.top) == came_in(ours) | {digest_of(index)}
    folder = stores.top / "store/blobs/sha256"
    assert (folder / ours.digest.removeprefix("sha256:")).read_bytes() == ours.manifest
    assert (folder / digest_of(index).removeprefix("sha256:")).read_bytes() == index
    check_whole(stores.top)
    await store.remove("shop/web:both")
    assert blobs(stores.top) == came_in(ours)


async def test_one_image_with_two_manifests_keeps_both(stores: Stores, registry: FakeRegistry) -> None:
    image, other = web(), repacked(web())
    registry.put("shop/web:gzip", image)
    registry.put("shop/web:zstd", other)
    store = stores.new()
    first, second = await asyncio.gather(store.pull("shop/web:gzip"), store.pull("shop/web:zstd"))
    assert first.id == second.id
    assert layer_count(stores.top) == 2
    assert blobs(stores.top) == came_in(image) | came_in(other)
    await stores.close(store)
    store = stores.new()
    await store.remove("shop/web:gzip")
    assert came_in(other) <= blobs(stores.top)
    assert [(image.names, image.digest) for image in store.list()] == [(("shop/web:zstd",), other.digest)]


async def test_a_blob_that_is_no_form_of_its_layer_is_refused(stores: Stores, registry: FakeRegistry) -> None:
    """The layer is there already, so nothing is unpacked; kept and given away it would be refused elsewhere."""
    image, lying = web(), repacked(web())
    evil = zstd.compress(b"x" * 5000)
    document = json.loads(lying.manifest)
    document["layers"][1] |= {"digest": digest_of(evil), "size": len(evil)}
    registry.put("shop/web:1", image)
    lying.blobs[digest_of(evil)] = evil
    registry.put("shop/web:2", MadeImage(json.dumps(document).encode(), image.config, [], lying.blobs))
    store = stores.new()
    await store.pull("shop/web:1")
    with pytest.raises(ImageError, match="diff_id"):
        await store.pull("shop/web:2")
    assert digest_of(evil) not in blobs(stores.top)
    assert (store.get("shop/web:2"), tmp_count(stores.top)) == (None, 0)
    await prune(store)
    assert blobs(stores.top) == set()


async def test_stores_without_blobs_work_and_fetch_them_when_pulled_again(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    store = stores.new()
    image = await store.pull("shop/web:1")
    await stores.close(store)
    remove_tree(stores.top / "store/blobs")
    names = stores.top / "store/names.json"
    old = {name: {"id": entry["id"], "digest": entry["digest"]} for name, entry in json.loads(names.read_text()).items()}
    names.write_text(json.dumps(old))
    store = stores.new()
    assert (store.list(), blobs(stores.top)) == ([image], set())
    with pytest.raises(ImageError, match=r"^image shop/web:1: .* pull or load it again, then push it$"):
        await store.push("shop/web:1")
    inode = image.layers[0].stat().st_ino
    assert await store.pull("shop/web:1", policy="always") == image
    assert blobs(stores.top) == came_in(web())
    assert image.layers[0].stat().st_ino == inode


async def test_archives_are_kept_too_and_make_the_same_manifest_everywhere(stores: Stores) -> None:
    image = web()
    docker = docker_archive(image, "shop/web:1")
    first, second, third = stores.new("first"), stores.new("second"), stores.new("third")
    one, two = (await first.load(io.BytesIO(docker)))[0], (await second.load(io.BytesIO(docker)))[0]
    assert one.digest == two.digest
    assert blobs(stores.top, "first") == blobs(stores.top, "second")
    made = json.loads((stores.top / "first/blobs/sha256" / one.digest.removeprefix("sha256:")).read_bytes())
    for layer, tar in zip(made["layers"], image.tars, strict=True):
        kept = (stores.top / "first/blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert (gzip.decompress(kept), len(kept)) == (tar, layer["size"])
    assert made["config"]["digest"] == one.id == digest_of(image.config)
    await third.load(io.BytesIO(tar_files(oci_files(image, "shop/web:1"))))
    assert blobs(stores.top, "third") == came_in(image)
    again = (await third.load(io.BytesIO(docker)))[0]  # its layers are kept already, gzipped by somebody else
    assert blobs(stores.top, "third") == came_in(image) | {again.digest}
    for name in ("first", "second", "third"):
        check_whole(stores.top, name)


async def test_an_oci_archive_that_lies_is_refused(stores: Stores) -> None:
    image = web()
    files = oci_files(image, "shop/web:1")
    layer = json.loads(image.manifest)["layers"][1]["digest"].removeprefix("sha256:")
    files[f"blobs/sha256/{layer}"] = zstd.compress(image.tars[1])  # the right files in another wrapping
    store = stores.new()
    with pytest.raises(ImageError, match="does not match its digest"):
        await store.load(io.BytesIO(tar_files(files)))
    assert (store.list(), tmp_count(stores.top)) == ([], 0)
    check_whole(stores.top)


async def test_what_may_not_have_reached_the_disk_is_compared_at_start(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    store = stores.new()
    await store.pull("shop/web:1")
    await synced(stores.top)
    await stores.close(store)
    files = sorted((stores.top / "store/blobs/sha256").iterdir(), key=lambda file: file.stat().st_size)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o400}
    (files[0].parent / "stray").write_text("?")
    for file in files[1:]:
        file.chmod(0o600)  # as if the machine had died before the disk was synced
    files[1].write_bytes(b"torn")
    store = stores.new()
    assert blobs(stores.top) == {f"sha256:{file.name}" for file in files if file != files[1]}
    with pytest.raises(ImageError, match="pull or load it again"):
        await store.push("shop/web:1")
    await store.pull("shop/web:1", policy="always")
    assert blobs(stores.top) == came_in(web())


async def test_a_pull_under_way_keeps_its_blobs(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web("1"))
    registry.put("shop/web:2", web("2"))
    store = stores.new()
    await store.pull("shop/web:1")
    held = registry.faults.hold_blobs = threading.Event()
    registry.blob_asked.clear()
    pull = asyncio.create_task(store.pull("shop/web:2"))
    assert await asyncio.to_thread(registry.blob_asked.wait, 10)
    held.set()
    while len(blobs(stores.top)) == len(came_in(web())):
        await asyncio.sleep(0)
        await prune(store)
        if pull.done():
            break
    await pull
    with_documents = blobs(stores.top)
    assert came_in(web("2")) <= with_documents
    await prune(store)
    assert blobs(stores.top) == set()


@dataclass
class Held:
    """A push that its registry keeps waiting in the middle of a layer, until `go`."""

    store: ImageStore
    registry: Hostile
    ref: str
    push: asyncio.Task[Pushed]
    go: threading.Event

    def parts(self) -> int:
        return sum(1 for request in self.registry.requests if request.asks("PATCH", "/uploads/"))


@pytest.fixture
async def held(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    monkeypatch.setattr("agent.images.push._CHUNK_BYTES", 50_000)
    go, asked = threading.Event(), threading.Event()

    def wait(_: Hostile, request: Request) -> None:
        if request.asks("PATCH", "/uploads/"):
            asked.set()
            go.wait(10)

    with hostile_registry() as registry:
        registry.lie = wait
        store = stores.new(credentials={registry.endpoint: Credentials(USER, PASSWORD)}, parallel=1)
        ref = f"{registry.endpoint}/shop/web:1"
        await store.load(io.BytesIO(docker_archive(web(), ref)))
        push = asyncio.create_task(store.push(ref))
        try:
            assert await asyncio.to_thread(asked.wait, 10)
            yield Held(store, registry, ref, push, go)
        finally:
            go.set()
            with contextlib.suppress(asyncio.CancelledError):
                await push


async def test_what_is_being_pushed_is_not_removed(held: Held, stores: Stores) -> None:
    kept = blobs(stores.top)
    with pytest.raises(ImageInUse, match="under way"):
        await held.store.remove(held.ref)
    assert await prune(held.store) == 0
    assert blobs(stores.top) == kept
    held.go.set()
    pushed = await held.push
    assert set(kept) <= {*held.registry.blobs, pushed.digest}
    await held.store.remove(held.ref)
    assert blobs(stores.top) == set()


async def test_a_push_nobody_waits_for_ends_and_holds_nothing(held: Held, stores: Stores) -> None:
    held.push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held.push
    await held.store.remove(held.ref)
    assert blobs(stores.top) == set()
    before = held.parts()
    held.go.set()
    await stores.close(held.store)  # waits for its threads
    assert held.parts() == before
    assert not held.registry.manifests


CRASHER = """
import asyncio, os, sys
from pathlib import Path
from agent.images import disk
from agent.images.records import RegistryConfig
from agent.images.store import ImageStore
steps = int(sys.argv[3])
def counted(name):
    whole = getattr(disk.StoreDisk, name)
    def step(self, *arguments, **named):
        global steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), 9)
        result = whole(self, *arguments, **named)
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), 9)
        return result
    setattr(disk.StoreDisk, name, step)
names = "commit_blob commit_layer write_image write_names drop_image set_aside delete mark_blob_synced"
for name in names.split():
    counted(name)
async def main():
    config = RegistryConfig(mirrors={"docker.io": (sys.argv[2],)}, platform="linux/amd64", parallel=1)
    store = ImageStore(Path(sys.argv[1]), config=config)
    await store.pull("shop/web:1")
    await store.pull("shop/web:2")
    await store.remove("shop/web:1")
    await store.close()
    print("done", steps)
asyncio.run(main())
"""


SMALL = {version: make_image({"base": b"b"}, {"app": version.encode()}) for version in "12"}
STEPS = (2, 5, 9, 20)
"""Before and after each thing the store writes there is one; all of them are too many for every run."""


async def crash(root: Path, endpoint: str, step: int) -> bool:
    """Whether it was killed at that step of writing; False: it came to its end before."""
    command = [sys.executable, "-c", CRASHER, str(root), endpoint, str(step)]
    child = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.DEVNULL)
    return await child.wait() == -9


async def test_killed_at_any_step_the_next_agent_finds_whole_things(stores: Stores, registry: FakeRegistry) -> None:
    for version, image in SMALL.items():
        registry.put(f"shop/web:{version}", image)
    assert all([await _after_a_crash(stores, registry, step) for step in STEPS])


async def _after_a_crash(stores: Stores, registry: FakeRegistry, step: int) -> bool:
    name = f"store-{step}"
    killed = await crash(stores.top / name, registry.endpoint, step)
    store = stores.new(name)
    assert tmp_count(stores.top, name) == 0
    check_whole(stores.top, name)
    for image in store.list():
        assert all(path.is_dir() for path in image.layers)
        for known in image.names:
            store._catalog.documents(store._catalog.named(known), known)  # whole enough to be given away
    image = await store.pull("shop/web:2", policy="always")
    store.hold(image.id, "container")
    await prune(store)
    assert (blobs(stores.top, name), layer_count(stores.top, name)) == (came_in(SMALL["2"]), 2)
    return killed
