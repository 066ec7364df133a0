"""The node's image store: pulls once, unpacks once, shares, and gives away what it took in, with the same digests.

Rules: asynchronous, for ONE event loop; files are touched in worker threads or in short calls. Two pulls of the same
reference are one; a layer wanted by two images is fetched and unpacked once. Layers are kept by diff id: each is
unpacked on its own, so equal content is one directory whatever lies below it. What a container uses is held (`hold`),
or seen mounted, and never deleted; nor is what a pull or push under way needs.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from agent.images.archive import ArchivedImage, read_archive
from agent.images.blobs import Blobs
from agent.images.catalog import Catalog, canonical, layer_pairs
from agent.images.disk import ImageRecord, NameRecord, StoreDisk, iter_file
from agent.images.errors import ImageInUse, ImageNotFound, disk_error, new_name
from agent.images.fetch import Fetch, Sources, kept_pieces
from agent.images.flights import Flights
from agent.images.layer_pool import LayerPool, LayerSource
from agent.images.manifest import Descriptor, Documents, Manifest, ParsedConfig, made_manifest, parse_config, sha256_digest
from agent.images.overlay import mounted_lower_directories
from agent.images.peers import NoPeers, Peers
from agent.images.progress import ProgressMeter
from agent.images.pushing import Pushes
from agent.images.records import (
    Credentials,
    Details,
    HeldImage,
    Image,
    ProgressSink,
    PullPolicy,
    PullProgress,
    Pushed,
    PushSink,
    RegistryConfig,
    RemoteImage,
    Removed,
)
from agent.images.registry import RegistryClient
from agent.images.spool import is_readable_in_place, spool_archive
from agent.images.threads import Threads, all_of
from agent.images.written import write_layer
from model.errors import BadInput, ImageError
from model.image_ref import ImageRef, parse_image_ref


class ImageStore:
    """See the file's rules. Making one takes the store's lock and sweeps what a crash left; `close` gives it back."""

    def __init__(self, root: Path, *, config: RegistryConfig, peers: Peers | None = None) -> None:
        self._config = config
        self._disk = StoreDisk(root)
        self._client = RegistryClient(config)
        self._threads = Threads(2 * config.parallel + 4)
        self._blobs = Blobs(self._disk, self._threads)
        self._layers = LayerPool(self._disk, self._blobs, config.limits, config.parallel, self._threads)
        self._catalog = Catalog(self._disk, self._layers, self._blobs, config.limits)
        self._sources = Sources(config, self._client, peers or NoPeers(), self._blobs, self._disk, self._threads)
        self._pushes = Pushes(self._client.calls, self._catalog, self._layers, self._blobs, self._threads, config.parallel)
        self._pulls: Flights[str] = Flights()
        self._sinks: dict[str, list[ProgressSink]] = {}
        self._holds: dict[str, str] = {}

    async def close(self) -> None:
        """End running pulls and pushes, bring what is there to the disk, give the lock back."""
        self._client.calls.stop.set()
        await self._pulls.drain()
        await self._layers.close()
        await self._threads.close()
        self._client.close()
        self._disk.close()

    def get(self, ref: str) -> Image | None:
        """By reference, by id (`sha256:...`), or by the first 12 digits or more of the id."""
        image_id = self._catalog.find(ref)
        return self._catalog.image(image_id) if image_id is not None else None

    def list(self) -> list[Image]:
        return [self._catalog.image(image_id) for image_id in sorted(self._catalog.records)]

    @property
    def moved(self) -> asyncio.Event:
        """Set when what is `held` may have changed; who waits clears it."""
        return self._catalog.moved

    def held(self) -> tuple[HeldImage, ...]:
        """What this node can give to others, by id."""
        return self._catalog.held()

    def details(self, image_id: str) -> Details:
        """Raises ImageNotFound."""
        return self._catalog.details(image_id)

    def blob_path(self, digest: str) -> Path:
        """Where a manifest, index or layer lies that is kept as it came."""
        return self._blobs.path(digest)

    def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """What this node keeps by that digest, for another one. Raises ImageNotFound."""
        return kept_pieces(self._sources, digest, offset, self._config_text)

    async def pull(
        self,
        ref: str,
        *,
        digest: str = "",
        auth: Credentials | None = None,
        progress: ProgressSink | None = None,
        policy: PullPolicy = "missing",
    ) -> Image:
        """The image, fetched when the policy wants it. `progress` is called on the event loop, about ten times a second.

        `digest`: what the name is to stand for here, of an index or a manifest; the registry is not asked what it means now.
        Raises ImageError (ImageNotFound, RegistryRefused, RegistryUnavailable), DiskFull, BadInput for a bad `ref`.
        """
        parsed = parse_image_ref(ref)
        wanted = replace(parsed, digest=digest) if digest else parsed
        if digest and parse_image_ref(wanted.canonical).digest != (parsed.digest or digest):
            raise BadInput(f"image {parsed.familiar}: it cannot stand for {digest}")
        if digest and not self._is_present(ref, digest, policy) and (same := self._catalog.came_with(digest)) is not None:
            self._catalog.name([parsed.canonical], same)
            self._layers.start_sync()
        if self._is_present(ref, digest, policy):
            return self._catalog.image(self._catalog.names[parsed.canonical].id)
        if policy == "never":
            raise ImageNotFound(f"image {wanted.familiar} is not on this node, and its pull policy is 'never'")
        key = f"{parsed.canonical} {digest} {hash(auth)}"  # who may not is no burden to who may
        sinks = self._sinks.setdefault(key, [])
        if progress is not None:
            sinks.append(progress)
        try:
            return self._catalog.image(await self._pulls.join(key, lambda: self._pull(wanted, parsed.canonical, auth, sinks)))
        finally:
            if progress is not None:
                sinks.remove(progress)
            if not sinks:
                self._sinks.pop(key, None)

    def _is_present(self, ref: str, digest: str, policy: PullPolicy) -> bool:
        """Whether a pull would fetch nothing and ask nobody."""
        present = self._catalog.names.get(canonical(ref) or "")
        return present is not None and (digest in (present.digest, *present.indexes) if digest else policy != "always")

    async def resolve(self, ref: str, *, auth: Credentials | None = None) -> str:
        """The digest that a name has at its registry now (of an index where there is one); one that has a digest keeps it.

        Raises ImageError (ImageNotFound, RegistryRefused, RegistryUnavailable), BadInput for a bad `ref`.
        """
        parsed = parse_image_ref(ref)
        if parsed.digest is not None:
            return parsed.digest
        return await self._threads.run(self._client.digest, parsed, auth)

    async def remote(self, ref: str, *, auth: Credentials | None = None) -> RemoteImage:
        """What a registry says of an image: its manifest for this platform and its config are read, nothing is kept.

        Raises ImageError (ImageNotFound, RegistryRefused, RegistryUnavailable), BadInput for a bad `ref`.
        """
        parsed = parse_image_ref(ref)
        found = await self._threads.run(self._client.resolve, parsed, auth)
        manifest = found.manifest
        raw = (self._config_text(manifest.config.digest) or "").encode()
        raw = raw or await self._threads.run(self._client.blob_bytes, found.endpoint, parsed, manifest.config, auth)
        parse_config(raw, f"image {parsed.familiar}")
        sizes = tuple(layer.size_bytes for layer in manifest.layers)
        return RemoteImage(manifest.config.digest, manifest.digest, raw.decode(), sizes)

    async def load(self, source: IO[bytes] | Path | str) -> builtins.list[Image]:
        """Take in every image of a `docker save` file or OCI layout (tar, also gzip or zstd; or a directory)."""
        if not isinstance(source, str | Path):
            return await self._load_spooled(source)
        path = Path(source)
        return await self._load_path(path) if is_readable_in_place(path) else await self._load_spooled(path)

    async def commit(
        self,
        base: str,
        written: AbstractAsyncContextManager[Path],
        leave_out: Collection[str],
        config_of: Callable[[str | None], bytes],
        name: str,
    ) -> Image:
        """An image of what a container wrote over the image with the id `base`.

        `written` gives overlayfs's upper directory, and is left as soon as that is read; `leave_out`: paths in it
        (`etc/hosts`); `config_of`: the config, given the new layer's diff id, None when nothing was written; `name` may be
        empty. Raises ImageError, DiskFull, BadInput for a bad name.
        """
        what = f"image {name or 'of a container'}"
        names = [new_name(name).canonical] if name else []
        below = self._catalog.records.get(base)
        if below is None:
            raise ImageNotFound(f"image {base} is not on this node")
        spool = self._disk.spool_file()
        try:
            async with written as upper:
                diff_id = await self._threads.run(write_layer, upper, spool, leave_out, self._config.limits.unpacked_bytes)
            raw = config_of(diff_id)
            config = parse_config(raw, what)
            sources = [(each, LayerSource(partial(_no_blob, what), None)) for each in below.layers]
            if diff_id is not None:
                sources.append((diff_id, LayerSource(partial(iter_file, spool, 0, spool.stat().st_size), None)))
            return self._catalog.image(await self._assemble(raw, config, None, sources, names, what))
        except OSError as error:
            raise disk_error(error, what, self._disk.root) from error
        finally:
            spool.unlink(missing_ok=True)

    async def push(self, ref: str, *, auth: Credentials | None = None, progress: PushSink | None = None) -> Pushed:
        """Have the image of that name in the registry the name says (never a mirror), with the digests it has here.

        `progress` is called on the event loop. Raises ImageError (ImageNotFound, RegistryRefused, RegistryUnavailable).
        """
        return await self._pushes.push(parse_image_ref(ref), auth, progress)

    async def tag(self, ref: str, name: str) -> Image:
        """Give an image, named by a reference or its id, one more name; what had that name before loses it."""
        parsed, named = new_name(name), self._catalog.named(ref)
        self._catalog.name([parsed.canonical], named)
        self._layers.start_sync()
        return self._catalog.image(named.id)

    async def remove(self, ref: str, *, force: bool = False) -> Removed:
        """Take the name away; with its last name the image goes, and the layers nobody else needs. What went is told.

        Given an id, all names go. With `force` an image in use loses its last name too and stays without one, for `prune` to
        collect when nothing uses it. Raises ImageNotFound, ImageInUse.
        """
        image_id = self._catalog.find(ref)
        if image_id is None:
            raise ImageNotFound(f"image {ref} is not on this node")
        names = {name for name, record in self._catalog.names.items() if record.id == image_id}
        by_name = canonical(ref)
        gone = {by_name} if by_name in names else names
        is_last = gone >= names
        if is_last and self._layers.is_pinned(self._catalog.records[image_id].layers):
            raise ImageInUse(f"image {ref} is used on this node: a pull or push of it, or of its layers, is under way")
        is_used = is_last and image_id in self._used()
        if is_used and not (force and names):
            raise ImageInUse(f"image {ref} is used on this node: remove the containers that use it first")
        self._catalog.set_names({name: record for name, record in self._catalog.names.items() if name not in gone})
        layers = self._catalog.records[image_id].layers
        goes = is_last and not is_used
        self._catalog.forget([image_id] if goes else [])
        freed_bytes = await self.collect()
        if not goes:
            return Removed(freed_bytes=freed_bytes)  # the index that this name came with
        return Removed(image_id, tuple(diff_id for diff_id in layers if diff_id not in self._layers), freed_bytes)

    async def collect(self) -> int:
        """Delete every layer and blob that no image and nothing under way needs: what broken pulls left. The bytes freed."""
        freed = await self._layers.drop_except(self._catalog.needed_layers())
        return freed + await self._blobs.drop_except(self._catalog.needed_blobs() | self._layers.kept_of_pinned())

    def hold(self, image_id: str, owner: str) -> None:
        """Say that `owner` (a container) uses the image, until `release`. Kept in memory: hold again after a restart."""
        self._holds[owner] = image_id

    def release(self, owner: str) -> None:
        self._holds.pop(owner, None)

    async def _pull(self, ref: ImageRef, name: str, auth: Credentials | None, sinks: Iterable[ProgressSink]) -> str:
        """`name`: what it is called here; its registry is asked for `ref`."""
        what = f"image {ref.familiar}"
        async with self._sources.fetch(ref, auth) as fetch:
            documents = await fetch.documents()
            part = documents.manifest.config
            raw = (self._config_text(part.digest) or "").encode() or await fetch.config(part)
            config = parse_config(raw, what)
            self._check(what, documents, config)
            layers = self._layers_of(ref, fetch, documents.manifest, config, sinks)
            return await self._assemble(raw, config, documents, layers, (name,), what)

    def _config_text(self, image_id: str) -> str | None:
        known = self._catalog.records.get(image_id)
        return known.config if known is not None else None

    def _layers_of(
        self, ref: ImageRef, fetch: Fetch, manifest: Manifest, config: ParsedConfig, sinks: Iterable[ProgressSink]
    ) -> builtins.list[tuple[str, LayerSource]]:
        """Where the layers come from, and a meter that counts what is fetched."""
        pairs = layer_pairs(config, manifest)
        missing = [blob for diff_id, blob in pairs if not self._layers.has(diff_id, blob)]
        meter = ProgressMeter(ref.familiar, lambda report: _tell(sinks, report))
        bytes_total = sum(blob.size_bytes for blob in missing)
        meter.start(asyncio.get_running_loop(), len(pairs), len(pairs) - len(missing), bytes_total)
        return [(diff_id, fetch.layer(blob, meter)) for diff_id, blob in pairs]

    async def _load_spooled(self, source: IO[bytes] | Path) -> builtins.list[Image]:
        spool = self._disk.spool_file()
        try:
            await self._threads.run(spool_archive, source, spool, self._config.limits)
            return await self._load_path(spool)
        finally:
            spool.unlink(missing_ok=True)

    async def _load_path(self, path: Path) -> builtins.list[Image]:
        archived = await self._threads.run(read_archive, path, self._config.platform, self._config.limits)
        return [self._catalog.image(await self._load_one(image)) for image in archived]

    async def _load_one(self, image: ArchivedImage) -> str:
        blobs: Iterable[Descriptor | None] = image.documents.manifest.layers if image.documents else [None] * len(image.layers)
        parts = zip(image.config.diff_ids, image.layers, blobs, strict=True)
        sources = [(diff_id, LayerSource(part.pieces, blob)) for diff_id, part, blob in parts]
        return await self._assemble(
            image.config_raw, image.config, image.documents, sources, image.names, "image archive"
        )

    async def _assemble(
        self,
        raw: bytes,
        config: ParsedConfig,
        documents: Documents | None,
        sources: Sequence[tuple[str, LayerSource]],
        names: Iterable[str],
        what: str,
    ) -> str:
        """Have all layers, then the image, then its names: in this order, so that each is whole when it is seen."""
        indexes = documents.indexes if documents else ()
        wanted = [source.blob.digest for _, source in sources if source.blob is not None]
        came_in = [sha256_digest(index) for index in indexes] + ([documents.manifest.digest] if documents else [])
        with self._layers.pin(config.diff_ids), self._blobs.pin(wanted + came_in):
            kept = await all_of([self._layers.ensure(diff_id, source, what) for diff_id, source in sources])
            with self._blobs.pin([blob.digest for blob in kept]):
                documents = documents or made_manifest(raw, kept)
                try:
                    for document in (*indexes, documents.raw):
                        self._blobs.put(document)
                    record = ImageRecord(sha256_digest(raw), documents.manifest.digest, raw.decode(), config.diff_ids)
                    self._catalog.add(record, config)
                    named = NameRecord(record.id, documents.manifest.digest, tuple(came_in[: len(indexes)]))
                    self._catalog.name(names, named)
                except OSError as error:
                    raise disk_error(error, what, self._disk.root) from error
        self._layers.start_sync()
        return record.id

    def _check(self, what: str, documents: Documents, config: ParsedConfig) -> None:
        if len(documents.manifest.layers) != len(config.diff_ids):
            raise ImageError(f"{what}: {len(documents.manifest.layers)} layers, but its config names {len(config.diff_ids)}")
        have, want = config.platform.split("/")[:2], self._config.platform.split("/")[:2]
        if all(have) and have != want:
            raise ImageError(f"{what} is for {'/'.join(have)}, this node is {'/'.join(want)}")

    def _used(self) -> set[str]:
        mounted, records = mounted_lower_directories(), self._catalog.records
        by_mount = {i for i, r in records.items() if all(str(self._layers.path(d)) in mounted for d in r.layers)}
        return by_mount | set(self._holds.values())


def _no_blob(what: str) -> Iterator[bytes]:
    raise ImageError(f"{what}: this node does not have all that the image below came in: pull or load that again")


def _tell(sinks: Iterable[ProgressSink], report: PullProgress) -> None:
    for sink in tuple(sinks):
        sink(report)
