"""What a container wrote to its root, as a layer: overlayfs's upper directory as a tar, the same bytes for the same files.

Rules: synchronous, runs in a worker thread. The directory is a stranger's: every step is from a directory that is already open,
no link is followed, no device is opened. Names in order, times in whole seconds, no names of users. Whiteouts and opaque
directories become the archive's own; hard links stay links; of extended attributes `user.*` and file capabilities are kept, as
the unpacking does. Sockets and device nodes are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from agent.images.trees import BENEATH, open_regular, openat2
from model.errors import ImageError

_WHITEOUT: Final = ".wh."
_OPAQUE_NAME: Final = ".wh..wh..opq"
_OPAQUE_XATTR: Final = "trusted.overlay.opaque"
_DEPTH_MAX: Final = 400
_PIECE_BYTES: Final = 1 << 20


def write_layer(upper: Path, target: Path, leave_out: Collection[str], bytes_max: int) -> str | None:
    """The layer's diff id; None when it holds nothing. `leave_out`: paths (`etc/hosts`) that are not the container's own, with
    all below. Raises ImageError."""
    with target.open("wb") as out:
        return _Layer(out, frozenset(leave_out), bytes_max).write(upper)


class _Layer:
    def __init__(self, out: BinaryIO, leave_out: frozenset[str], bytes_max: int) -> None:
        self._out = out
        self._leave_out = leave_out
        self._left = bytes_max
        self._digest = hashlib.sha256()
        self._links: dict[tuple[int, int], str] = {}
        self._entries = 0

    def write(self, upper: Path) -> str | None:
        root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        way = [(root, "", _names(root))]
        try:
            while way:
                fd, path, names = way[-1]
                name = next(names, None)
                if name is None:
                    os.close(way.pop()[0])
                    continue
                below = None
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile, when the container was not paused
                    below = self._entry(fd, f"{path}{name}", name)
                if below is not None:
                    way.append((below, f"{path}{name}/", _names(below)))
                if len(way) > _DEPTH_MAX:
                    raise ImageError(f"cannot commit: directories are nested more than {_DEPTH_MAX} deep")
        finally:
            for fd, _, _ in way:
                os.close(fd)
        self._put(b"\0" * (2 * tarfile.BLOCKSIZE))
        return f"sha256:{self._digest.hexdigest()}" if self._entries else None

    def _entry(self, parent: int, path: str, name: str) -> int | None:
        """Write one entry. An open directory whose entries are to follow."""
        if path in self._leave_out:
            return None
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.mtime = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, int(found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            return self._directory(parent, name, info)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            self._head(_whiteout(path, name))
        elif name.startswith(_WHITEOUT):
            raise ImageError(f"cannot commit: /{path}: in a layer a name that begins with {_WHITEOUT} takes another file away")
        elif stat.S_ISREG(found.st_mode):
            self._file(parent, name, info)
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
            self._head(info)
        elif stat.S_ISFIFO(found.st_mode):
            info.type = tarfile.FIFOTYPE
            self._head(info)
        return None

    def _directory(self, parent: int, name: str, info: tarfile.TarInfo) -> int:
        fd = openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, BENEATH)
        try:
            info.type = tarfile.DIRTYPE
            info.pax_headers = _xattrs(fd)
            self._head(info)
            if _OPAQUE_XATTR in os.listxattr(fd) and os.getxattr(fd, _OPAQUE_XATTR) == b"y":
                self._head(tarfile.TarInfo(f"{info.name}/{_OPAQUE_NAME}"))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _file(self, parent: int, name: str, info: tarfile.TarInfo) -> None:
        fd = open_regular(parent, name, BENEATH)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            known = self._links.setdefault((found.st_dev, found.st_ino), info.name)
            if known != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, known
                self._head(info)
                return
            info.size = found.st_size
            info.pax_headers = _xattrs(fd)
            self._head(info)
            left = info.size
            while left and (piece := file.read(min(_PIECE_BYTES, left))):
                self._put(piece)
                left -= len(piece)
            while left:  # it was cut meanwhile
                piece = bytes(min(_PIECE_BYTES, left))
                self._put(piece)
                left -= len(piece)
            self._put(b"\0" * (-info.size % tarfile.BLOCKSIZE))

    def _head(self, info: tarfile.TarInfo) -> None:
        self._entries += 1
        self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _put(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise ImageError("cannot commit: the container has written more than a layer may hold")
        self._digest.update(data)
        self._out.write(data)


def _names(fd: int) -> Iterator[str]:
    return iter(sorted(os.listdir(fd), key=os.fsencode))


def _whiteout(path: str, name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(f"{path.removesuffix(name)}{_WHITEOUT}{name}")


def _xattrs(fd: int) -> dict[str, str]:
    kept = [name for name in sorted(os.listxattr(fd)) if name.startswith("user.") or name == "security.capability"]
    return {f"SCHILY.xattr.{name}": os.getxattr(fd, name).decode("utf-8", "surrogateescape") for name in kept}
