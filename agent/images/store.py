"""The node's image store: pulls once, unpacks once, shares.

Rules: asynchronous, for ONE event loop; files are touched in worker threads or in short calls. Two pulls of the same
reference are one; a layer wanted by two images is fetched and unpacked once. Layers are kept by diff id: each is
unpacked on its own, so equal content is one directory whatever lies below it. What a container uses is held (`hold`),
or seen mounted, and never deleted.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.images.archive import ArchivedImage, read_archive
from agent.images.disk import ImageRecord, NameRecord, StoreDisk
from agent.images.errors import ImageInUse, ImageNotFound
from agent.images.flights import Flights
from agent.images.layer_pool import LayerPool, LayerSource
from agent.images.manifest import Manifest, ParsedConfig, parse_config, sha256_digest
from agent.images.overlay import mounted_lower_directories
from agent.images.progress import ProgressMeter
from agent.images.records import Credentials, Image, ProgressSink, PullPolicy, PullProgress, RegistryConfig
from agent.images.registry import RegistryClient
from agent.images.spool import is_readable_in_place, spool_archive
from agent.images.threads import Threads
from model.errors import BadInput, ImageError
from model.image_ref import ImageRef, parse_image_ref

_SHORT_ID_CHARS_MIN = 12


@dataclass(frozen=True, slots=True)
class Pruned:
    """`images` are ids."""

    images: tuple[str, ...]
    freed_bytes: int


class ImageStore:
    """See the file's rules. Making one takes the store's lock and sweeps what a crash left; `close` gives it back."""

    def __init__(self, root: Path, *, config: RegistryConfig) -> None:
        self._config = config
        self._disk = StoreDisk(root)
        self._client = RegistryClient(config)
        self._threads = Threads(config.parallel + 4)
        self._layers = LayerPool(self._disk, config.limits, config.parallel, self._threads)
        self._records = self._disk.load_images(self._layers.known())
        self._names = self._disk.load_names(self._records.keys())
        self._configs: dict[str, ParsedConfig] = {}
        self._pulls: Flights[str] = Flights()
        self._sinks: dict[str, list[ProgressSink]] = {}
        self._holds: dict[str, str] = {}

    async def close(self) -> None:
        """End running pulls, bring what is there to the disk, give the lock back."""
        self._client.stop.set()
        await self._pulls.drain()
        await self._layers.close()
        self._client.close()
        await self._threads.close()
        self._disk.close()

    def get(self, ref: str) -> Image | None:
        """By reference, by id (`sha256:...`), or by the first 12 digits or more of the id."""
        image_id = self._find(ref)
        return self._image(image_id) if image_id is not None else None

    def list(self) -> list[Image]:
        return [self._image(image_id) for image_id in sorted(self._records)]

    async def pull(
        self,
        ref: str,
        *,
        auth: Credentials | None = None,
        progress: ProgressSink | None = None,
        policy: PullPolicy = "missing",
    ) -> Image:
        """The image, fetched when the policy wants it. `progress` is called on the event loop, about ten times a second.

        Raises ImageError (ImageNotFound, RegistryRefused, RegistryUnavailable), DiskFull, BadInput for a bad `ref`.
        """
        parsed = parse_image_ref(ref)
        present = self._names.get(parsed.canonical)
        if policy != "always" and present is not None:
            return self._image(present.id)
        if policy == "never":
            raise ImageNotFound(f"image {parsed.familiar} is not on this node, and its pull policy is 'never'")
        sinks = self._sinks.setdefault(parsed.canonical, [])
        if progress is not None:
            sinks.append(progress)
        try:
            return self._image(await self._pulls.join(parsed.canonical, lambda: self._pull(parsed, auth, sinks)))
        finally:
            if progress is not None:
                sinks.remove(progress)
            if not sinks:
                self._sinks.pop(parsed.canonical, None)

    async def load(self, source: IO[bytes] | Path | str) -> builtins.list[Image]:
        """Take in every image of a `docker save` file or OCI layout (tar, also gzip or zstd; or a directory)."""
        if not isinstance(source, str | Path):
            return await self._load_spooled(source)
        path = Path(source)
        return await self._load_path(path) if is_readable_in_place(path) else await self._load_spooled(path)

    async def remove(self, ref: str) -> None:
        """Take the name away; with its last name the image goes, and the layers nobody else needs.

        Given an id, all names go. Raises ImageNotFound, ImageInUse.
        """
        image_id = self._find(ref)
        if image_id is None:
            raise ImageNotFound(f"image {ref} is not on this node")
        names = {name for name, record in self._names.items() if record.id == image_id}
        canonical = _canonical(ref)
        gone = {canonical} if canonical in names else names
        is_last = gone >= names
        if is_last and (image_id in self._used() or self._layers.is_pinned(self._records[image_id].layers)):
            raise ImageInUse(f"image {ref} is used on this node: remove the containers that use it first")
        self._set_names({name: record for name, record in self._names.items() if name not in gone})
        if is_last:
            await self._drop([image_id])

    async def prune(self) -> Pruned:
        """Delete every image no container uses, and every layer no image needs."""
        used = self._used()
        unused = [i for i, r in self._records.items() if i not in used and not self._layers.is_pinned(r.layers)]
        self._set_names({name: record for name, record in self._names.items() if record.id not in unused})
        return Pruned(tuple(unused), await self._drop(unused))

    def hold(self, image_id: str, owner: str) -> None:
        """Say that `owner` (a container) uses the image, until `release`. Kept in memory: hold again after a restart."""
        self._holds[owner] = image_id

    def release(self, owner: str) -> None:
        self._holds.pop(owner, None)

    async def _pull(self, ref: ImageRef, auth: Credentials | None, sinks: Iterable[ProgressSink]) -> str:
        endpoint, manifest, _ = await self._threads.run(self._client.resolve, ref, auth)
        known = self._records.get(manifest.config.digest)
        if known is not None:
            self._set_names(self._names | {ref.canonical: NameRecord(known.id, manifest.digest)})
            return known.id
        raw = await self._threads.run(self._client.blob_bytes, endpoint, ref, manifest.config, auth)
        config = parse_config(raw, f"image {ref.familiar}")
        self._check(ref, manifest, config)
        numbers = {diff_id: number for number, diff_id in enumerate(config.diff_ids)}
        missing = [number for diff_id, number in numbers.items() if diff_id not in self._layers]
        meter = ProgressMeter(ref.familiar, lambda report: _tell(sinks, report))
        bytes_total = sum(manifest.layers[number].size_bytes for number in missing)
        meter.start(asyncio.get_running_loop(), len(numbers), len(numbers) - len(missing), bytes_total)

        def source(number: int) -> LayerSource:
            def pieces() -> Iterator[bytes]:
                yield from meter.count(self._client.blob(endpoint, ref, manifest.layers[number], auth))
                meter.layer_done()

            return pieces

        sources = {diff_id: source(number) for diff_id, number in numbers.items()}
        record = ImageRecord(manifest.config.digest, manifest.digest, raw.decode(), config.diff_ids)
        return await self._assemble(record, config, sources, (ref.canonical,), f"image {ref.familiar}")

    async def _load_spooled(self, source: IO[bytes] | Path) -> builtins.list[Image]:
        spool = self._disk.spool_file()
        try:
            await self._threads.run(spool_archive, source, spool, self._config.limits)
            return await self._load_path(spool)
        finally:
            spool.unlink(missing_ok=True)

    async def _load_path(self, path: Path) -> builtins.list[Image]:
        archived = await self._threads.run(read_archive, path, self._config.platform, self._config.limits)
        return [self._image(await self._load_one(image)) for image in archived]

    async def _load_one(self, image: ArchivedImage) -> str:
        sources: dict[str, LayerSource] = {d: part.pieces for d, part in zip(image.config.diff_ids, image.layers, strict=True)}
        image_id = sha256_digest(image.config_raw)
        record = ImageRecord(image_id, image.digest, image.config_raw.decode(), image.config.diff_ids)
        return await self._assemble(record, image.config, sources, image.names, "image archive")

    async def _assemble(
        self,
        record: ImageRecord,
        config: ParsedConfig,
        sources: Mapping[str, LayerSource],
        names: Iterable[str],
        what: str,
    ) -> str:
        """Have all layers, then the image, then its names: in this order, so that each is whole when it is seen."""
        with self._layers.pin(sources.keys()):
            await _all_of([self._layers.ensure(diff_id, source, what) for diff_id, source in sources.items()])
            self._disk.write_image(record)
            self._records[record.id] = record
            self._configs[record.id] = config
        self._set_names(self._names | {name: NameRecord(record.id, record.digest) for name in names})
        self._layers.start_sync()
        return record.id

    def _check(self, ref: ImageRef, manifest: Manifest, config: ParsedConfig) -> None:
        what = f"image {ref.familiar}"
        if len(manifest.layers) != len(config.diff_ids):
            raise ImageError(f"{what}: {len(manifest.layers)} layers, but its config names {len(config.diff_ids)}")
        have, want = config.platform.split("/")[:2], self._config.platform.split("/")[:2]
        if all(have) and have != want:
            raise ImageError(f"{what} is for {'/'.join(have)}, this node is {'/'.join(want)}")

    def _image(self, image_id: str) -> Image:
        record = self._records[image_id]
        config = self._configs.get(image_id)
        if config is None:
            config = self._configs[image_id] = parse_config(record.config.encode(), f"image {image_id[:19]}")
        names = sorted(name for name, named in self._names.items() if named.id == image_id)
        return Image(
            id=image_id,
            names=tuple(parse_image_ref(name).familiar for name in names),
            digest=self._names[names[0]].digest if names else record.digest,
            layers=tuple(self._layers.path(diff_id) for diff_id in record.layers),
            config=config.config,
            size_bytes=self._layers.size_bytes(record.layers),
            created=config.created,
        )

    def _find(self, ref: str) -> str | None:
        named = self._names.get(_canonical(ref) or "")
        if named is not None:
            return named.id
        digits = ref.removeprefix("sha256:")
        if len(digits) < _SHORT_ID_CHARS_MIN:
            return None
        found = [image_id for image_id in self._records if image_id.startswith(f"sha256:{digits}")]
        return found[0] if len(found) == 1 else None

    def _used(self) -> set[str]:
        mounted = mounted_lower_directories()
        by_mount = {i for i, r in self._records.items() if all(str(self._layers.path(d)) in mounted for d in r.layers)}
        return by_mount | set(self._holds.values())

    def _set_names(self, names: dict[str, NameRecord]) -> None:
        self._disk.write_names(names)
        self._names = names

    async def _drop(self, image_ids: Iterable[str]) -> int:
        for image_id in image_ids:
            self._disk.drop_image(image_id)
            self._records.pop(image_id, None)
            self._configs.pop(image_id, None)
        needed = {diff_id for record in self._records.values() for diff_id in record.layers}
        return await self._layers.drop_except(needed)


async def _all_of(work: builtins.list[Coroutine[Any, Any, None]]) -> None:
    """All to their end, then the first error: what was unpacked beside a failed layer is there at the next try."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _tell(sinks: Iterable[ProgressSink], report: PullProgress) -> None:
    for sink in tuple(sinks):
        sink(report)


def _canonical(ref: str) -> str | None:
    try:
        return parse_image_ref(ref).canonical
    except BadInput:
        return None
