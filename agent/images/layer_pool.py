"""The unpacked layers of the store: which are there, which are coming, which may go.

Rules: for one event loop. A layer is fetched and unpacked once however many images want it, and what it came in is kept on the
way. A blob that is kept unpacks to its layer: one that comes later (another compression of a layer that is there) is read to
its end once. A layer is deleted only when no image needs it, no pull has pinned it and no container root has it mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.images.blobs import Blobs, BlobWriter
from agent.images.disk import BlobRecord, LayerRecord, StoreDisk, iter_file
from agent.images.errors import disk_error
from agent.images.flights import Flights
from agent.images.layers import check_layer, unpack_layer
from agent.images.manifest import Descriptor
from agent.images.records import Limits
from agent.images.threads import Threads
from model.errors import ImageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LayerSource:
    """`pieces` gives a layer's bytes, compressed or not, and is called in a worker thread. `blob`: what they must be; None: any
    kept blob of the layer will do. `arrived`: whether the blob is here by other ways, so that `pieces` need not be read; in
    its block the layer is unpacked."""

    pieces: Callable[[], Iterable[bytes]]
    blob: Descriptor | None
    arrived: Callable[[], AbstractAsyncContextManager[bool]] = lambda: contextlib.nullcontext(False)


class LayerPool:
    def __init__(self, disk: StoreDisk, blobs: Blobs, limits: Limits, parallel: int, threads: Threads) -> None:
        self._disk = disk
        self._blobs = blobs
        self._limits = limits
        self._threads = threads
        self._slots = asyncio.Semaphore(parallel)
        self._records = disk.load_layers()
        self._flights: Flights[None] = Flights()
        self._kept: dict[str, Descriptor] = {}
        self._pins: Counter[str] = Counter()
        self._sync_wanted = False

    def __contains__(self, diff_id: object) -> bool:
        return diff_id in self._records

    def known(self) -> Collection[str]:
        return self._records.keys()

    def path(self, diff_id: str) -> Path:
        return self._disk.layer_path(diff_id)

    def size_bytes(self, diff_ids: Iterable[str]) -> int:
        return sum(self._records[diff_id].size_bytes for diff_id in set(diff_ids))

    def is_pinned(self, diff_ids: Iterable[str]) -> bool:
        return any(self._pins[diff_id] for diff_id in diff_ids)

    @contextlib.contextmanager
    def pin(self, diff_ids: Collection[str]) -> Iterator[None]:
        """Keep these from being deleted while an image is put together."""
        self._pins.update(diff_ids)
        try:
            yield
        finally:
            self._pins.subtract(diff_ids)
            self._pins = +self._pins

    def note(self, diff_ids: Iterable[str], blobs: Iterable[Descriptor]) -> None:
        """What these layers are kept as."""
        self._kept.update(zip(diff_ids, blobs, strict=False))

    def has(self, diff_id: str, blob: Descriptor) -> bool:
        return diff_id in self._records and blob.digest in self._blobs

    def kept_of_pinned(self) -> set[str]:
        """The blobs of layers that something under way needs, also those whose digest was not known when it began."""
        return {blob.digest for diff_id, blob in self._kept.items() if self._pins[diff_id]}

    async def ensure(self, diff_id: str, source: LayerSource, what: str) -> Descriptor:
        """Have the layer and its blob on disk; the blob."""
        while True:
            blob = source.blob or self._kept.get(diff_id)
            if blob is not None and self.has(diff_id, blob):
                return blob
            others = diff_id in self._flights  # another image brings it; should that fail, ours may still be good
            with contextlib.suppress(ImageError) if others else contextlib.nullcontext():
                await self._flights.join(diff_id, partial(self._bring, diff_id, source, what))

    async def drop_except(self, needed: Collection[str]) -> int:
        """Delete the layers that nobody needs; the bytes freed."""
        gone = [d for d in self._records if d not in needed and not self._pins[d]]
        freed = self.size_bytes(gone)
        aside = []
        for diff_id in gone:
            del self._records[diff_id]
            aside.append(self._disk.set_aside(self.path(diff_id).parent))
        for directory in aside:
            await self._threads.run(self._disk.delete, directory)
        return freed

    def start_sync(self) -> None:
        """Bring new layers to the disk in the background, so that they outlive a power cut."""
        self._sync_wanted = True
        self._flights.start("sync", self._sync)

    async def close(self) -> None:
        await self._flights.drain()

    async def _bring(self, diff_id: str, source: LayerSource, what: str) -> None:
        async with self._slots:
            try:
                async with source.arrived() as is_here:
                    if is_here and source.blob is not None:
                        await self._take_kept(diff_id, source.blob, what)
                    else:
                        await self._take_in(diff_id, source, what)
            except OSError as error:
                raise disk_error(error, what, self._disk.root) from error

    async def _take_in(self, diff_id: str, source: LayerSource, what: str) -> None:
        if diff_id in self._records:
            blob, record = await self._threads.run(self._keep_now, diff_id, source, what)
        else:
            blob, record = await self._unpack(diff_id, partial(self._unpack_now, source=source), what)
        self._blobs.take(blob.digest, record)
        self._kept[diff_id] = blob

    async def _take_kept(self, diff_id: str, blob: Descriptor, what: str) -> None:
        """The layer of a blob that is here."""
        path = self._blobs.path(blob.digest)
        if diff_id in self._records:
            await self._threads.run(check_layer, iter_file(path, 0, blob.size_bytes), diff_id, what, self._limits)
        else:
            await self._unpack(diff_id, partial(self._unpack_kept, path=path, blob=blob), what)
        self._kept[diff_id] = blob

    async def _unpack(self, diff_id: str, unpack: Callable[[Path, str, str], tuple[LayerRecord, T]], what: str) -> T:
        directory = self._disk.new_layer_directory()
        try:
            layer, kept = await self._threads.run(unpack, directory, diff_id, what)
        finally:
            if directory.exists():
                await self._threads.run(self._disk.delete, directory)
        self._records[diff_id] = layer
        return kept

    def _unpack_kept(self, directory: Path, diff_id: str, what: str, path: Path, blob: Descriptor) -> tuple[LayerRecord, None]:
        with _ended(iter_file(path, 0, blob.size_bytes)) as pieces:
            unpacked = unpack_layer(pieces, directory / "fs", diff_id, what, self._limits)
        return self._disk.commit_layer(directory, diff_id, unpacked.size_bytes), None

    def _unpack_now(
        self, directory: Path, diff_id: str, what: str, source: LayerSource
    ) -> tuple[LayerRecord, tuple[Descriptor, BlobRecord]]:
        with BlobWriter(self._disk, source.blob, what) as writer:
            with _ended(source.pieces()) as pieces, _ended(writer.copy(pieces)) as copied:
                unpacked = unpack_layer(copied, directory / "fs", diff_id, what, self._limits)
            kept = writer.commit()
        return self._disk.commit_layer(directory, diff_id, unpacked.size_bytes), kept

    def _keep_now(self, diff_id: str, source: LayerSource, what: str) -> tuple[Descriptor, BlobRecord]:
        with BlobWriter(self._disk, source.blob, what) as writer:
            with _ended(source.pieces()) as pieces, _ended(writer.copy(pieces)) as copied:
                check_layer(copied, diff_id, what, self._limits)
            return writer.commit()

    async def _sync(self) -> None:
        while self._sync_wanted:
            self._sync_wanted = False
            new = {diff_id: record for diff_id, record in self._records.items() if not record.synced}
            blobs = self._blobs.unsynced()
            if not (new or blobs):
                continue
            await self._threads.run(self._disk.sync)
            self._blobs.mark_synced(blobs)
            for diff_id, record in new.items():  # deleted, or deleted and pulled again meanwhile: not this one
                if self._records.get(diff_id) is record:
                    self._records[diff_id] = self._disk.mark_synced(diff_id, record)


@contextlib.contextmanager
def _ended(pieces: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
    """What is left half-way holds a connection or a file: it gives it back here, not when the collector finds it."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, Generator):
            pieces.close()
