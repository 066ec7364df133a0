"""The image store against a registry with faults: shared pulls, crashes, pruning, loading. Root: layers are unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.images.errors import ImageInUse, ImageNotFound, RegistryRefused, RegistryUnavailable
from agent.images.overlay import mount_root, unmount
from agent.images.records import Credentials, Limits, PullProgress, RegistryConfig, Removed
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from model.errors import DiskFull, ImageError
from tests.contract.images_server import FakeRegistry, MadeImage, digest_of, fake_registry, make_image, make_index

pytestmark = pytest.mark.root
BIG = os.urandom(600_000)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


class Stores:
    """Makes stores below one directory and closes them all."""

    def __init__(self, top: Path, registry: FakeRegistry) -> None:
        self.top = top
        self.registry = registry
        self.open: list[ImageStore] = []

    def new(self, name: str = "store", **config: object) -> ImageStore:
        base: dict[str, object] = {
            "mirrors": {"docker.io": (self.registry.endpoint,)},
            "platform": "linux/amd64",
            "backoff_s": 0.001,
            "timeout_s": 5.0,
        }
        store = ImageStore(self.top / name, config=RegistryConfig(**(base | config)))  # type: ignore[arg-type]
        self.open.append(store)
        return store

    async def close(self, store: ImageStore) -> None:
        self.open.remove(store)
        await store.close()


@pytest.fixture
async def stores(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Stores]:
    made = Stores(tmp_path, registry)
    yield made
    for store in made.open:
        await store.close()
    remove_tree(tmp_path)


def web(version: str = "1") -> MadeImage:
    return make_image({"base": BIG}, {"app": version.encode()}, Cmd=["/app"], Env=["V=" + version])


async def prune(store: ImageStore) -> int:
    """All that is not used, as `shoal image prune -a` does it on a node; the bytes freed."""
    freed = 0
    for image in store.list():
        with contextlib.suppress(ImageInUse):
            freed += (await store.remove(image.id)).freed_bytes
    return freed + await store.collect()


def layer_count(top: Path, name: str = "store") -> int:
    return len(list((top / name / "layers").iterdir()))


def blobs(top: Path, name: str = "store") -> set[str]:
    return {f"sha256:{file.name}" for file in (top / name / "blobs" / "sha256").iterdir()}


def tmp_count(top: Path, name: str = "store") -> int:
    return len(list((top / name / "tmp").iterdir()))


async def test_a_pull_gives_an_image_that_mounts(stores: Stores, registry: FakeRegistry, tmp_path: Path) -> None:
    image = web()
    registry.put("shop/web:1", image)
    store = stores.new()
    seen: list[PullProgress] = []
    pulled = await store.pull("shop/web:1", progress=seen.append)
    assert (pulled.names, pulled.digest) == (("shop/web:1",), image.digest)
    assert (pulled.config.cmd, pulled.config.env) == (("/app",), (("V", "1"),))
    assert [(path / name).exists() for path, name in zip(pulled.layers, ("base", "app"), strict=True)] == [True, True]
    assert pulled.size_bytes == len(BIG) + 1
    assert (seen[-1].layers_done, seen[-1].bytes_done) == (2, seen[-1].bytes_total)
    assert store.get("shop/web:1") == pulled
    assert store.get(pulled.id) == pulled
    assert store.get(pulled.id.removeprefix("sha256:")[:12]) == pulled
    assert store.get("shop/web") is None
    box = [tmp_path / name for name in ("upper", "work", "root")]
    for directory in box:
        directory.mkdir()
    mount_root(pulled.layers, *box)
    try:
        assert (box[2] / "app").read_text() == "1"
        assert (box[2] / "base").stat().st_size == len(BIG)
    finally:
        unmount(box[2])


async def test_policies(stores: Stores, registry: FakeRegistry) -> None:
    store = stores.new()
    with pytest.raises(ImageNotFound, match=r"image shop/web:1 is not on this node, and its pull policy is 'never'"):
        await store.pull("shop/web:1", policy="never")
    assert registry.requests == []
    registry.put("shop/web:1", web("1"))
    first = await store.pull("shop/web:1")
    registry.put("shop/web:1", web("2"))
    before = len(registry.requests)
    assert await store.pull("shop/web:1") == first
    assert await store.pull("shop/web:1", policy="never") == first
    assert len(registry.requests) == before
    second = await store.pull("shop/web:1", policy="always")
    assert second.id != first.id
    assert second.layers[0] == first.layers[0]
    assert store.get(first.id) is not None
    assert [image.names for image in store.list() if image.id == first.id] == [()]


async def test_many_pulls_at_once_are_one(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web("1"))
    registry.put("shop/web:2", web("2"))
    store = stores.new()
    pulls = [store.pull(f"shop/web:{1 + n % 2}") for n in range(12)]
    images = await asyncio.gather(*pulls)
    assert len({image.id for image in images}) == 2
    assert registry.count("/manifests/") == 2
    assert registry.count("/blobs/") == 2 + 3  # two configs, the shared layer once, each image's own


async def test_a_cancelled_pull_leaves_the_others(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.hold_blobs = threading.Event()
    store = stores.new()
    first = asyncio.create_task(store.pull("shop/web:1"))
    second = asyncio.create_task(store.pull("shop/web:1"))
    assert await asyncio.to_thread(registry.blob_asked.wait, 10)
    first.cancel()
    registry.faults.hold_blobs.set()
    assert (await second).names == ("shop/web:1",)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_index_is_followed_by_platform_and_by_digest(stores: Stores, registry: FakeRegistry) -> None:
    ours, theirs = web("ours"), make_image({"x": b"theirs"}, architecture="arm64")
    registry.put("shop/web:amd", ours)
    registry.put("shop/web:arm", theirs)
    registry.manifests["shop/web:both"] = make_index(("arm64", theirs), ("amd64", ours))
    store = stores.new()
    assert (await store.pull("shop/web:both")).digest == ours.digest
    pinned = await store.pull(f"shop/web@{ours.digest}")
    assert pinned.names == ("shop/web:both", f"shop/web@{ours.digest}")
    with pytest.raises(ImageError, match="is for linux/arm64, this node is linux/amd64"):
        await store.pull("shop/web:arm")


async def test_lost_connections_and_server_errors_are_survived(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.errors_503, registry.faults.hang_up = 2, 1
    registry.faults.cuts, registry.faults.cut_after_bytes = 3, 200_000
    store = stores.new(parallel=1)
    assert (await store.pull("shop/web:1")).size_bytes == len(BIG) + 1
    ranges = [headers["range"] for _, path, headers in registry.requests if "range" in headers and "/blobs/" in path]
    assert ranges
    assert all(int(text.removeprefix("bytes=").split("-")[0]) > 0 for text in ranges)


async def test_a_server_without_ranges_is_read_again(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.no_ranges = True
    registry.faults.cuts, registry.faults.cut_after_bytes = 2, 300_000
    assert (await stores.new(parallel=1).pull("shop/web:1")).size_bytes == len(BIG) + 1


async def test_errors_are_one_clear_line(stores: Stores, registry: FakeRegistry) -> None:
    store = stores.new(attempts=2)
    where = registry.endpoint
    with pytest.raises(ImageNotFound, match=rf"^image shop/web:2 not found at registry {where}$"):
        await store.pull("shop/web:2")
    registry.faults.errors_503 = 99
    with pytest.raises(RegistryUnavailable, match=rf"registry {where} does not answer .*503 \(2 attempts\)$"):
        await store.pull("shop/web:2")
    with pytest.raises(RegistryUnavailable, match=r"registry 127.0.0.1:1 does not answer .*refused \(2 attempts\)$"):
        await store.pull("127.0.0.1:1/x")


async def test_damaged_content_is_refused_and_leaves_nothing(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", make_image({"f": b"x"}))
    registry.faults.wrong_blob_byte = True
    store = stores.new()
    with pytest.raises(ImageError, match="does not match its digest"):
        await store.pull("shop/web:1")
    assert (layer_count(stores.top), tmp_count(stores.top), store.list()) == (0, 0, [])
    lying = make_image({"f": b"x"})
    lying.manifest = lying.manifest.replace(lying.digest.encode(), b"")
    registry.manifests["shop/web@sha256:" + "0" * 64] = lying.manifest
    with pytest.raises(ImageError, match="does not match its digest"):
        await store.pull("shop/web@sha256:" + "0" * 64)


async def test_a_layer_unlike_its_diff_id_is_refused(stores: Stores, registry: FakeRegistry) -> None:
    good, other = make_image({"f": b"good"}), make_image({"f": b"evil"})
    document = json.loads(good.manifest)
    document["layers"] = json.loads(other.manifest)["layers"]
    registry.put("shop/web:1", MadeImage(json.dumps(document).encode(), good.config, [], good.blobs | other.blobs))
    store = stores.new()
    with pytest.raises(ImageError, match="diff_id"):
        await store.pull("shop/web:1")
    assert (layer_count(stores.top), tmp_count(stores.top)) == (0, 0)


async def test_basic_credentials(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.basic = "ann:right"
    store = stores.new()
    name = f"{registry.endpoint}/shop/web:1"
    with pytest.raises(RegistryRefused, match=r"refuses .*unauthorized \(is the name right\? else `shoal login "):
        await store.pull(name)
    with pytest.raises(RegistryRefused, match=r"unauthorized \(are the credentials right\? else `shoal login "):
        await store.pull(name, auth=Credentials("ann", "wrong"))
    assert (await store.pull(name, auth=Credentials("ann", "right"))).names == (name,)


async def test_bearer_tokens_are_fetched_with_the_nodes_credentials(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.bearer = "ann:right"
    bad = stores.new("bad", credentials={registry.endpoint: Credentials("ann", "wrong")})
    with pytest.raises(RegistryRefused, match=r"unauthorized \(token server \S+ says 401; are the credentials right\?"):
        await bad.pull("shop/web:1")
    with pytest.raises(RegistryRefused, match=r"token server \S+ says 401; is the name right") as caught:
        await stores.new("none").pull("shop/web:1")
    assert "\n" not in str(caught.value)
    good = stores.new("good", credentials={registry.endpoint: Credentials("ann", "right")})
    assert (await good.pull("shop/web:1")).names == ("shop/web:1",)
    assert registry.count("/token") <= 7


async def test_a_redirect_takes_no_credentials_along(stores: Stores, registry: FakeRegistry) -> None:
    with fake_registry() as elsewhere:
        image = web()
        registry.put("shop/web:1", image)
        elsewhere.blobs |= image.blobs
        registry.faults.basic = "ann:right"
        registry.faults.redirect_blobs_to = f"http://{elsewhere.endpoint}"
        store = stores.new(credentials={registry.endpoint: Credentials("ann", "right")})
        await store.pull("shop/web:1")
        assert elsewhere.count("/blobs/") == 3
        assert not [1 for _, _, headers in elsewhere.requests if "authorization" in headers]


async def test_plain_http_is_refused_elsewhere(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.redirect_blobs_to = "http://registry.invalid"
    with pytest.raises(RegistryRefused, match="plain http is refused"):
        await stores.new().pull("shop/web:1")


async def test_mirrors_are_asked_in_order(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    store = stores.new(mirrors={"docker.io": ("127.0.0.1:1", registry.endpoint)}, attempts=1)
    assert (await store.pull("shop/web:1")).names == ("shop/web:1",)


async def test_everything_is_there_after_a_restart(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web("1"))
    registry.put("shop/web:2", web("2"))
    store = stores.new()
    before = [await store.pull("shop/web:1"), await store.pull("shop/web:2")]
    await stores.close(store)
    again = stores.new()
    assert sorted(again.list(), key=lambda i: i.names) == before


async def test_two_agents_cannot_share_a_store(stores: Stores) -> None:
    stores.new()
    with pytest.raises(ImageError, match=rf"is used by another agent \(process {os.getpid()}\)"):
        stores.new()


async def test_leftovers_and_half_images_are_swept(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web("1"))
    registry.put("shop/web:2", web("2"))
    store = stores.new()
    kept, broken = await store.pull("shop/web:1"), await store.pull("shop/web:2")
    await stores.close(store)
    root = stores.top / "store"
    (root / "tmp" / "layer-x" / "fs").mkdir(parents=True)
    (root / "tmp" / "spool-x").write_text("half")
    (root / "layers" / ("e" * 64) / "fs").mkdir(parents=True)  # no layer.json
    remove_tree(broken.layers[1].parent)
    (root / "images" / f"{'f' * 64}.json").write_text("{")
    again = stores.new()
    assert again.list() == [kept]
    assert again.get("shop/web:2") is None
    assert (layer_count(stores.top), tmp_count(stores.top)) == (2, 0)
    assert (await again.pull("shop/web:2")).names == ("shop/web:2",)


PULLER = """
import asyncio, sys
from pathlib import Path
from agent.images.records import RegistryConfig
from agent.images.store import ImageStore
async def main():
    config = RegistryConfig(mirrors={"docker.io": (sys.argv[2],)}, platform="linux/amd64")
    await ImageStore(Path(sys.argv[1]), config=config).pull("shop/web:1")
asyncio.run(main())
"""


async def test_an_agent_killed_while_pulling_leaves_nothing(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.faults.cuts, registry.faults.cut_after_bytes = 99, 100_000  # the big layer never comes to its end
    root = stores.top / "store"
    command = [sys.executable, "-c", PULLER, str(root), registry.endpoint]
    puller = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])
    try:
        async with asyncio.timeout(20):
            while not unpackers(root):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)
    finally:
        puller.kill()
        await puller.wait()
    registry.faults.cuts = 0
    store = stores.new()
    async with asyncio.timeout(10):
        while unpackers(root):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
    assert tmp_count(stores.top) == 0
    assert (await store.pull("shop/web:1")).size_bytes == len(BIG) + 1


def unpackers(root: Path) -> list[str]:
    """Processes that unpack below this store."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().decode(errors="replace")
            if "unpack_child" in line and str(root) in line:
                found.append(line)
    return found


async def test_layers_of_another_boot_count_only_when_synced(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    store = stores.new()
    image = await store.pull("shop/web:1")
    await stores.close(store)
    records = [layer.with_name("layer.json") for layer in image.layers]
    assert all(json.loads(file.read_text())["synced"] for file in records)
    for file in records:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"boot": "another"}))
    store = stores.new()
    assert len(store.list()) == 1
    await stores.close(store)
    records[1].write_text(json.dumps(json.loads(records[1].read_text()) | {"synced": False}))
    assert stores.new().list() == []


