"""The image store's directory: what stands where, and how it stays whole across crashes.

    lock                    held by the one agent that uses the store
    names.json              canonical reference -> image id, manifest digest, digests of the indexes that led to it
    images/<hex>.json       one image: its config as it came, its layers' diff ids, bottom first
    layers/<hex>/fs         one unpacked layer, by diff id; never changed once it stands here
    layers/<hex>/layer.json its size, and the boot in which it was written
    blobs/sha256/<hex>      manifests, indexes and compressed layers as they came; read-only once they are on the disk
    tmp/                    what is being written or deleted; emptied at start

Rules: synchronous. A thing appears under its final name by one rename, complete, and disappears by a rename into tmp/. A
layer whose pages may not have reached the disk when the machine died (another boot, not marked synced) is dropped at
start, and so is what cannot be read and an image that lacks a layer: they are pulled again. A blob's name says what it must
hold, so one that may not have reached the disk is compared with it at start. `sync` follows each pull. An image whose blobs
are not there (older stores kept none) runs; only giving it away needs them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.images.trees import remove_tree
from model.errors import ImageError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEX = re.compile(r"[0-9a-f]{64}")
_BLOB_NEW, _BLOB_SYNCED = 0o600, 0o400
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class LayerRecord:
    size_bytes: int
    boot: str
    synced: bool


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """`config` is the image config's JSON text; its sha256 is the image's id."""

    id: str
    digest: str
    config: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NameRecord:
    """`digest` is the manifest's; `indexes` those that led to it, outermost first."""

    id: str
    digest: str
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlobRecord:
    size_bytes: int
    synced: bool


