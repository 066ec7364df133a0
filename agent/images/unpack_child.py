"""The program that unpacks ONE layer: `python -I -S unpack_child.py DIRECTORY BYTES_MAX ENTRIES_MAX < layer.tar`.

Rules: a program of its own, standard library only, everything imported before chroot. Nothing is created before it
stands inside DIRECTORY as its root, so that no name, link or device in the archive can reach anything else. It prints
`entries bytes skipped` and ends with 0; otherwise it prints one line on stderr and ends with 1 (bad archive), 2 (too
big) or 28 (disk full).

What is made of the entries: whiteouts become overlayfs's (character device 0/0; xattr trusted.overlay.opaque on opaque
directories). Owner, mode with set-uid bits, times, hard links, user.* xattrs and file capabilities are kept. Device
nodes are skipped (a container's /dev is made by the runtime), other xattrs are dropped (overlayfs obeys some of them).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
READ_BYTES = 1 << 20
HEADER_BYTES_MAX = 1 << 20
ID_MAX = (1 << 32) - 2
TIME_S_MAX = 1 << 40
F_SETPIPE_SZ = 1031
OPAQUE = "trusted.overlay.opaque"
ZERO_BLOCK = bytes(BLOCK)


class BadArchive(Exception):
    pass


class TooBig(Exception):
    pass


class Source:
    """The tar stream on fd 0, read in large pieces."""

    def __init__(self) -> None:
        self.buffer = b""
        self.at = 0

    def some(self, wanted: int) -> bytes:
        """1 to `wanted` bytes; b"" at the end of the stream."""
        if self.at == len(self.buffer):
            self.buffer, self.at = os.read(0, READ_BYTES), 0
        piece = self.buffer[self.at : self.at + wanted]
        self.at += len(piece)
        return piece

    def exactly(self, wanted: int) -> bytes:
        piece = self.some(wanted)
        while len(piece) < wanted:
            more = self.some(wanted - len(piece))
            if not more:
                raise BadArchive("it ends in the middle of an entry")
            piece += more
        return piece

    def skip(self, count: int) -> None:
        while count > 0:
            piece = self.some(min(count, READ_BYTES))
            if not piece:
                raise BadArchive("it ends in the middle of an entry")
            count -= len(piece)


class Entry:
    """One header, long names and pax records applied."""

    __slots__ = ("gid", "link", "mode", "mtime", "name", "size", "type", "uid", "xattrs")

    def __init__(self, block: bytes, pax: dict[str, bytes]) -> None:
        self.type = block[156:157]
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
        name = _text(block[0:100])
        self.name = _decode(pax["path"]) if "path" in pax else (f"{prefix}/{name}" if prefix else name)
        self.link = _decode(pax["linkpath"]) if "linkpath" in pax else _text(block[157:257])
        self.mode = _number(block[100:108]) & 0o7777
        self.uid = _pax_int(pax, "uid", block[108:116])
        self.gid = _pax_int(pax, "gid", block[116:124])
        self.size = _pax_int(pax, "size", block[124:136])
        self.mtime = _pax_time(pax, block[136:148])
        self.xattrs = [
            (key[13:], value)
            for key, value in pax.items()
            if key.startswith(("SCHILY.xattr.user.", "SCHILY.xattr.security.capability"))
        ]
        if self.size < 0 or not 0 <= self.uid <= ID_MAX or not 0 <= self.gid <= ID_MAX:
            raise BadArchive(f"{self.name[:100]!r} has an impossible size or owner")


def entries(source: Source) -> Iterator[Entry]:
    """Every real entry; its data, if any, is to be read by the caller before the next is asked for."""
    everywhere: dict[str, bytes] = {}
    once: dict[str, bytes] = {}
    while True:
        block = source.some(BLOCK)
        if not block:
            return
        if len(block) < BLOCK:
            block += source.exactly(BLOCK - len(block))
        if block == ZERO_BLOCK:
            return
        _check_sum(block)
        kind = block[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            data = _header_data(source, block)
            if kind == b"g":
                everywhere |= _pax_records(data)
            elif kind == b"x":
                once |= _pax_records(data)
            else:
                once["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
            continue
        pax = {**everywhere, **once}
        if kind == b"S" or any(key.startswith("GNU.sparse.") for key in pax):
            raise BadArchive("it holds sparse files, which are not supported")
        yield Entry(block, pax)
        once = {}


def unpack(source: Source, bytes_max: int, entries_max: int) -> tuple[int, int, int]:
    """Unpack everything below `/`, return (entries, bytes, skipped)."""
    count = size = skipped = 0
    directory_times: list[tuple[str, int]] = []
    for entry in entries(source):
        count += 1
        has_data = entry.type in (b"0", b"\0", b"7")
        size += entry.size if has_data else 0
        if count > entries_max:
            raise TooBig(f"more than {entries_max} entries")
        if size > bytes_max:
            raise TooBig(f"more than {bytes_max} bytes")
        path = _clean(entry.name)
        base = path.rpartition("/")[2]
        if base.startswith(".wh."):
            _whiteout(path, base)
            has_data = False
        elif entry.type in (b"3", b"4") or (path == "/" and entry.type != b"5"):
            skipped += 1
            has_data = False
        else:
            _make(source, entry, path, directory_times)
        source.skip((0 if has_data else entry.size) + -entry.size % BLOCK)
    for path, mtime in reversed(directory_times):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    return count, size, skipped


def _make(source: Source, entry: Entry, path: str, directory_times: list[tuple[str, int]]) -> None:
    kind = entry.type
    if kind == b"5":
        _directory(path)
        directory_times.append((path, entry.mtime))
    else:
        _free(path)
        if kind in (b"0", b"\0", b"7"):
            _file(source, entry, path)
            return
        if kind == b"1":
            os.link(_clean(entry.link), path, follow_symlinks=False)
            source.skip(entry.size)
            return
        if kind == b"2":
            os.symlink(entry.link, path)
        elif kind == b"6":
            os.mkfifo(path)
        else:
            raise BadArchive(f"{path[:100]!r} has the unknown type {kind!r}")
    source.skip(entry.size)
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if kind != b"2":
        os.chmod(path, entry.mode)
        for name, value in entry.xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
    if kind != b"5":
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)


def _file(source: Source, entry: Entry, path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        left = entry.size
        while left:
            piece = source.some(left)
            if not piece:
                raise BadArchive("it ends in the middle of a file")
            left -= len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs:
            os.setxattr(fd, name, value)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(fd)


def _whiteout(path: str, base: str) -> None:
    parent = path[: -len(base)].rstrip("/") or "/"
    _parents(path)
    if base == ".wh..wh..opq":
        os.setxattr(parent, OPAQUE, b"y")
        return
    if base.startswith(".wh..wh."):
        return  # aufs's own book-keeping
    name = base[4:]
    if name in ("", ".", ".."):
        raise BadArchive(f"{path[:100]!r} is a whiteout of nothing")
    hidden = f"{parent.rstrip('/')}/{name}"
    try:
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
    except FileExistsError:  # this layer's own entry stays; a directory hides what is below it
        if stat.S_ISDIR(os.lstat(hidden).st_mode):
            os.setxattr(hidden, OPAQUE, b"y")


def _directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileNotFoundError:
        _parents(path)
        os.mkdir(path, 0o755)
    except FileExistsError:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(path)
            os.mkdir(path, 0o755)
            if stat.S_ISCHR(mode):
                os.setxattr(path, OPAQUE, b"y")


def _free(path: str) -> None:
    """Make room for a new entry: parents exist, nothing stands there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        _parents(path)
        return
    if stat.S_ISDIR(mode):
        _remove_tree(path)
    else:
        os.unlink(path)


