"""A build's context as a tar, made while it is sent: a folder's files without what its .dockerignore leaves out.

Rules: a file is read in pieces and never held; one that changes meanwhile is cut or filled to the size it had. Modes and links
are kept, owners are root, as Docker has it. A Dockerfile that is not of the context goes along under a name that the node takes
out again.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.dockerignore import Ignore, read_ignore
from model.errors import BadInput

OUTSIDE: Final = ".shoal-dockerfile"
DOCKERFILE: Final = "Dockerfile"
PIECE_BYTES: Final = 256 << 10
_TEXT_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """`folder` None: the Dockerfile is all there is. `dockerfile`: its path in the tar; `text`: what stands in it."""

    folder: Path | None
    ignore: Ignore
    dockerfile: str
    text: str

    @property
    def sends_text(self) -> bool:
        """The Dockerfile is not among the files of the context."""
        return self.dockerfile == OUTSIDE


def open_context(path: str, file: str = "", inline: str = "") -> Context:
    """`path`: a folder, or `-` for a Dockerfile from stdin; `file`: the Dockerfile, relative to where we are, or `-`; `inline`:
    its text instead. Raises BadInput."""
    if path == "-":
        if file or inline:
            raise BadInput("build -: the Dockerfile comes from stdin: leave -f away, or name a folder")
        return Context(None, Ignore(()), OUTSIDE, _stdin())
    if "://" in path or path.startswith("git@"):
        raise BadInput(f"{path}: contexts are not fetched: clone or unpack it, and name the folder")
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(f'unable to prepare context: path "{path}" ' + ("is no folder" if folder.exists() else "not found"))
    if inline or file == "-":
        return Context(folder, _ignore(folder, None), OUTSIDE, inline or _stdin())
    dockerfile = Path(file) if file else folder / DOCKERFILE
    text = _text(dockerfile, folder)
    ignore = _ignore(folder, dockerfile)
    inside = _inside(dockerfile, folder)
    if inside is None or ignore.covers(inside):
        return Context(folder, ignore, OUTSIDE, text)
    return Context(folder, ignore, inside, text)


def _stdin() -> str:
    if sys.stdin.isatty():
        raise BadInput("the Dockerfile would come from the terminal: redirect it, or name a folder")
    return _decoded(sys.stdin.buffer.read(_TEXT_BYTES_MAX + 1), "the Dockerfile on stdin")


def _text(dockerfile: Path, folder: Path) -> str:
    try:
        with dockerfile.open("rb") as found:
            return _decoded(found.read(_TEXT_BYTES_MAX + 1), str(dockerfile))
    except FileNotFoundError:
        raise BadInput(f"there is no {dockerfile}: name the Dockerfile with -f FILE (the context is {folder})") from None
    except OSError as error:
        raise BadInput(f"{dockerfile}: {error.strerror}") from None


def _decoded(data: bytes, name: str) -> str:
    if len(data) > _TEXT_BYTES_MAX:
        raise BadInput(f"{name} is longer than {_TEXT_BYTES_MAX} bytes")
    if data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar":
        raise BadInput(f"{name} is an archive: unpack it, and name the folder")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not UTF-8 text") from None


def _ignore(folder: Path, dockerfile: Path | None) -> Ignore:
    """`NAME.dockerignore` beside the Dockerfile goes before the context's own."""
    own = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    for file in (*own, folder / ".dockerignore"):
        try:
            return read_ignore(file.read_text(), str(file))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    return Ignore(())


def _inside(dockerfile: Path, folder: Path) -> str | None:
    """Its path in the context, when it stands there itself and not only as a link to elsewhere."""
    here, there = os.path.realpath(folder), os.path.realpath(dockerfile)
    named = os.path.abspath(dockerfile)
    if there.startswith(f"{here}/") and os.path.realpath(os.path.dirname(named)) + "/" + os.path.basename(named) == there:
        return os.path.relpath(there, here)
    return None


# the tar


def archive_of(context: Context) -> Iterator[bytes]:
    """The tar's bytes, in pieces of at most 256 KiB. Raises BadInput for a file that cannot be read."""
    if context.sends_text:
        data = context.text.encode()
        info = tarfile.TarInfo(OUTSIDE)
        info.size = len(data)
        yield from (_header(info), data, b"\0" * (-len(data) % tarfile.BLOCKSIZE))
    if context.folder is not None:
        yield from _folder(context.folder, context.ignore)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _folder(top: Path, ignore: Ignore) -> Iterator[bytes]:
    """In order of names, so that equal folders give equal archives. A folder that is left out comes along when something below
    it does not."""
    waiting: list[tarfile.TarInfo] = []  # folders left out, whose files may not be
    todo = [(entry, entry.name) for entry in _entries(top)]
    while todo:
        entry, path = todo.pop()
        found = _member(entry, path)
        if found is None:
            continue
        covered = ignore.covers(path)
        while waiting and not path.startswith(f"{waiting[-1].name}/"):
            waiting.pop()
        if found.isdir() and (not covered or ignore.takes_back):
            todo += [(each, f"{path}/{each.name}") for each in _entries(Path(entry.path))]
            if covered:
                waiting.append(found)
        if not covered:
            yield from (_header(above) for above in waiting)
            waiting.clear()
            yield from _content(found, entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Last name first."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise BadInput(f"build context: {folder}: {error.strerror}") from None


def _member(entry: os.DirEntry[str], path: str) -> tarfile.TarInfo | None:
    """None for sockets, pipes and devices."""
    try:
        info = entry.stat(follow_symlinks=False)
        link = os.readlink(entry.path) if stat.S_ISLNK(info.st_mode) else ""
    except OSError as error:
        raise BadInput(f"build context: {entry.path}: {error.strerror}") from None
    member = tarfile.TarInfo(path)
    member.mode, member.mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    elif stat.S_ISREG(info.st_mode):
        member.size = info.st_size
    else:
        return None
    return member


def _content(member: tarfile.TarInfo, path: str) -> Iterator[bytes]:
    if not member.isreg():
        yield _header(member)
        return
    try:
        with open(path, "rb") as file:
            yield _header(member)
            left = member.size
            while left:
                piece = file.read(min(PIECE_BYTES, left)) or b"\0" * min(PIECE_BYTES, left)
                left -= len(piece)
                yield piece
    except OSError as error:
        raise BadInput(f"build context: {path}: {error.strerror}: leave it out in .dockerignore, or let it be read") from None
    yield b"\0" * (-member.size % tarfile.BLOCKSIZE)


class Reader:
    """What an HTTP client reads: the pieces, joined to reads of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        found, self._left = (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        return found
