"""Images in files: what `docker save` writes, and OCI layouts as a tar file or as a directory.

Rules: nothing is unpacked here; a layer is named as a part of a file (path, offset, size) and read from there later.
The archive is a stranger's: sizes are bounded, links inside it are followed only to regular members of it, and
everything is verified (digests in OCI layouts here, diff ids when the layer is unpacked).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.images.disk import iter_file
from agent.images.manifest import (
    INDEX_DEPTH_MAX,
    Descriptor,
    Documents,
    ParsedConfig,
    check_digest,
    parse_config,
    parse_index_or_manifest,
)
from agent.images.records import Limits
from model.errors import BadInput, ImageError
from model.image_ref import parse_image_ref

_MEMBERS_MAX = 100_000
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class FilePart:
    path: Path
    offset: int
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        return iter_file(self.path, self.offset, self.size_bytes)

    def bytes(self, size_max: int, what: str) -> bytes:
        if self.size_bytes > size_max:
            raise ImageError(f"{what}: {self.size_bytes} bytes where at most {size_max} are expected")
        return b"".join(self.pieces())


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive. `names` are canonical references; `layers` are bottom first and may be compressed; `documents`
    is None in what `docker save` writes."""

    names: tuple[str, ...]
    config_raw: bytes
    config: ParsedConfig
    layers: tuple[FilePart, ...]
    documents: Documents | None = None


def read_archive(path: Path, platform: str, limits: Limits) -> list[ArchivedImage]:
    """The images in a tar file (not compressed) or an OCI layout directory; at least one."""
    what = "image archive"  # on a node it lies under a name that nobody has given it
    parts = _directory_parts(path) if path.is_dir() else _tar_parts(path, what)
    if "index.json" in parts and "oci-layout" in parts:
        images = _oci_images(parts, what, platform, limits)
    elif "manifest.json" in parts:
        images = _docker_images(parts, what, limits)
    else:
        raise ImageError(f"{what}: neither `docker save` output (manifest.json) nor an OCI layout (index.json)")
    if not images:
        raise ImageError(f"{what}: holds no image")
    return images


def _directory_parts(path: Path) -> dict[str, FilePart]:
    blobs = path / "blobs" / "sha256"
    files = [path / "index.json", path / "oci-layout", *(blobs.iterdir() if blobs.is_dir() else ())]
    return {str(f.relative_to(path)): FilePart(f, 0, f.stat().st_size) for f in files if f.is_file()}


def _tar_parts(path: Path, what: str) -> dict[str, FilePart]:
    found: dict[str, FilePart] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for count, member in enumerate(archive):
                if count >= _MEMBERS_MAX:
                    raise ImageError(f"{what}: more than {_MEMBERS_MAX} members")
                name = _join("", member.name)
                if member.isreg():
                    found[name] = FilePart(path, member.offset_data, member.size)
                elif member.issym():
                    links[name] = _join(name.rpartition("/")[0], member.linkname)
                elif member.islnk():
                    links[name] = _join("", member.linkname)
    except tarfile.TarError as error:
        raise ImageError(f"{what}: not a tar archive ({error})") from None
    return found | {name: found[target] for name, target in links.items() if target in found}


def _join(base: str, name: str) -> str:
    parts: list[str] = []
    for part in f"{base}/{name}".split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _docker_images(parts: Mapping[str, FilePart], what: str, limits: Limits) -> list[ArchivedImage]:
    images = []
    for entry in _list(_json(parts["manifest.json"].bytes(limits.manifest_bytes, what), what), what):
        config_name, layer_names = entry.get("Config"), entry.get("Layers") or []
        if not isinstance(config_name, str) or not isinstance(layer_names, list):
            raise ImageError(f"{what}: manifest.json has no Config or Layers")
        config_raw = _part(parts, config_name, what).bytes(limits.config_bytes, what)
        config = parse_config(config_raw, what)
        layers = tuple(_part(parts, str(name), what) for name in layer_names)
        names = _names([str(tag) for tag in entry.get("RepoTags") or []])
        images.append(_checked(ArchivedImage(names, config_raw, config, layers), what))
    return images


def _oci_images(parts: Mapping[str, FilePart], what: str, platform: str, limits: Limits) -> list[ArchivedImage]:
    index = _json(parts["index.json"].bytes(limits.manifest_bytes, what), what)
    entries = index.get("manifests") if isinstance(index, dict) else None
    images: dict[str, ArchivedImage] = {}
    for entry in _list(entries, what):
        digest = str(entry.get("digest"))
        annotations = entry.get("annotations") or {}
        texts = [annotations[key] for key in _NAME_ANNOTATIONS if isinstance(annotations.get(key), str)][:1]
        image = _oci_image(parts, digest, _names([t for t in texts if ":" in t or "/" in t]), what, platform, limits)
        key = image.documents.manifest.digest if image.documents else ""
        before = images.get(key)
        names = image.names if before is None else tuple(dict.fromkeys(before.names + image.names))
        images[key] = replace(image, names=names)
    return list(images.values())


def _oci_image(
    parts: Mapping[str, FilePart], digest: str, names: tuple[str, ...], what: str, platform: str, limits: Limits
) -> ArchivedImage:
    indexes: tuple[bytes, ...] = ()
    for _ in range(INDEX_DEPTH_MAX):
        raw = _blob(parts, digest, what).bytes(limits.manifest_bytes, what)
        check_digest(raw, digest, what)
        parsed = parse_index_or_manifest(raw, what, platform, limits)
        if isinstance(parsed, Descriptor):
            digest, indexes = parsed.digest, (*indexes, raw)
            continue
        return _oci_manifest(parts, Documents(parsed, raw, indexes), names, what, limits)
    raise ImageError(f"{what}: index within index within index")


def _oci_manifest(
    parts: Mapping[str, FilePart], documents: Documents, names: tuple[str, ...], what: str, limits: Limits
) -> ArchivedImage:
    manifest = documents.manifest
    config_raw = _blob(parts, manifest.config.digest, what).bytes(limits.config_bytes, what)
    check_digest(config_raw, manifest.config.digest, what)
    layers = tuple(_blob(parts, layer.digest, what) for layer in manifest.layers)
    return _checked(ArchivedImage(names, config_raw, parse_config(config_raw, what), layers, documents), what)


def _checked(image: ArchivedImage, what: str) -> ArchivedImage:
    if len(image.layers) != len(image.config.diff_ids):
        raise ImageError(f"{what}: {len(image.layers)} layers, but the config names {len(image.config.diff_ids)}")
    return image


def _names(texts: list[str]) -> tuple[str, ...]:
    """Canonical names; what is no reference is left out, the image stays reachable by its id."""
    names = []
    for text in texts:
        try:
            names.append(parse_image_ref(text).canonical)
        except BadInput:
            continue
    return tuple(names)


def _blob(parts: Mapping[str, FilePart], digest: str, what: str) -> FilePart:
    return _part(parts, f"blobs/{digest.replace(':', '/', 1)}", what)


def _part(parts: Mapping[str, FilePart], name: str, what: str) -> FilePart:
    part = parts.get(_join("", name))
    if part is None:
        raise ImageError(f"{what}: {name[:100]} is missing in it")
    return part


def _json(raw: bytes, what: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ImageError(f"{what}: its index is not JSON") from None


def _list(value: object, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ImageError(f"{what}: its index is not a list of images")
    return value