class StoreDisk:
    """All reading and writing below one store's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"
        for directory in (root, root / "images", root / "layers", root / "blobs", root / "blobs" / "sha256", self._tmp):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        self._lock_fd = self._take_lock()
        self._boot = _BOOT_ID.read_text().strip()
        self.sweep_tmp()

    def close(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # layers

    def layer_path(self, diff_id: str) -> Path:
        return self.root / "layers" / _hex(diff_id) / "fs"

    def load_layers(self) -> dict[str, LayerRecord]:
        """Every whole layer by diff id; the others are removed."""
        found: dict[str, LayerRecord] = {}
        for directory in sorted((self.root / "layers").iterdir()):
            record = _read_layer(directory)
            if record is None or not (record.synced or record.boot == self._boot):
                self.delete(directory)
            else:
                found[f"sha256:{directory.name}"] = record
        return found

    def new_layer_directory(self) -> Path:
        """An empty directory to unpack into, for `commit_layer` or `delete`."""
        directory = Path(tempfile.mkdtemp(prefix="layer-", dir=self._tmp))
        (directory / "fs").mkdir(mode=0o755)
        return directory

    def commit_layer(self, directory: Path, diff_id: str, size_bytes: int) -> LayerRecord:
        record = LayerRecord(size_bytes, self._boot, synced=False)
        (directory / "layer.json").write_text(json.dumps(asdict(record)))
        directory.rename(self.root / "layers" / _hex(diff_id))
        return record

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) != 0:
                raise ImageError(f"image store {self.root}: syncfs failed: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(fd)

    def mark_synced(self, diff_id: str, record: LayerRecord) -> LayerRecord:
        """Note that `sync` ran after this layer was written."""
        marked = LayerRecord(record.size_bytes, record.boot, synced=True)
        self._write(self.layer_path(diff_id).with_name("layer.json"), json.dumps(asdict(marked)))
        return marked

    # blobs

    def blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / _hex(digest)

    def load_blobs(self) -> dict[str, BlobRecord]:
        """Every whole blob by digest; the others are removed."""
        found: dict[str, BlobRecord] = {}
        for file in sorted((self.root / "blobs" / "sha256").iterdir()):
            info = file.lstat()
            synced = info.st_mode & 0o777 == _BLOB_SYNCED
            if not _HEX.fullmatch(file.name) or not (synced or _hash(file) == file.name):
                file.unlink()
            else:
                found[f"sha256:{file.name}"] = BlobRecord(info.st_size, synced)
        return found

    def commit_blob(self, file: Path, digest: str) -> BlobRecord:
        """Take in a file of tmp/ whose content has this digest."""
        file.chmod(_BLOB_NEW)
        record = BlobRecord(file.stat().st_size, synced=False)
        file.rename(self.blob_path(digest))
        return record

    def mark_blob_synced(self, digest: str, record: BlobRecord) -> BlobRecord:
        """Note that `sync` ran after this blob was written."""
        self.blob_path(digest).chmod(_BLOB_SYNCED)
        return BlobRecord(record.size_bytes, synced=True)

    # images and names

    def load_images(self, layers: Collection[str]) -> dict[str, ImageRecord]:
        """Every image all of whose layers are there; the others are removed."""
        found: dict[str, ImageRecord] = {}
        for file in sorted((self.root / "images").glob("*.json")):
            doc = _read_json(file)
            if doc is not None and set(doc["layers"]) <= set(layers):
                found[doc["id"]] = ImageRecord(doc["id"], doc["digest"], doc["config"], tuple(doc["layers"]))
            else:
                file.unlink()
        return found

    def load_names(self, images: Collection[str]) -> dict[str, NameRecord]:
        doc = _read_json(self.root / "names.json") or {}
        names = {name: NameRecord(e["id"], e["digest"], tuple(e.get("indexes", ()))) for name, e in doc.items()}
        return {name: record for name, record in names.items() if record.id in images}

    def write_image(self, record: ImageRecord) -> None:
        self._write(self.root / "images" / f"{_hex(record.id)}.json", json.dumps(asdict(record)))

    def drop_image(self, image_id: str) -> None:
        (self.root / "images" / f"{_hex(image_id)}.json").unlink(missing_ok=True)

    def write_names(self, names: dict[str, NameRecord]) -> None:
        self._write(self.root / "names.json", json.dumps({name: asdict(record) for name, record in names.items()}))

    # temporary things

    def spool_file(self) -> Path:
        """A new empty file in tmp/."""
        fd, path = tempfile.mkstemp(prefix="spool-", dir=self._tmp)
        os.close(fd)
        return Path(path)

    def set_aside(self, path: Path) -> Path:
        """Take a file or directory out of its final name at once; `delete` what is returned later."""
        aside = Path(tempfile.mkdtemp(prefix="gone-", dir=self._tmp))
        path.rename(aside / "it")
        return aside

    def delete(self, path: Path) -> None:
        aside = path if path.parent == self._tmp else self.set_aside(path)
        remove_tree(aside)

    def sweep_tmp(self) -> None:
        for leftover in self._tmp.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                with contextlib.suppress(OSError):  # an unpacking child of a killed agent may be writing its last
                    remove_tree(leftover)
                remove_tree(leftover)
            else:
                leftover.unlink(missing_ok=True)

    def _take_lock(self) -> int:
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise ImageError(f"image store {self.root} is used by another agent (process {holder or 'unknown'})") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def _write(self, file: Path, text: str) -> None:
        """Replace `file` in one step. It is not flushed (the event loop is waiting): `sync` does that soon after."""
        fd, name = tempfile.mkstemp(prefix="file-", dir=self._tmp)
        with os.fdopen(fd, "w") as out:
            out.write(text)
        os.rename(name, file)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read_layer(directory: Path) -> LayerRecord | None:
    doc = _read_json(directory / "layer.json")
    if doc is None or not (directory / "fs").is_dir():
        return None
    return LayerRecord(int(doc["size_bytes"]), str(doc["boot"]), bool(doc["synced"]))


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        doc = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return doc if isinstance(doc, dict) else None


def iter_file(path: Path, offset: int, size: int, piece_bytes: int = 1 << 20) -> Iterator[bytes]:
    """`size` bytes of a file from `offset` on, in pieces."""
    with path.open("rb") as file:
        file.seek(offset)
        while size > 0 and (piece := file.read(min(piece_bytes, size))):
            size -= len(piece)
            yield piece
