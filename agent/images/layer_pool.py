"""The unpacked layers of the store: which are there, which are coming, which may go.

Rules: for one event loop. A layer is fetched and unpacked once however many images want it. It is deleted only when no
image needs it, no pull has pinned it and no container root has it mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from agent.images.disk import LayerRecord, StoreDisk
from agent.images.errors import disk_error
from agent.images.flights import Flights
from agent.images.layers import unpack_layer
from agent.images.records import Limits
from agent.images.threads import Threads
from model.errors import ImageError

LayerSource = Callable[[], Iterable[bytes]]


class LayerPool:
    def __init__(self, disk: StoreDisk, limits: Limits, parallel: int, threads: Threads) -> None:
        self._disk = disk
        self._limits = limits
        self._threads = threads
        self._slots = asyncio.Semaphore(parallel)
        self._records = disk.load_layers()
        self._flights: Flights[None] = Flights()
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

    async def ensure(self, diff_id: str, source: LayerSource, what: str) -> None:
        """Have the layer on disk. `source` gives its bytes, compressed or not, and is called in a worker thread."""
        if diff_id in self._records:
            return
        if diff_id in self._flights:  # another image brings it; should that fail, ours may still be good
            with contextlib.suppress(ImageError):
                await self._flights.join(diff_id, partial(self._unpack, diff_id, source, what))
        while diff_id not in self._records:
            await self._flights.join(diff_id, partial(self._unpack, diff_id, source, what))

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

    async def _unpack(self, diff_id: str, source: LayerSource, what: str) -> None:
        async with self._slots:
            directory = self._disk.new_layer_directory()
            try:
                record = await self._threads.run(self._unpack_now, directory, diff_id, source, what)
            except OSError as error:
                raise disk_error(error, what, self._disk.root) from error
            finally:
                if directory.exists():
                    await self._threads.run(self._disk.delete, directory)
            self._records[diff_id] = record

    def _unpack_now(self, directory: Path, diff_id: str, source: LayerSource, what: str) -> LayerRecord:
        unpacked = unpack_layer(source(), directory / "fs", diff_id, what, self._limits)
        return self._disk.commit_layer(directory, diff_id, unpacked.size_bytes)

    async def _sync(self) -> None:
        while self._sync_wanted:
            self._sync_wanted = False
            new = {diff_id: record for diff_id, record in self._records.items() if not record.synced}
            if not new:
                continue
            await self._threads.run(self._disk.sync)
            for diff_id, record in new.items():  # deleted, or deleted and pulled again meanwhile: not this one
                if self._records.get(diff_id) is record:
                    self._records[diff_id] = self._disk.mark_synced(diff_id, record)
