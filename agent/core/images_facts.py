"""What the image store has written down of its images: config, sizes, digests; and who uses them.

Rules: reads only. The store's files (agent/images/disk.py says which) are replaced in one step, so what is read is whole; one
that is missing or damaged says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.image_ref import parse_image_ref

if TYPE_CHECKING:
    from agent.images.records import Image
    from agent.plan.records import Life


def digests(data_dir: Path, images: Iterable[Image]) -> dict[str, dict[str, str]]:
    """By image id and familiar name the digest a registry has for it: of its manifest, or of the index that led there."""
    known = _read(data_dir / "images" / "names.json")
    return {image.id: {name: _digest(known, name) or image.digest for name in image.names} for image in images}


def config(data_dir: Path, image_id: str) -> dict[str, Any]:
    """The image's config as its maker wrote it; empty when it is not at hand."""
    text = config_text(data_dir, image_id)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def config_text(data_dir: Path, image_id: str) -> str:
    """The very text whose digest is the image's id; empty when it is not at hand."""
    return str(_record(data_dir, image_id).get("config", ""))


def manifest_of(data_dir: Path, image_id: str, name: str = "") -> str:
    """Digest of the manifest that an image came with, under that name where it has one; empty when it is not known."""
    entry = _read(data_dir / "images" / "names.json").get(parse_image_ref(name).canonical) if name else None
    if not isinstance(entry, dict) or entry.get("id") != image_id:
        entry = _record(data_dir, image_id)
    return str(entry.get("digest", ""))


def layer_digests(data_dir: Path, image: Image, name: str) -> list[str]:
    """Of its layers as the registry has them, bottom first; where that is not kept their diff ids."""
    layers = _read(blob_path(data_dir, manifest_of(data_dir, image.id, name))).get("layers")
    if isinstance(layers, list) and len(layers) == len(image.layers):
        return [str(layer["digest"]) for layer in layers]
    return [f"sha256:{layer.parent.name}" for layer in image.layers]


def blob_path(data_dir: Path, digest: str) -> Path:
    return data_dir / "images" / "blobs" / "sha256" / digest.removeprefix("sha256:")


def sizes(image: Image) -> list[int]:
    """Of its layers, bottom first."""
    return [int(_read(layer.with_name("layer.json")).get("size_bytes", 0)) for layer in image.layers]


def manifest_bytes(data_dir: Path, digest: str) -> int:
    """How large a kept manifest is; 0 when it is not kept."""
    try:
        return blob_path(data_dir, digest).stat().st_size
    except OSError:
        return 0


def users(lives: Iterable[Life]) -> dict[str, list[dict[str, Any]]]:
    """By image id the replicas of this node that were made of it, and whether a process of them runs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for life in sorted(lives, key=lambda life: life.name):
        if life.image is not None:
            row = {"id": life.container_id, "name": life.name, "running": life.may_run()}
            found.setdefault(life.image.id, []).append(row)
    return found


def _record(data_dir: Path, image_id: str) -> dict[str, Any]:
    return _read(data_dir / "images" / "images" / f"{image_id.removeprefix('sha256:')}.json")


def _digest(known: dict[str, Any], name: str) -> str:
    entry = known.get(parse_image_ref(name).canonical)
    return str([*entry.get("indexes", ()), entry.get("digest", "")][0]) if isinstance(entry, dict) else ""


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
