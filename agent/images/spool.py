"""Copies an image archive to a plain file that can be read at any place, decompressing it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent.images.errors import disk_error
from agent.images.layers import decompress
from agent.images.manifest import layer_compression
from agent.images.records import Limits
from model.errors import ImageError

_PIECE_BYTES = 1 << 20


def is_readable_in_place(path: Path) -> bool:
    """Whether an archive needs no copy: a directory, or a file that is not compressed."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return layer_compression(file.read(4)) == "none"
    except OSError:
        return False  # copying it will tell what is wrong


def spool_archive(source: IO[bytes] | Path, target: Path, limits: Limits) -> None:
    """Write the plain bytes of `source` to `target`. Raises ImageError, DiskFull."""
    what = "image archive"
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                _copy(file, target, what, limits)
        else:
            _copy(source, target, what, limits)
    except FileNotFoundError as error:
        raise ImageError(f"{what}: no such file: {error.filename}") from None
    except OSError as error:
        raise disk_error(error, what, target.parent) from error


def _copy(file: IO[bytes], target: Path, what: str, limits: Limits) -> None:
    left = limits.unpacked_bytes
    with target.open("wb") as out:
        for piece in decompress(_pieces(file), what):
            left -= len(piece)
            if left < 0:
                raise ImageError(f"{what}: unpacks to more than {limits.unpacked_bytes} bytes: it is refused")
            out.write(piece)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece
