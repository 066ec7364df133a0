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
    "thousand deep, then a file": lambda t, out: (t.directory("d/" * 1500), t.file("d")),
    "dotdot alone": lambda t, out: t.directory(".."),
    "dotdot behind a name": lambda t, out: t.directory("a/.."),
    "dotdot behind the root": lambda t, out: t.file(f"/..{out}/canary"),
    "dotdot with backslashes": lambda t, out: t.file("..\\..\\pwned"),
    "only slashes": lambda t, out: t.file("////"),
    "a file with a slash at its end": lambda t, out: (t.link("d", str(out)), t.file("d/")),
    "bytes that are no UTF-8": lambda t, out: t.file("a\udcff\udc80/../../pwned"),
    "directory through a link": lambda t, out: (t.link("x", str(out)), t.directory("x/sub")),
    "link through a link": lambda t, out: (t.link("x", str(out)), t.link("x/l", "/etc/passwd")),
    "fifo through a link": lambda t, out: (t.link("x", str(out)), t.add("x/p", tarfile.FIFOTYPE)),
    "device through a link": lambda t, out: (t.link("x", str(out)), t.add("x/null", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "hard link made through a link": lambda t, out: (t.file("f"), t.link("x", str(out)), t.hard("x/h", "f")),
    "hard link to a directory": lambda t, out: (t.directory("d"), t.hard("h", "d"), t.file("h/pwned")),
    "hard link to the root": lambda t, out: t.hard("h", "/"),
    "hard link to itself": lambda t, out: (t.file("h"), t.hard("h", "h")),
    "hard link to the machine's passwd": lambda t, out: (t.hard("h", "/etc/passwd"), t.file("h")),
    "hard link by proc": lambda t, out: (t.hard("h", f"/proc/self/root{out}/canary"), t.file("h")),
    "chain of forty links": lambda t, out: (
        [t.link(f"l{n}", f"l{n + 1}") for n in range(40)], t.link("l40", str(out)), t.file("l0/pwned")),
    "link to where one comes from": lambda t, out: (
        t.directory("d"), t.link("d/up", ".."), t.file(f"d/up/up/../../{out}/pwned")),
    "links that climb": lambda t, out: (
        t.link("a", ".."), t.link("b", "a/.."), t.link("c", f"b/..{out}"), t.file("c/canary")),
    "dev is a link": lambda t, out: (t.link("dev", str(out)), t.file("dev/canary"), t.file("dev/null")),
    "dev is a link to dev": lambda t, out: (t.link("d", "/dev"), t.file("d/shm/pwned")),
    "proc is a link": lambda t, out: (t.link("proc", str(out)), t.file("proc/canary")),
    "sys is a link to proc": lambda t, out: (t.link("sys", "/proc"), t.file("sys/sysrq-trigger", b"x")),
    "core pattern": lambda t, out: t.file("proc/sys/kernel/core_pattern", b"|/pwned"),
    "etc is a link": lambda t, out: (t.link("etc", str(out)), t.file("etc/passwd")),
    "whiteout of a link": lambda t, out: (t.link("x", f"{out}/canary"), t.file(".wh.x", b"")),
    "whiteout, then through it": lambda t, out: (t.file(".wh.x", b""), t.file("x/pwned")),
    "whiteout of the root": lambda t, out: t.file(".wh.", b""),
    "whiteout with data": lambda t, out: t.file("a/.wh.b", b"x" * 5000),
    "whiteout that is a link": lambda t, out: t.link(".wh.x", str(out)),
    "whiteout of a whiteout": lambda t, out: t.file(".wh..wh.x", b""),
    "opaque root": lambda t, out: t.file(".wh..wh..opq", b""),
    "opaque over a file": lambda t, out: (t.file("f"), t.file("f/.wh..wh..opq", b"")),
    "opaque over a link to the root": lambda t, out: (t.link("r", "/"), t.file("r/.wh..wh..opq", b"")),
    "opaque by attribute": lambda t, out: t.directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
    "metacopy by attribute": lambda t, out: t.file("f", pax_headers={"SCHILY.xattr.trusted.overlay.metacopy": ""}),
    "redirect of an unprivileged overlay": lambda t, out: t.directory(
        "d", pax_headers={"SCHILY.xattr.user.overlay.redirect": str(out)}),
    "a label": lambda t, out: t.file("f", pax_headers={"SCHILY.xattr.security.selinux": "x"}),
    "an access list": lambda t, out: t.file("f", pax_headers={"SCHILY.xattr.system.posix_acl_access": "x" * 28}),
    "an attribute by another name": lambda t, out: t.file("f", pax_headers={"LIBARCHIVE.xattr.trusted.overlay.opaque": "eQ=="}),
    "an attribute of a link": lambda t, out: t.add(
        "l", tarfile.SYMTYPE, link=f"{out}/canary", pax_headers={"SCHILY.xattr.user.x": "1"}),
    "an attribute of 100 kB": lambda t, out: t.file("f", pax_headers={"SCHILY.xattr.user.x": "x" * 100_000}),
    "an attribute without a name": lambda t, out: t.file("f", pax_headers={"SCHILY.xattr.user.": "x"}),
    "pax path in capitals": lambda t, out: t.file("f", pax_headers={"PATH": f"{out}/canary", "Path": f"{out}/pwned"}),
    "pax link in capitals": lambda t, out: (
        t.add("l", tarfile.SYMTYPE, link="f", pax_headers={"LINKPATH": str(out)}), t.file("l")),
    "pax path with a zero byte": lambda t, out: t.file("f", pax_headers={"path": f"ok\0{out}/canary"}),
    "pax path that is empty": lambda t, out: t.file("f", pax_headers={"path": ""}),
    "pax header of 2 MB": lambda t, out: t.file("f", pax_headers={"comment": "x" * (2 << 20)}),
    "pax size of an exabyte": lambda t, out: t.file("f", pax_headers={"size": str(1 << 60)}),
    "pax size below zero": lambda t, out: t.file("f", pax_headers={"size": "-512"}),
    "pax size in words": lambda t, out: t.file("f", pax_headers={"size": "1e3"}),
    "pax time that is none": lambda t, out: t.file("f", pax_headers={"mtime": "nan"}),
    "pax time without end": lambda t, out: t.file("f", pax_headers={"mtime": "inf"}),
    "pax owner in other digits": lambda t, out: t.file("f", pax_headers={"uid": "\u0661"}),
    "sparse file of 8 exabytes": lambda t, out: t.file(
        "f", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 63)}),
    "sparse file, the old way": lambda t, out: t.add("f", b"S", b"x"),
    "GNU long name that climbs": lambda t, out: t.add("././@LongLink", b"L", f"../{out}/canary\0".encode()).file("f"),
    "GNU long link": lambda t, out: (
        t.add("././@LongLink", b"K", f"{out}\0".encode()).link("l", "x"), t.file("l/pwned")),
    "GNU long name of nothing": lambda t, out: t.add("././@LongLink", b"L", b"x\0"),
    "GNU long name of 2 MB": lambda t, out: t.add("././@LongLink", b"L", b"x" * (2 << 20)).file("f"),
    "an unknown kind": lambda t, out: t.add("f", b"Z", b"x"),
    "a volume's name": lambda t, out: t.add(str(out), b"V"),
    "six thousand hard links": lambda t, out: (t.file("f"), [t.hard(f"h{n}", "f") for n in range(6000)]),
    "the same file a thousand times": lambda t, out: [t.file("f", bytes([n % 256])) for n in range(1000)],
    "a file, a directory, a link by one name": lambda t, out: (
        t.file("x"), t.directory("x"), t.file("x/y"), t.link("x", str(out)), t.file("x"), t.link("x", str(out)),
        t.file("x/pwned")),
    "a set-uid link": lambda t, out: (t.add("l", tarfile.SYMTYPE, link=f"{out}/canary", mode=0o4777, uid=1234)),
    "time of a directory that became a link": lambda t, out: (t.directory("d", mtime=1), t.link("d", str(out))),
    "data behind a link": lambda t, out: t.add("l", tarfile.SYMTYPE, b"x" * 1000, link=str(out)).file("l/pwned"),
}  # fmt: skip
REFUSED: dict[str, tuple[str, ...]] = {
    "nested too deeply": ("thousand deep, then a file",),
    "leads upwards": (
        "dotdot", "dotdot deep", "dotdot to the canary", "hard link by dotdot", "whiteout outside", "pax path",
        "new line in a name", "dotdot alone", "dotdot behind a name", "dotdot behind the root", "bytes that are no UTF-8",
        "link to where one comes from", "GNU long name that climbs",
    ),
    "File exists": (
        "link out, file through it", "relative link out", "link chain", "link over a directory", "link to proc self root",
        "link to proc self cwd", "link to proc fd", "link to proc 1 root", "whiteout through a link", "opaque through a link",
        "pax link", "directory through a link", "link through a link", "fifo through a link", "hard link made through a link",
        "links that climb", "dev is a link", "dev is a link to dev", "proc is a link", "sys is a link to proc",
        "etc is a link", "opaque over a file", "GNU long link", "a file, a directory, a link by one name",
    ),
    "No such file or directory": (
        "hard link to outside", "hard link through a link", "hard link to itself", "hard link to the machine's passwd",
        "hard link by proc",
    ),
    "Too many levels of symbolic links": (
        "deep link loop", "two links into each other", "chain of forty links",
    ),
    "File name too long": (
        "very long name", "long component",
    ),
    "is a whiteout of nothing": (
        "whiteout of dotdot", "whiteout of dot", "whiteout of the root",
    ),
    "Operation not permitted": (
        "hard link to a directory", "hard link to the root",
    ),
    "Not a directory": (
        "whiteout, then through it",
    ),
    "Argument list too long": (
        "an attribute of 100 kB",
    ),
    "Invalid argument": (
        "an attribute without a name",
    ),
    "holds a zero byte": (
        "pax path with a zero byte",
    ),
    "of impossible size": (
        "pax header of 2 MB", "GNU long name of 2 MB",
    ),
    "more than 67108864 bytes": (
        "pax size of an exabyte",
    ),
    "more than 5000 entries": (
        "six thousand hard links",
    ),
    "is not a number": (
        "pax size below zero", "pax size in words", "pax owner in other digits",
    ),
    "sparse files, which are not supported": (
        "sparse file of 8 exabytes", "sparse file, the old way",
    ),
    "has the unknown type": (
        "an unknown kind", "a volume's name",
    ),
}  # fmt: skip
"""What a person reads of those that are refused; the others become something harmless."""


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
    line = next((line for line, names in REFUSED.items() if name in names), "")
    with pytest.raises(ImageError, match=line) if line else contextlib.nullcontext():
        unpack(tar.done(), tmp_path / "target" / "fs")
    assert state(tmp_path) == before
    left = [str(tmp_path / "target" / "fs")]
    while left:  # os.walk calls itself, and some of these are deep
        for entry in os.scandir(left.pop()):
            mode = entry.stat(follow_symlinks=False).st_mode
            assert not stat.S_ISBLK(mode)
            left += [entry.path] if stat.S_ISDIR(mode) else []


def test_the_corpus_is_large_enough() -> None:
    assert len(HOSTILE) >= 110
    assert {name for names in REFUSED.values() for name in names} <= HOSTILE.keys()


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
