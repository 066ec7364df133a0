"""Which images a store has, what they are called, and what of them must be kept.

Rules: synchronous, for one event loop. Everything is on the disk before it is known here. An image has one id and may have come
with several manifests (other compressions of the same layers): each name says which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent.images.blobs import Blobs
from agent.images.disk import ImageRecord, NameRecord, StoreDisk
from agent.images.errors import ImageNotFound, not_to_push
from agent.images.layer_pool import LayerPool
from agent.images.manifest import Descriptor, Documents, Manifest, ParsedConfig, parse_config, parse_index_or_manifest
from agent.images.records import Details, HeldImage, Image, Limits
from model.errors import BadInput, ImageError
from model.image_ref import ImageRef, parse_image_ref

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT_ID_CHARS_MIN = 12


class Catalog:
    def __init__(self, disk: StoreDisk, layers: LayerPool, blobs: Blobs, limits: Limits) -> None:
        self._disk = disk
        self._layers = layers
        self._blobs = blobs
        self._limits = limits
        self.records = disk.load_images(layers.known())
        self.names = disk.load_names(self.records.keys())
        self._configs: dict[str, ParsedConfig] = {}
        self._manifests: dict[str, Manifest] = {}
        self.moved = asyncio.Event()
        """Set when something came, went or was named."""
        for image_id, digest in self._came_with():
            manifest = self.manifest(digest)
            if manifest is not None:
                layers.note(self.records[image_id].layers, manifest.layers)

    def image(self, image_id: str) -> Image:
        record = self.records[image_id]
        config = self._config(record)
        names = sorted(name for name, named in self.names.items() if named.id == image_id)
        return Image(
            id=image_id,
            names=tuple(parse_image_ref(name).familiar for name in names),
            digest=self.names[names[0]].digest if names else record.digest,
            layers=tuple(self._layers.path(diff_id) for diff_id in record.layers),
            config=config.config,
            size_bytes=self._layers.size_bytes(record.layers),
            created=config.created,
        )

    def details(self, image_id: str) -> Details:
        """Raises ImageNotFound."""
        record = self.records.get(image_id)
        if record is None:
            raise ImageNotFound(f"image {image_id} is not on this node")
        named = {parse_image_ref(name).familiar: each for name, each in sorted(self.names.items()) if each.id == image_id}
        manifests = {name: each.digest for name, each in named.items()}
        known = {digest: self.manifest(digest) for digest in (record.digest, *manifests.values())}
        return Details(
            config=record.config,
            manifest=record.digest,
            manifests=manifests,
            digests={name: (*each.indexes, each.digest)[0] for name, each in named.items()},
            sizes_bytes=tuple(self._layers.size_bytes([diff_id]) for diff_id in record.layers),
            blobs={digest: tuple(layer.digest for layer in found.layers) for digest, found in known.items() if found},
        )

    def held(self) -> tuple[HeldImage, ...]:
        """What can be given to others, by id."""
        names: dict[str, list[tuple[str, str]]] = {}
        manifests = {record.id: {record.digest} for record in self.records.values()}
        blobs = {image_id: {image_id} for image_id in self.records}
        for name, named in sorted(self.names.items()):
            names.setdefault(named.id, []).append((name, (*named.indexes, named.digest)[0]))
            manifests[named.id].add(named.digest)
            blobs[named.id].update(digest for digest in named.indexes if digest in self._blobs)
        for image_id, digests in manifests.items():
            for digest in digests:
                manifest = self.manifest(digest)
                wanted = (digest, *(layer.digest for layer in manifest.layers)) if manifest else ()
                blobs[image_id].update(each for each in wanted if each in self._blobs)
        return tuple(
            HeldImage(image_id, tuple(names.get(image_id, ())), tuple(sorted(blobs[image_id]))) for image_id in sorted(blobs)
        )

    def find(self, ref: str) -> str | None:
        """By reference, by id (`sha256:...`), or by the first 12 digits or more of the id."""
        named = self.names.get(canonical(ref) or "")
        return named.id if named is not None else by_digits(ref, self.records)

    def named(self, ref: str) -> NameRecord:
        """What is known by this reference or id; raises ImageNotFound."""
        image_id = self.find(ref)
        if image_id is None:
            raise ImageNotFound(f"image {ref} is not on this node")
        by_name = self.names.get(canonical(ref) or "")
        if by_name is not None:
            return by_name
        same = (self.names[name] for name in sorted(self.names) if self.names[name].id == image_id)
        return next(same, NameRecord(image_id, self.records[image_id].digest))

    def came_with(self, digest: str) -> NameRecord | None:
        """What stands for this digest here, of an index or a manifest, whatever it is called."""
        named = (self.names[name] for name in sorted(self.names))
        found = next((each for each in named if digest in (each.digest, *each.indexes)), None)
        nameless = (NameRecord(record.id, digest) for record in self.records.values() if record.digest == digest)
        return found or next(nameless, None)

    def to_push(self, ref: ImageRef) -> NameRecord:
        """The same for a push: a reference by digest is also known by another name of its repository."""
        by_name = self.names.get(ref.canonical)
        if by_name is None and ref.digest is not None:
            same = (n for name, n in sorted(self.names.items()) if n.digest == ref.digest and _repository(name) == ref.name)
            by_name = next(same, None)
        if by_name is None:
            raise not_to_push(ref)
        if ref.digest is not None and by_name.digest != ref.digest:
            raise ImageError(
                f"image {ref.familiar} is an index, and this node has one platform of it only: tag it, and push the tag"
            )
        return by_name

    def manifest(self, digest: str) -> Manifest | None:
        """A kept manifest; None when it is not kept."""
        if digest not in self._blobs:
            return None
        if digest not in self._manifests:
            raw = self._blobs.read(digest, self._limits.manifest_bytes)
            try:
                parsed = parse_index_or_manifest(raw, digest, "/", self._limits) if raw is not None else None
            except ImageError:
                return None
            if not isinstance(parsed, Manifest):
                return None
            self._manifests[digest] = parsed
        return self._manifests[digest]

    def documents(self, named: NameRecord, what: str) -> Documents:
        """The manifest of a name and what is kept with it; raises ImageError, saying what to do, when something is missing."""
        manifest = self.manifest(named.digest)
        raw = self._blobs.read(named.digest, self._limits.manifest_bytes)
        if manifest is None or raw is None or any(layer.digest not in self._blobs for layer in manifest.layers):
            raise ImageError(
                f"{what}: this node has its files, not the blobs it came in (an older version did not keep them): pull or "
                "load it again, then push it"
            )
        return Documents(manifest, raw)

    def repositories(self, registry: str) -> dict[str, list[str]]:
        """By blob the repositories of a registry that images of this node are named by."""
        found: dict[str, list[str]] = {}
        for name, named in sorted(self.names.items()):
            ref, manifest = parse_image_ref(name), self.manifest(named.digest)
            if manifest is None or ref.registry != registry:
                continue
            for blob in (manifest.config, *manifest.layers):
                known = found.setdefault(blob.digest, [])
                if ref.repository not in known:
                    known.append(ref.repository)
        return found

    def add(self, record: ImageRecord, config: ParsedConfig) -> None:
        known = self.records.get(record.id)
        if known is None or self.manifest(known.digest) is None:
            self._disk.write_image(record)
            self.records[record.id] = record
            self.moved.set()
        self._configs[record.id] = config

    def name(self, names: Iterable[str], record: NameRecord) -> None:
        self.set_names(self.names | dict.fromkeys(names, record))

    def set_names(self, names: dict[str, NameRecord]) -> None:
        self._disk.write_names(names)
        self.names = names
        self.moved.set()

    def forget(self, image_ids: Iterable[str]) -> None:
        for image_id in image_ids:
            self._disk.drop_image(image_id)
            self.records.pop(image_id, None)
            self._configs.pop(image_id, None)
            self.moved.set()

    def needed_layers(self) -> set[str]:
        return {diff_id for record in self.records.values() for diff_id in record.layers}

    def needed_blobs(self) -> set[str]:
        """What images and names came with: indexes, manifests, their layers."""
        needed = {digest for named in self.names.values() for digest in named.indexes}
        for _, digest in self._came_with():
            manifest = self.manifest(digest)
            needed.add(digest)
            needed.update(layer.digest for layer in (manifest.layers if manifest else ()))
        return needed

    def _came_with(self) -> Iterator[tuple[str, str]]:
        yield from ((record.id, record.digest) for record in self.records.values())
        yield from ((named.id, named.digest) for named in self.names.values())

    def _config(self, record: ImageRecord) -> ParsedConfig:
        if record.id not in self._configs:
            self._configs[record.id] = parse_config(record.config.encode(), f"image {record.id[:19]}")
        return self._configs[record.id]


def canonical(ref: str) -> str | None:
    try:
        return parse_image_ref(ref).canonical
    except BadInput:
        return None


def by_digits(ref: str, ids: Iterable[str]) -> str | None:
    """The one of these ids that `ref` is, or its first 12 digits or more are."""
    digits = ref.removeprefix("sha256:")
    if len(digits) < _SHORT_ID_CHARS_MIN:
        return None
    found = [image_id for image_id in ids if image_id.startswith(f"sha256:{digits}")]
    return found[0] if len(found) == 1 else None


def layer_pairs(config: ParsedConfig, manifest: Manifest) -> list[tuple[str, Descriptor]]:
    """Every different (diff id, blob) of an image, bottom first."""
    return list(dict.fromkeys(zip(config.diff_ids, manifest.layers, strict=True)))


def _repository(name: str) -> str:
    return parse_image_ref(name).name