async def test_remove_and_prune_keep_what_is_used(stores: Stores, registry: FakeRegistry, tmp_path: Path) -> None:
    for version in "123":
        registry.put(f"shop/web:{version}", web(version))
    store = stores.new()
    one, two, three = [await store.pull(f"shop/web:{version}") for version in "123"]
    store.hold(one.id, "container-1")
    with pytest.raises(ImageInUse, match="image shop/web:1 is used"):
        await store.remove("shop/web:1")
    with pytest.raises(ImageNotFound, match="shop/web:9 is not on this node"):
        await store.remove("shop/web:9")
    await store.remove(three.id)
    assert layer_count(stores.top) == 3
    box = [tmp_path / name for name in ("upper", "work", "root")]
    for directory in box:
        directory.mkdir()
    mount_root(two.layers, *box)
    try:
        assert await prune(store) == 0
    finally:
        unmount(box[2])
    came_in = {version: json.loads(web(version).manifest)["layers"] for version in "12"}
    removed = await store.remove(two.id)
    own = 1 + came_in["2"][1]["size"] + len(web("2").manifest)
    assert removed == Removed(two.id, (digest_of(web("2").tars[1]),), own)
    assert await prune(store) == 0
    assert blobs(stores.top) == {digest_of(web("1").manifest), *(layer["digest"] for layer in came_in["1"])}
    store.release("container-1")
    kept = len(BIG) + 1 + sum(layer["size"] for layer in came_in["1"]) + len(web("1").manifest)
    assert await prune(store) == kept
    assert (layer_count(stores.top), tmp_count(stores.top), blobs(stores.top), store.list()) == (0, 0, set(), [])


