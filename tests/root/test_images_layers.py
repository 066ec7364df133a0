"""Layers: what a stranger's archive may do to the machine (nothing), and what of it is kept."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from agent.images.layers import unpack_layer
from agent.images.records import Limits
from agent.images.trees import remove_tree
from model.errors import DiskFull, ImageError

pytestmark = pytest.mark.root
LIMITS = Limits(unpacked_bytes=64 << 20, entries=5000)
Maker = Callable[["Tar", Path], object]


class Tar:
    """Builds an archive member by member; nothing is checked."""

    def __init__(self) -> None:
        self.raw = io.BytesIO()
        self.archive = tarfile.open(fileobj=self.raw, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", **more: Any) -> Tar:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname, info.mode = kind, len(data), link, 0o755
        for key, value in more.items():
            setattr(info, key, value)
        self.archive.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"pwned", **more: Any) -> Tar:
        return self.add(name, data=data, **more)

    def directory(self, name: str, **more: Any) -> Tar:
        return self.add(name, tarfile.DIRTYPE, **more)

    def link(self, name: str, to: str) -> Tar:
        return self.add(name, tarfile.SYMTYPE, link=to)

    def hard(self, name: str, to: str) -> Tar:
        return self.add(name, tarfile.LNKTYPE, link=to)

    def done(self) -> bytes:
        self.archive.close()
        return self.raw.getvalue()


def make(*steps: Callable[[Tar], object]) -> bytes:
    tar = Tar()
    for step in steps:
        step(tar)
    return tar.done()


def unpack(data: bytes, directory: Path, diff_id: str | None = None, limits: Limits = LIMITS) -> int:
    pieces = (data[at : at + 65536] for at in range(0, len(data), 65536))
    return unpack_layer(pieces, directory, diff_id, "image x", limits).entries


# Each hostile archive: (name, how it is made). `out` is a directory outside the target, writable by root.
HOSTILE: dict[str, Maker] = {
    "dotdot": lambda t, out: t.file("../pwned"),
    "dotdot deep": lambda t, out: t.file("a/b/../../../../../../pwned"),
    "dotdot to the canary": lambda t, out: t.file(f"{'../' * 30}{out}/canary"),
    "absolute": lambda t, out: t.file(f"{out}/pwned"),
    "absolute canary": lambda t, out: t.file(f"{out}/canary"),
    "double slash": lambda t, out: t.file(f"//{out}//canary"),
    "link out, file through it": lambda t, out: (t.link("x", str(out)), t.file("x/pwned")),
    "relative link out": lambda t, out: (t.link("x", "../../../../../../.." + str(out)), t.file("x/canary")),
    "link to root": lambda t, out: (t.link("r", "/"), t.file(f"r/{out}/pwned")),
    "link chain": lambda t, out: (t.link("a", "b"), t.link("b", "c"), t.link("c", str(out)), t.file("a/pwned")),
    "link over a directory": lambda t, out: (t.directory("d"), t.link("d", str(out)), t.file("d/pwned")),
    "directory over a link": lambda t, out: (t.link("d", str(out)), t.directory("d", mode=0o777), t.file("d/pwned")),
    "file over a link": lambda t, out: (t.link("f", f"{out}/canary"), t.file("f")),
    "chmod through a link": lambda t, out: (t.link("f", f"{out}/canary"), t.directory("f", mode=0o777)),
    "hard link to outside": lambda t, out: (t.hard("h", f"{out}/canary"), t.file("h")),
    "hard link by dotdot": lambda t, out: (t.hard("h", f"{'../' * 30}{out}/canary"), t.file("h")),
    "hard link through a link": lambda t, out: (t.link("x", str(out)), t.hard("h", "x/canary"), t.file("h")),
    "hard link onto a link": lambda t, out: (t.link("x", f"{out}/canary"), t.hard("h", "x"), t.file("h")),
    "proc self root": lambda t, out: t.file(f"proc/self/root/{out}/pwned"),
    "link to proc self root": lambda t, out: (t.link("x", "/proc/self/root"), t.file(f"x/{out}/pwned")),
    "link to proc self cwd": lambda t, out: (t.link("x", "/proc/self/cwd/.."), t.file("x/pwned")),
    "link to proc fd": lambda t, out: [(t.link(f"x{n}", f"/proc/self/fd/{n}"), t.file(f"x{n}/pwned")) for n in range(12)],
    "link to proc 1 root": lambda t, out: (t.link("x", "/proc/1/root"), t.file(f"x/{out}/canary")),
    "whiteout outside": lambda t, out: t.file(f"{'../' * 30}{out}/.wh.canary", b""),
    "whiteout through a link": lambda t, out: (t.link("x", str(out)), t.file("x/.wh.canary", b"")),
    "whiteout of dotdot": lambda t, out: t.file("a/.wh...", b""),
    "whiteout of dot": lambda t, out: t.file("a/.wh..", b""),
    "opaque through a link": lambda t, out: (t.link("x", str(out)), t.file("x/.wh..wh..opq", b"")),
    "block device": lambda t, out: (t.add("sda", tarfile.BLKTYPE, devmajor=8, devminor=0), t.file("sda")),
    "kernel memory": lambda t, out: t.add("dev/mem", tarfile.CHRTYPE, devmajor=1, devminor=1),
    "overlay whiteout forged": lambda t, out: t.add("x", tarfile.CHRTYPE, devmajor=0, devminor=0),
    "pax path": lambda t, out: t.file("innocent", pax_headers={"path": f"{'../' * 30}{out}/pwned"}),
    "pax link": lambda t, out: (t.add("l", tarfile.SYMTYPE, pax_headers={"linkpath": str(out)}), t.file("l/pwned")),
    "global pax path": lambda t, out: t.file("innocent", pax_headers={"path": f"{out}/canary"}),
    "overlay redirect": lambda t, out: t.directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": str(out)}),
    "deep link loop": lambda t, out: (t.link("l", "l"), t.file("l/pwned")),
    "two links into each other": lambda t, out: (t.link("a", "b/x"), t.link("b", "a/y"), t.file("a/pwned")),
    "fifo then written": lambda t, out: (t.add("p", tarfile.FIFOTYPE), t.file("p")),
    "root becomes a link": lambda t, out: (t.link(".", str(out)), t.file("pwned")),
    "root becomes a file": lambda t, out: (t.file("/"), t.file("pwned")),
    "empty name": lambda t, out: (t.file(""), t.link("", str(out))),
    "new line in a name": lambda t, out: t.file("a\n../../pwned"),
    "very long name": lambda t, out: t.file("d/" * 3000 + "pwned"),
    "long component": lambda t, out: t.file("x" * 5000),
    "thousand deep, then a link": lambda t, out: (t.directory("d/" * 1000), t.link("d/" * 1000 + "l", str(out))),
}  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory with a canary beside the target; what the archives aim at."""
    out = tmp_path / "outside"
    out.mkdir(mode=0o755)
    (out / "canary").write_text("alive")
    (out / "canary").chmod(0o640)
    (tmp_path / "target" / "fs").mkdir(parents=True)
    yield out
    remove_tree(tmp_path / "target")


