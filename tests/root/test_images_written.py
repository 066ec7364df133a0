"""What a container wrote, as a layer: read from overlayfs's own files, unpacked again, shown again. Root: overlayfs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.core.images_save import Archive, wanted_of
from agent.images.commit import Said, committed
from agent.images.layers import unpack_layer
from agent.images.overlay import mount_root, unmount
from agent.images.records import Limits
from agent.images.trees import remove_tree
from agent.images.written import root_pieces, write_layer
from model.errors import ImageError
from tests.contract.images_server import fake_registry, make_image
from tests.root.test_images_store import Stores

pytestmark = pytest.mark.root
BYTES_MAX = 1 << 20
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The root of a container, over a layer with a few files."""
    for name in ("base", "upper", "work", "root"):
        (tmp_path / name).mkdir()
    base = tmp_path / "base"
    for name in ("gone", "kept", "dir/old", "swept/old"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(name)
    mount_root([base], tmp_path / "upper", tmp_path / "work", tmp_path / "root")
    yield tmp_path / "root"
    unmount(tmp_path / "root")
    remove_tree(tmp_path)


def layer(root: Path, *leave_out: str) -> tuple[str | None, bytes]:
    raw = root.with_name("layer.tar")
    return write_layer(root.with_name("upper"), raw, leave_out, BYTES_MAX), raw.read_bytes()


def write(root: Path) -> None:
    (root / "gone").unlink()
    (root / "dir/new").write_bytes(b"x" * 700)
    os.link(root / "dir/new", root / "dir/second")
    (root / "link").symlink_to("/etc/passwd")
    remove_tree(root / "swept")
    (root / "swept").mkdir(mode=0o750)
    (root / "swept/new").write_text("new")
    (root / "tool").write_bytes(b"tool")
    os.chown(root / "tool", 1000, 1001)
    os.chmod(root / "tool", 0o4755)
    os.setxattr(root / "tool", "user.colour", b"r\xffed\0")
    os.setxattr(root / "tool", "security.capability", CAPABILITY)
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"b\xffd")).write_text("bytes")


def test_a_layer_shows_what_the_container_saw(root: Path, tmp_path: Path) -> None:
    write(root)
    diff_id, raw = layer(root)
    assert diff_id is not None
    again = tmp_path / "again"
    for name in ("layer", "upper", "work", "root"):
        (again / name).mkdir(parents=True)
    unpack_layer([raw], again / "layer", diff_id, "layer", Limits())
    mount_root([tmp_path / "base", again / "layer"], again / "upper", again / "work", again / "root")
    try:
        seen = again / "root"
        assert sorted(os.listdir(seen), key=os.fsencode) == sorted(os.listdir(root), key=os.fsencode)
        assert not (seen / "gone").exists()
        assert [sorted(os.listdir(seen / name)) for name in ("dir", "swept")] == [["new", "old", "second"], ["new"]]
        assert (seen / "dir/new").stat().st_ino == (seen / "dir/second").stat().st_ino
        tool = (seen / "tool").stat()
        assert (tool.st_uid, tool.st_gid, tool.st_mode & 0o7777) == (1000, 1001, 0o4755)
        assert os.getxattr(seen / "tool", "user.colour") == b"r\xffed\0"
        assert os.getxattr(seen / "tool", "security.capability") == CAPABILITY
        assert (seen / "link").readlink() == Path("/etc/passwd")
        assert (seen / "pipe").is_fifo()
    finally:
        unmount(seen)


def test_the_same_files_are_the_same_layer(root: Path) -> None:
    write(root)
    assert layer(root) == layer(root)


def test_only_what_is_the_containers_own_is_in_it(root: Path) -> None:
    assert layer(root)[0] is None
    (root / "etc").mkdir()
    (root / "etc/hosts").write_text("")
    (root / "data/deep").mkdir(parents=True)
    (root / "etc/mine").write_text("mine")
    os.mknod(root / "device", 0o600 | 0o020000, os.makedev(1, 3))
    with tarfile.open(fileobj=io.BytesIO(layer(root, "etc/hosts", "data")[1])) as found:
        assert found.getnames() == ["etc", "etc/mine"]


