"""A container's files as a tar: what it wrote, as a layer (overlayfs's upper directory), or all of its root. The same bytes for
the same files.

Rules: synchronous, runs in a worker thread. The directory is a stranger's: every step is from a directory that is already open,
no link is followed, no device is opened, no other mount is entered. Names in order, times in whole seconds, no names of users.
In a layer whiteouts and opaque directories become the archive's own. Hard links stay links; of extended attributes `user.*` and
file capabilities are kept, as the unpacking does. Sockets and device nodes are left out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Final

from agent.images.trees import BENEATH, NO_XDEV, open_regular, openat2
from model.errors import ImageError

_WHITEOUT: Final = ".wh."
_OPAQUE_NAME: Final = ".wh..wh..opq"
_OPAQUE_XATTR: Final = "trusted.overlay.opaque"
_DEPTH_MAX: Final = 400
_PIECE_BYTES: Final = 1 << 20


def write_layer(upper: Path, target: Path, leave_out: Collection[str], bytes_max: int) -> str | None:
    """The layer's diff id; None when it holds nothing. `leave_out`: paths (`etc/hosts`) that are not the container's own, with
    all below. Raises ImageError."""
    tree, digest, left = _Tree("commit", frozenset(leave_out), is_layer=True), hashlib.sha256(), bytes_max
    with target.open("wb") as out, contextlib.closing(tree.pieces(upper)) as pieces:
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise ImageError("cannot commit: the container has written more than a layer may hold")
            digest.update(piece)
            out.write(piece)
    return f"sha256:{digest.hexdigest()}" if tree.entries else None


def root_pieces(root: Path) -> Generator[bytes, None, None]:
    """All a container sees in its own root (where overlayfs shows it) as a tar, without what is mounted on it.

    Raises ImageError.
    """
    held = bytearray()
    with contextlib.closing(_Tree("export", frozenset(), is_layer=False).pieces(root)) as pieces:
        for piece in pieces:
            held += piece
            if len(held) >= _PIECE_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held)


class _Tree:
    """`verb` is for messages. Of a layer, overlayfs's own signs become the archive's."""

    def __init__(self, verb: str, leave_out: frozenset[str], *, is_layer: bool) -> None:
        self.entries = 0
        self._verb = verb
        self._leave_out = leave_out
        self._is_layer = is_layer
        self._links: dict[tuple[int, int], str] = {}

    def pieces(self, top: Path) -> Generator[bytes, None, None]:
        root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        way = [(root, "", _names(root))]
        try:
            while way:
                fd, path, names = way[-1]
                name = next(names, None)
                if name is None:
                    os.close(way.pop()[0])
                    continue
                below = None
                try:
                    below = yield from self._entry(fd, f"{path}{name}", name)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EXDEV):  # gone meanwhile; another mount
                        raise
                if below is not None:
                    way.append((below, f"{path}{name}/", _names(below)))
                if len(way) > _DEPTH_MAX:
                    raise ImageError(f"cannot {self._verb}: directories are nested more than {_DEPTH_MAX} deep")
        finally:
            for fd, _, _ in way:
                os.close(fd)
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def _entry(self, parent: int, path: str, name: str) -> Generator[bytes, None, int | None]:
        """One entry. An open directory whose entries are to follow."""
        if path in self._leave_out:
            return None
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.mtime = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, int(found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            return (yield from self._directory(parent, name, info))
        if self._is_layer and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            yield self._head(_whiteout(path, name))
        elif self._is_layer and name.startswith(_WHITEOUT):
            raise ImageError(f"cannot commit: /{path}: in a layer a name that begins with {_WHITEOUT} takes another file away")
        elif stat.S_ISREG(found.st_mode):
            yield from self._file(parent, name, info)
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
            yield self._head(info)
        elif stat.S_ISFIFO(found.st_mode):
            info.type = tarfile.FIFOTYPE
            yield self._head(info)
        return None

    def _directory(self, parent: int, name: str, info: tarfile.TarInfo) -> Generator[bytes, None, int]:
        fd = openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, BENEATH | NO_XDEV)
        try:
            info.type = tarfile.DIRTYPE
            info.pax_headers = _xattrs(fd)
            yield self._head(info)
            if self._is_layer and _OPAQUE_XATTR in os.listxattr(fd) and os.getxattr(fd, _OPAQUE_XATTR) == b"y":
                yield self._head(tarfile.TarInfo(f"{info.name}/{_OPAQUE_NAME}"))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _file(self, parent: int, name: str, info: tarfile.TarInfo) -> Iterator[bytes]:
        fd = open_regular(parent, name, BENEATH | NO_XDEV)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            known = self._links.setdefault((found.st_dev, found.st_ino), info.name) if found.st_nlink > 1 else info.name
            if known != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, known
                yield self._head(info)
                return
            info.size = found.st_size
            info.pax_headers = _xattrs(fd)
            yield self._head(info)
            left = info.size
            while left and (piece := file.read(min(_PIECE_BYTES, left))):
                yield piece
                left -= len(piece)
            while left:  # it was cut meanwhile
                piece = bytes(min(_PIECE_BYTES, left))
                yield piece
                left -= len(piece)
            yield b"\0" * (-info.size % tarfile.BLOCKSIZE)

    def _head(self, info: tarfile.TarInfo) -> bytes:
        self.entries += 1
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _names(fd: int) -> Iterator[str]:
    return iter(sorted(os.listdir(fd), key=os.fsencode))


def _whiteout(path: str, name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(f"{path.removesuffix(name)}{_WHITEOUT}{name}")


def _xattrs(fd: int) -> dict[str, str]:
    kept = [name for name in sorted(os.listxattr(fd)) if name.startswith("user.") or name == "security.capability"]
    return {f"SCHILY.xattr.{name}": os.getxattr(fd, name).decode("utf-8", "surrogateescape") for name in kept}