def state(tmp_path: Path) -> list[object]:
    """Everything outside the target that an escape could change."""
    seen: list[object] = [sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path / "target")), sorted(os.listdir("/"))]
    for path in (tmp_path / "outside", tmp_path / "outside" / "canary"):
        info = path.lstat()
        attributes = sorted(os.listxattr(path))
        seen.append((path.name, info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, info.st_ino, attributes))
    seen.append((tmp_path / "outside" / "canary").read_text())
    seen.append(sorted(os.listdir(tmp_path / "outside")))
    return seen


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_changes_nothing_outside(name: str, tmp_path: Path, outside: Path) -> None:
    tar = Tar()
    HOSTILE[name](tar, outside)
    before = state(tmp_path)
    with contextlib.suppress(ImageError):  # refused or unpacked: both are right, reaching out is not
        unpack(tar.done(), tmp_path / "target" / "fs")
    assert state(tmp_path) == before
    for top, _, files in os.walk(tmp_path / "target" / "fs"):
        for file in files:
            assert not stat.S_ISBLK(os.lstat(os.path.join(top, file)).st_mode)


def test_the_corpus_is_large_enough() -> None:
    assert len(HOSTILE) >= 30


BAD: dict[str, tuple[bytes, str]] = {
    "no tar": (b"not a tar archive" * 100, "header"),
    "cut in a file": (make(lambda t: t.file("a", b"x" * 4096))[:2000], "ends in the middle"),
    "cut in a header": (make(lambda t: t.file("a", b""))[:100], "ends in the middle"),
    "bad checksum": (b"b" + make(lambda t: t.file("a", b""))[1:], "checksum"),
    "cut gzip": (gzip.compress(make(lambda t: t.file("a")))[:-9], "too early"),
    "broken gzip": (gzip.compress(make(lambda t: t.file("a", os.urandom(4096))))[:200] + b"\0" * 200, "gzip"),
    "cut zstd": (zstd.compress(make(lambda t: t.file("a", os.urandom(4096))))[:-9], "too early"),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 200, "zstd"),
    "sparse": (make(lambda t: t.add("s", b"S", b"x")), "sparse"),
    "impossible owner": (make(lambda t: t.file("a", pax_headers={"uid": "99999999999"})), "impossible"),
    "hard link to nothing": (make(lambda t: t.hard("a", "missing")), "No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_archive_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, word = BAD[name]
    with pytest.raises(ImageError, match=word) as caught:
        unpack(data, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("image x: ")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    bomb = gzip.compress(make(lambda t: t.file("bomb", bytes(200 << 20))))
    with pytest.raises(ImageError, match="more than 67108864 bytes"):
        unpack(bomb, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) <= LIMITS.unpacked_bytes
    many = make(lambda t: [t.directory(f"d{n}") for n in range(5001)])
    with pytest.raises(ImageError, match="more than 5000 entries"):
        unpack(many, tmp_path)


def test_the_content_must_match_the_config(tmp_path: Path) -> None:
    data = make(lambda t: t.file("a"))
    unpack(gzip.compress(data), tmp_path, f"sha256:{hashlib.sha256(data).hexdigest()}")
    with pytest.raises(ImageError, match="diff_id"):
        unpack(data, tmp_path, "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        lambda data: gzip.compress(data),
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(64),
        lambda data: zstd.compress(data),
        lambda data: zstd.compress(data[:700]) + zstd.compress(data[700:]),
    ],
    ids=["plain", "gzip", "gzip members", "zstd", "zstd frames"],
)
def test_every_compression_gives_the_same(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = make(lambda t: t.file("dir/file", b"x" * 5000), lambda t: t.link("l", "dir/file"))
    unpack(pack(data), tmp_path, f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert (tmp_path / "l").read_bytes() == b"x" * 5000


def test_what_is_kept(tmp_path: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    data = make(
        lambda t: t.directory("home/ann", uid=1000, gid=1001, mode=0o2750, mtime=1_600_000_000),
        lambda t: t.file("bin/su", b"#!", uid=0, gid=5, mode=0o4755, mtime=1_500_000_000),
        lambda t: t.hard("bin/su2", "bin/su"),
        lambda t: t.add("l", tarfile.SYMTYPE, link="../../etc/passwd", uid=7, gid=8),
        lambda t: t.add("pipe", tarfile.FIFOTYPE),
        lambda t: t.add("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        lambda t: t.file(
            "ping", b"p",
            pax_headers={
                "SCHILY.xattr.security.capability": capability.decode("latin-1"),
                "SCHILY.xattr.user.note": "hello",
                "SCHILY.xattr.trusted.overlay.metacopy": "",
                "mtime": "1400000000.5",
            },
        ),
        lambda t: t.file("n" * 90 + "/" + "m" * 150, b"long", uname="root"),
        lambda t: t.file("grüße.txt", b"utf-8"),
        lambda t: t.file("again", b"first"),
        lambda t: t.file("again", b"second"),
    )  # fmt: skip
    unpack(data, tmp_path)
    home, su = (tmp_path / "home/ann").stat(), (tmp_path / "bin/su").stat()
    assert (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode), home.st_mtime) == (1000, 1001, 0o2750, 1_600_000_000)
    assert (su.st_uid, su.st_gid, stat.S_IMODE(su.st_mode), su.st_mtime) == (0, 5, 0o4755, 1_500_000_000)
    assert (tmp_path / "bin/su2").stat().st_ino == su.st_ino
    assert os.readlink(tmp_path / "l") == "../../etc/passwd"
    assert (tmp_path / "l").lstat().st_uid == 7
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert not (tmp_path / "null").exists()
    assert os.getxattr(tmp_path / "ping", "security.capability")[:4] == capability[:4]
    assert sorted(os.listxattr(tmp_path / "ping")) == ["security.capability", "user.note"]
    assert (tmp_path / "ping").stat().st_mtime == 1_400_000_000.5
    assert (tmp_path / ("n" * 90) / ("m" * 150)).read_bytes() == b"long"
    assert (tmp_path / "grüße.txt").read_bytes() == b"utf-8"
    assert (tmp_path / "again").read_bytes() == b"second"
    assert stat.S_IMODE(tmp_path.joinpath("bin").stat().st_mode) == 0o755


def test_gnu_long_names_and_large_numbers(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("d/" + "x" * 200)
        info.size, info.uid, info.mtime = 3, 3_000_000, 1_000_000
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, "d/" + "x" * 200
        archive.addfile(link)
    unpack(raw.getvalue(), tmp_path)
    assert (tmp_path / "l").read_bytes() == b"abc"
    assert (tmp_path / "l").stat().st_uid == 3_000_000


def test_whiteouts_become_those_of_overlayfs(tmp_path: Path) -> None:
    data = make(
        lambda t: t.file("a/.wh.gone", b""),
        lambda t: t.directory("o"),
        lambda t: t.file("o/.wh..wh..opq", b""),
        lambda t: t.file("o/new"),
        lambda t: t.file(".wh.replaced", b""),
        lambda t: t.directory("replaced"),
        lambda t: t.file("kept", b"mine"),
        lambda t: t.file(".wh.kept", b""),
        lambda t: t.directory("late"),
        lambda t: t.file(".wh.late", b""),
        lambda t: t.file(".wh..wh.aufs", b""),
    )
    unpack(data, tmp_path)
    gone = (tmp_path / "a/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    for opaque in ("o", "replaced", "late"):
        assert os.getxattr(tmp_path / opaque, "trusted.overlay.opaque") == b"y", opaque
    assert (tmp_path / "kept").read_bytes() == b"mine"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".wh.")]


def test_a_full_disk_is_named(tmp_path: Path, tiny_disk: Path) -> None:
    (tiny_disk / "fs").mkdir()
    data = make(lambda t: t.file("big", bytes(4 << 20)))
    with pytest.raises(DiskFull, match="disk full at "):
        unpack(data, tiny_disk / "fs")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    directory = tmp_path / "tiny"
    directory.mkdir()
    assert libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"size=1m") == 0
    yield directory
    assert libc.umount2(os.fsencode(directory), 2) == 0