async def test_a_name_goes_before_the_image(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", web())
    registry.put("shop/web:also", web())
    store = stores.new()
    await store.pull("shop/web:1")
    image = await store.pull("shop/web:also")
    assert image.names == ("shop/web:1", "shop/web:also")
    store.hold(image.id, "c")
    await store.remove("shop/web:1")
    assert [i.names for i in store.list()] == [("shop/web:also",)]


def docker_archive(image: MadeImage, *tags: str) -> bytes:
    raw = io.BytesIO()
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": [f"{n}/layer.tar" for n in range(len(image.tars))]}]
    files = {f"{n}/layer.tar": tar for n, tar in enumerate(image.tars)}
    files |= {"config.json": image.config, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def oci_files(image: MadeImage, name: str) -> dict[str, bytes]:
    entry = {"digest": image.digest, "size": len(image.manifest), "annotations": {"org.opencontainers.image.ref.name": name}}
    files = {f"blobs/sha256/{digest.removeprefix('sha256:')}": data for digest, data in image.blobs.items()}
    files[f"blobs/sha256/{image.digest.removeprefix('sha256:')}"] = image.manifest
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def tar_files(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


@pytest.mark.parametrize("packed", [False, True])
async def test_docker_archives_are_loaded(stores: Stores, packed: bool) -> None:
    data = docker_archive(web(), "shop/web:1", "shop/web:x")
    store = stores.new()
    loaded = await store.load(io.BytesIO(gzip.compress(data) if packed else data))
    assert [image.names for image in loaded] == [("shop/web:1", "shop/web:x")]
    assert loaded[0].layers[0].joinpath("base").stat().st_size == len(BIG)
    assert tmp_count(stores.top) == 0


async def test_oci_layouts_are_loaded_from_tar_and_directory(stores: Stores, tmp_path: Path) -> None:
    files = oci_files(web(), "shop/web:1")
    (tmp_path / "one.tar").write_bytes(tar_files(files))
    loaded = await stores.new("tar").load(str(tmp_path / "one.tar"))
    for name, data in files.items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(data)
    from_directory = await stores.new("directory").load(tmp_path / "layout")
    assert loaded[0].id == from_directory[0].id
    assert loaded[0].digest == from_directory[0].digest == web().digest
    assert from_directory[0].names == ("shop/web:1",)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"no archive", "not a tar archive"),
        (tar_files({"x": b"1"}), "neither"),
        (tar_files({"manifest.json": b"{"}), "not JSON"),
        (tar_files({"manifest.json": b"[]"}), "no image"),
        (tar_files({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}), "missing in it"),
        (tar_files({"index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}', "oci-layout": b""}), "missing in it"),
        (gzip.compress(b"x" * 1000)[:-8], "too early"),
    ],
    ids=["no tar", "neither kind", "no JSON", "no image", "outside", "missing blob", "cut gzip"],
)
async def test_bad_archives_are_refused(stores: Stores, data: bytes, word: str) -> None:
    with pytest.raises(ImageError, match=word):
        await stores.new().load(io.BytesIO(data))
    assert tmp_count(stores.top) == 0


async def test_a_missing_archive_is_named(stores: Stores) -> None:
    with pytest.raises(ImageError, match="no such file"):
        await stores.new().load("/nowhere/x.tar")


async def test_limits_hold(stores: Stores, registry: FakeRegistry) -> None:
    registry.put("shop/web:1", make_image({"big": bytes(3 << 20)}))
    with pytest.raises(ImageError, match="more than 1048576 bytes"):
        await stores.new("a", limits=Limits(unpacked_bytes=1 << 20)).pull("shop/web:1")
    with pytest.raises(ImageError, match="more than the limit of 100"):
        await stores.new("b", limits=Limits(blob_bytes=100)).pull("shop/web:1")
    with pytest.raises(ImageError, match="longer than 100 bytes"):
        await stores.new("c", limits=Limits(manifest_bytes=100)).pull("shop/web:1")


async def test_a_full_disk_is_named_and_leaves_nothing(registry: FakeRegistry, tmp_path: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    registry.put("shop/web:1", web())
    disk = tmp_path / "disk"
    disk.mkdir()
    assert libc.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", 0, b"size=400k") == 0
    try:
        stores = Stores(disk, registry)
        store = stores.new()
        with pytest.raises(DiskFull, match=r"^image shop/web:1: disk full at .*free space"):
            await store.pull("shop/web:1")
        assert tmp_count(disk) == 0
        await store.close()
    finally:
        assert libc.umount2(os.fsencode(disk), 2) == 0