@pytest.mark.parametrize("what", ["whiteout", "deep", "large"])
def test_what_is_no_layer_is_refused_in_one_line(root: Path, what: str) -> None:
    here = root
    if what == "whiteout":
        (root / ".wh.kept").write_text("")
    elif what == "large":
        (root / "large").write_bytes(bytes(BYTES_MAX))
    else:
        for _ in range(401):
            here = here / "d"
            here.mkdir()
    with pytest.raises(ImageError, match=r"^cannot commit: "):
        layer(root)


async def test_a_commit_is_an_image_with_one_layer_more_that_others_can_have(root: Path, tmp_path: Path) -> None:
    with fake_registry() as registry:
        registry.put("shop/web:1", make_image({"base": b"base"}, Cmd=["/app"]))
        stores = Stores(tmp_path, registry)
        store = stores.new()
        base = await store.pull("shop/web:1")
        write(root)
        paused: list[str] = []

        @contextlib.asynccontextmanager
        async def written() -> AsyncIterator[Path]:
            paused.append("begin")
            yield root.with_name("upper")
            paused.append("end")

        raw = json.loads(store.details(base.id).config)

        def config_of(layer: str | None) -> bytes:
            assert paused == ["begin", "end"]
            return committed(raw, {"Cmd": ["sh"]}, Said("2026-11-22T12:00:00Z", "c"), layer)

        made = await store.commit(base.id, written(), ["link"], config_of, "mine:1")
        assert (made.names, made.layers[:-1], made.config.cmd) == (("mine:1",), base.layers, ("sh",))
        assert (made.layers[-1] / "dir/new").stat().st_size == 700
        assert not (made.layers[-1] / "link").exists()
        paused.clear()
        assert (await store.commit(base.id, written(), ["link"], config_of, "")).id == made.id
        archive = Archive(store.blob_path, [wanted_of(store.details(made.id), made.id, ("mine:1",))])
        (tmp_path / "archive").write_bytes(b"".join(archive.pieces()))
        archive.close()
        other = stores.new("other")
        assert [image.id for image in await other.load(tmp_path / "archive")] == [made.id]
        assert not list((tmp_path / "store/tmp").iterdir())
        for each in (store, other):
            await stores.close(each)


def test_an_export_is_all_that_the_container_sees(root: Path, tmp_path: Path) -> None:
    """Made an image and unpacked again it is the same tree, from whichever layer a file is."""
    write(root)
    os.link(root / "kept", root / "kept too")  # of the layer below: copied up
    (root / "mounted").mkdir()
    raw = b"".join(root_pieces(root))
    assert raw == b"".join(root_pieces(root))
    again = tmp_path / "again"
    (again / "fs").mkdir(parents=True)
    unpack_layer([raw], again / "fs", f"sha256:{hashlib.sha256(raw).hexdigest()}", "export", Limits())
    assert facts(again / "fs") == facts(root)
    assert not (again / "fs/gone").exists()
    assert (again / "fs/kept").stat().st_ino == (again / "fs/kept too").stat().st_ino


def facts(top: Path) -> dict[str, object]:
    """Of every file below, what an image keeps of it."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            own: tuple[object, ...] = (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime))
            if path.is_symlink():
                own += (path.readlink(),)
            else:
                own += tuple((each, os.getxattr(path, each)) for each in sorted(os.listxattr(path)))
                own += (path.read_bytes() if path.is_file() else b"",)
            found[str(path.relative_to(top))] = own
    return found


def test_an_export_leaves_the_root_by_no_link_and_no_mount(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("what is outside")
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "mounted").mkdir()
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    subprocess.run(["mount", "--bind", outside, root / "mounted"], check=True)
    try:
        raw = b"".join(root_pieces(root))
    finally:
        unmount(root / "mounted")
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        names = set(archive.getnames())
    assert {"out", "file"} <= names
    assert not {name for name in names if "secret" in name or name == "device"}
    assert b"what is outside" not in raw


def test_files_that_change_while_they_are_exported_break_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cut").write_bytes(b"x" * 5000)
    (root / "dir/first").write_text("first")
    (root / "dir/late").write_text("late")
    pieces = root_pieces(root)
    real = os.listxattr

    def meanwhile(fd: int) -> list[str]:
        (root / "cut").write_bytes(b"")
        if os.fstat(fd).st_size == len("first"):  # its directory is read already
            (root / "dir/late").unlink(missing_ok=True)
        return real(fd)

    monkeypatch.setattr(os, "listxattr", meanwhile)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getmember("cut").size == 5000
        assert "dir/late" not in archive.getnames()
        assert "swept/old" in archive.getnames()
