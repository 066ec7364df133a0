"""Turning a layer's bytes into a directory.

Rules: this side decompresses, counts and hashes; a child that has changed its root does all the writing (see
unpack_child.py). Nothing is unpacked in this process, no fork without exec. What did not match its diff_id is an error
and its directory is thrown away by the caller.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.images.manifest import layer_compression
from agent.images.records import Limits
from model.errors import DiskFull, ImageError

_CHILD = Path(__file__).with_name("unpack_child.py")
_PIECE_BYTES = 1 << 20
_GZIP_WINDOW = 31
_EXIT_DISK_FULL = 28


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What one layer became. `diff_id` is the sha256 of the uncompressed archive, `size_bytes` the sum of its files."""

    diff_id: str
    entries: int
    size_bytes: int
    skipped: int
    """Device nodes left out."""


def unpack_layer(pieces: Iterable[bytes], directory: Path, diff_id: str | None, what: str, limits: Limits) -> Unpacked:
    """Unpack one (gzip, zstd or plain) tar into the empty `directory`; `diff_id` None takes any.

    Raises ImageError for a hostile, broken, too large or different archive, DiskFull.
    """
    command = [
        sys.executable, "-I", "-S", str(_CHILD), str(directory), str(limits.unpacked_bytes), str(limits.entries),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=True, cwd="/", env={}
    )
    try:
        found = _feed(child, pieces, what, limits)
        out, err = child.communicate()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if isinstance(pieces, Generator):
            pieces.close()  # now, not when the last traceback is forgotten: a connection may hang on it
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
    if child.returncode != 0 or not out:  # who reaps children in this process may take the code: the line must be there
        raise _failure(child.returncode, err, what, directory)
    if diff_id is not None:
        _check_diff_id(found, diff_id, what)
    entries, size, skipped = (int(word) for word in out.split())
    return Unpacked(found, entries, size, skipped)


def check_layer(pieces: Iterable[bytes], diff_id: str, what: str, limits: Limits) -> None:
    """Read a layer to its end without unpacking it; raises ImageError when it is not the one of that diff_id."""
    digest, total = hashlib.sha256(), 0
    for piece in decompress(pieces, what):
        digest.update(piece)
        total += len(piece)
        _check_total(total, what, limits)
    _check_diff_id(f"sha256:{digest.hexdigest()}", diff_id, what)


def decompress(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The plain bytes of a gzip, zstd or plain stream, in pieces of at most 1 MiB."""
    source = iter(pieces)
    head = b""
    for piece in source:
        head += piece
        if len(head) >= 4:
            break
    kind = layer_compression(head)
    if kind == "none":
        yield head
        yield from source
    elif kind == "gzip":
        yield from _gunzip(head, source, what)
    else:
        yield from _unzstd(head, source, what)


def _feed(child: subprocess.Popen[bytes], pieces: Iterable[bytes], what: str, limits: Limits) -> str:
    """Send the plain archive to the child, return its digest. A child that gave up early is not an error here."""
    assert child.stdin is not None
    digest, total = hashlib.sha256(), 0
    for piece in decompress(pieces, what):
        digest.update(piece)
        total += len(piece)
        _check_total(total, what, limits)
        try:
            child.stdin.write(piece)
        except BrokenPipeError:
            break
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    child.stdin = None
    return f"sha256:{digest.hexdigest()}"


def _check_total(total: int, what: str, limits: Limits) -> None:
    if total > limits.unpacked_bytes + limits.entries * 2048:  # headers and padding come on top of the files
        raise ImageError(f"{what}: unpacks to more than {limits.unpacked_bytes} bytes: it is refused")


def _check_diff_id(found: str, diff_id: str, what: str) -> None:
    if found != diff_id:
        raise ImageError(f"{what}: unpacked content does not match the image's config (diff_id): it is refused")


def _gunzip(head: bytes, source: Iterator[bytes], what: str) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_WINDOW)
    data: bytes | None = head
    try:
        while data is not None:
            while data:
                if member.eof:  # several members in a row are one stream; zeros after the last are padding
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    member = zlib.decompressobj(_GZIP_WINDOW)
                plain = member.decompress(data, _PIECE_BYTES)
                data = member.unused_data if member.eof else member.unconsumed_tail
                if plain:
                    yield plain
            data = next(source, None)
    except zlib.error as error:
        raise ImageError(f"{what}: damaged gzip data ({error})") from None
    if not member.eof:
        raise ImageError(f"{what}: gzip data end too early")


def _unzstd(head: bytes, source: Iterator[bytes], what: str) -> Iterator[bytes]:
    if sys.version_info >= (3, 14):  # late: few images need it
        from compression import zstd
    else:
        from backports import zstd

    frame = zstd.ZstdDecompressor()
    data: bytes | None = head
    try:
        while data is not None:
            while data or not (frame.needs_input or frame.eof):
                if frame.eof:
                    frame = zstd.ZstdDecompressor()
                plain = frame.decompress(data, _PIECE_BYTES)
                data = frame.unused_data if frame.eof else b""
                if plain:
                    yield plain
            data = next(source, None)
    except zstd.ZstdError as error:
        raise ImageError(f"{what}: damaged zstd data ({error})") from None
    if not frame.eof:
        raise ImageError(f"{what}: zstd data end too early")


def _failure(code: int, err: bytes, what: str, directory: Path) -> ImageError | DiskFull:
    lines = err.decode("utf-8", "replace").strip().splitlines()
    why = lines[-1] if lines else f"the unpacking process ended with {code}"
    if code == _EXIT_DISK_FULL:
        return DiskFull(f"{what}: disk full at {directory.parent}: free space there (`shoal image prune`) or enlarge it")
    if code == 2:
        return ImageError(f"{what}: it has {why}: it is refused")
    return ImageError(f"{what}: its archive cannot be unpacked: {why}")