def _parents(path: str) -> None:
    missing = []
    parent = path.rpartition("/")[0]
    while parent and not os.path.isdir(parent):
        missing.append(parent)
        parent = parent.rpartition("/")[0]
    for directory in reversed(missing):
        os.mkdir(directory, 0o755)


def _remove_tree(path: str) -> None:
    for top, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{top}/{name}")
        for name in directories:
            full = f"{top}/{name}"
            (os.unlink if os.path.islink(full) else os.rmdir)(full)
    os.rmdir(path)


def _clean(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f"{name[:100]!r} leads upwards")
    if "\0" in name:
        raise BadArchive(f"{name[:100]!r} holds a zero byte")
    return "/" + "/".join(parts)


def _header_data(source: Source, block: bytes) -> bytes:
    size = _number(block[124:136])
    if not 0 <= size <= HEADER_BYTES_MAX:
        raise BadArchive("it holds an extended header of impossible size")
    data = source.exactly(size) if size else b""
    source.skip(-size % BLOCK)
    return data


def _pax_records(data: bytes) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        length, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if length.isdigit() else -1
        key, equals, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        if not space or not equals or end <= at or end > len(data):
            raise BadArchive("it holds a broken pax header")
        records[_decode(key)] = value
        at = end
    return records


def _check_sum(block: bytes) -> None:
    wanted = _number(block[148:156])
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    if wanted != plain:
        raise BadArchive("a header's checksum is wrong")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") - (field[0] << 8 * (len(field) - 1))
        return number + ((field[0] & 0x7F) << 8 * (len(field) - 1)) if field[0] != 0xFF else -1
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise BadArchive("a header holds a number that is none") from None


def _pax_int(pax: dict[str, bytes], key: str, field: bytes) -> int:
    if key not in pax:
        return _number(field)
    if not pax[key].isdigit() or len(pax[key]) > 20:
        raise BadArchive(f"pax field {key} is not a number")
    return int(pax[key])


def _pax_time(pax: dict[str, bytes], field: bytes) -> int:
    """Nanoseconds; times no file system can hold become 0."""
    try:
        seconds = float(pax["mtime"]) if "mtime" in pax else float(_number(field))
    except ValueError:
        seconds = 0.0
    return int(seconds * 1e9) if 0 <= seconds < TIME_S_MAX else 0


def _text(field: bytes) -> str:
    return _decode(field.partition(b"\0")[0])


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def main(directory: str, bytes_max: int, entries_max: int) -> int:
    try:  # noqa: SIM105 - importing contextlib is a third of this program's start
        fcntl.fcntl(0, F_SETPIPE_SZ, READ_BYTES)
    except OSError:  # no pipe, or the user's pipe memory is used up: only slower
        pass
    "x".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")  # codecs are loaded now, not after chroot
    os.umask(0)
    os.chroot(directory)
    os.chdir("/")
    source = Source()
    try:
        count, size, skipped = unpack(source, bytes_max, entries_max)
        while source.some(READ_BYTES):
            pass  # the parent hashes what stands after the archive's end, too
    except BadArchive as error:
        return _fail(1, str(error))
    except TooBig as error:
        return _fail(2, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = repr(error.filename[:100]) if isinstance(error.filename, str) else "a file's owner, mode or attributes"
        return _fail(28 if full else 1, f"{where}: {error.strerror}")
    except RecursionError:
        return _fail(1, "its directories are nested too deeply")
    except ValueError as error:
        return _fail(1, f"it is malformed ({error})")
    os.write(1, b"%d %d %d\n" % (count, size, skipped))
    return 0


def _fail(code: int, line: str) -> int:
    os.write(2, line.encode("utf-8", "backslashreplace")[:500].replace(b"\n", b" ") + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
