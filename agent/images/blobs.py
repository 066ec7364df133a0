"""What registries and archives gave, as it came: manifests, indexes and compressed layers, by their digest.

Rules: records belong to one event loop, files are written in worker threads. A blob is here only when its sha256 is its name.
It is deleted when no image or name needs it and nothing under way has pinned it. A layer of an archive that holds it
uncompressed is kept gzipped, the same bytes on every node.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from agent.images.disk import BlobRecord, StoreDisk
from agent.images.manifest import OCI_LAYER, Compression, Descriptor, layer_compression, sha256_digest
from agent.images.threads import Threads
from model.errors import ImageError

_GZIP_WINDOW = 31
_GZIP_LEVEL = 1
"""Three times as fast as the usual 6, and 5 to 10 % larger."""


class Blobs:
    def __init__(self, disk: StoreDisk, threads: Threads) -> None:
        self._disk = disk
        self._threads = threads
        self._records = disk.load_blobs()
        self._pins: Counter[str] = Counter()

    def __contains__(self, digest: object) -> bool:
        return digest in self._records

    def path(self, digest: str) -> Path:
        return self._disk.blob_path(digest)

    def size_bytes(self, digests: Iterable[str]) -> int:
        return sum(self._records[digest].size_bytes for digest in set(digests))

    def read(self, digest: str, bytes_max: int) -> bytes | None:
        """A small blob, or None when it is not here, whole."""
        record = self._records.get(digest)
        if record is None or record.size_bytes > bytes_max:
            return None
        try:
            data = self.path(digest).read_bytes()
        except OSError:
            return None
        return data if sha256_digest(data) == digest else None

    def put(self, data: bytes) -> str:
        """Keep a small blob; its digest."""
        digest = sha256_digest(data)
        if digest not in self._records:
            file = self._disk.spool_file()
            file.write_bytes(data)
            self.take(digest, self._disk.commit_blob(file, digest))
        return digest

    def take(self, digest: str, record: BlobRecord) -> None:
        self._records.setdefault(digest, record)

    @contextlib.contextmanager
    def pin(self, digests: Collection[str]) -> Iterator[None]:
        """Keep these from being deleted, those that are still to come, too."""
        self._pins.update(digests)
        try:
            yield
        finally:
            self._pins.subtract(digests)
            self._pins = +self._pins

    async def drop_except(self, needed: Collection[str]) -> int:
        """Delete the blobs that nobody needs; the bytes freed."""
        gone = [d for d in self._records if d not in needed and not self._pins[d]]
        freed = self.size_bytes(gone)
        aside = []
        for digest in gone:
            del self._records[digest]
            with contextlib.suppress(FileNotFoundError):  # somebody tidied up by hand
                aside.append(self._disk.set_aside(self.path(digest)))
        for directory in aside:
            await self._threads.run(self._disk.delete, directory)
        return freed

    def unsynced(self) -> dict[str, BlobRecord]:
        return {digest: record for digest, record in self._records.items() if not record.synced}

    def mark_synced(self, written: dict[str, BlobRecord]) -> None:
        """Those that `unsynced` gave before the disk was synced."""
        for digest, record in written.items():
            if self._records.get(digest) is record:  # deleted, or deleted and fetched again meanwhile: not this one
                with contextlib.suppress(FileNotFoundError):
                    self._records[digest] = self._disk.mark_blob_synced(digest, record)


class BlobWriter:
    """Keeps what passes by: `copy` once, to its end, then `commit`. Left without it, nothing stays. For one worker thread."""

    def __init__(self, disk: StoreDisk, wanted: Descriptor | None, what: str) -> None:
        self._disk = disk
        self._wanted = wanted
        self._what = what
        self._digest = hashlib.sha256()
        self._size = 0
        self._kind: Compression = "none"
        self._file: Path | None = None

    def __enter__(self) -> BlobWriter:
        self._file = self._disk.spool_file()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def copy(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, written down. Without a wanted descriptor what is not compressed is, in the file only."""
        assert self._file is not None
        source, head = iter(pieces), b""
        while len(head) < 4 and (piece := next(source, b"")):
            head += piece
        self._kind = layer_compression(head)
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW) if self._packs() else None
        with self._file.open("wb") as out:
            piece = head
            while piece:
                self._write(out, packer.compress(piece) if packer is not None else piece)
                yield piece
                piece = next(source, b"")
            if packer is not None:
                self._write(out, packer.flush())

    def commit(self) -> tuple[Descriptor, BlobRecord]:
        """Raises ImageError when it is not the wanted one."""
        assert self._file is not None
        digest = f"sha256:{self._digest.hexdigest()}"
        if self._wanted is not None and (digest, self._size) != (self._wanted.digest, self._wanted.size_bytes):
            raise ImageError(f"{self._what}: content does not match its digest {self._wanted.digest[:19]}: it is refused")
        suffix = "gzip" if self._packs() else self._kind
        found = self._wanted or Descriptor(f"{OCI_LAYER}+{suffix}", digest, self._size)
        record = self._disk.commit_blob(self._file, digest)
        self._file = None
        return found, record

    def _packs(self) -> bool:
        return self._wanted is None and self._kind == "none"

    def _write(self, out: BinaryIO, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        out.write(data)
