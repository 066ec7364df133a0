"""Images as one archive: an OCI layout with the digests they came with, which `docker load` takes as well (`manifest.json`).

Rules: reads only. Everything is opened before the first byte goes out, so what is removed meanwhile is still whole; layers go
out as they are kept, piece by piece. The same images give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.core import images_facts as facts
from model.errors import Conflict, NotFound
from model.image_ref import parse_image_ref

_PIECE_BYTES = 256 << 10
_MANIFEST_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image and the names (as people write them) it is to have in the archive."""

    id: str
    names: tuple[str, ...]


class Archive:
    """Open until `close`; `pieces` gives its bytes once. Raises NotFound, Conflict when an image is not whole here."""

    def __init__(self, data_dir: Path, wanted: Sequence[Wanted]) -> None:
        self._data_dir = data_dir
        self._files = contextlib.ExitStack()
        self._members: dict[str, tuple[int, BinaryIO]] = {}
        try:
            index, manifest = [], []
            for image in wanted:
                found = [self._take(image.id, digest, names) for digest, names in self._came_as(image)]
                index += [entry for entries, _ in found for entry in entries]
                manifest += [entry for _, entry in found]
            self._add("index.json", _plain({"schemaVersion": 2, "manifests": index}))
            self._add("manifest.json", _plain(manifest))
            self._add("oci-layout", _plain({"imageLayoutVersion": "1.0.0"}))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._files.close()

    def pieces(self) -> Iterator[bytes]:
        for name, (size, file) in self._members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = size, 0o644
            yield info.tobuf(tarfile.PAX_FORMAT)
            while piece := file.read(_PIECE_BYTES):
                yield piece
            yield b"\0" * (-size % tarfile.BLOCKSIZE)
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def _came_as(self, image: Wanted) -> list[tuple[str, tuple[str, ...]]]:
        """By manifest the names that it is known by: two names of an image may have come with different compressions."""
        by_digest: dict[str, tuple[str, ...]] = {}
        for name in image.names:
            digest = facts.manifest_of(self._data_dir, image.id, name)
            by_digest[digest] = (*by_digest.get(digest, ()), name)
        return list(by_digest.items()) or [(facts.manifest_of(self._data_dir, image.id), ())]

    def _take(self, image_id: str, digest: str, names: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Its rows in index.json, and the one in manifest.json."""
        raw = self._blob(image_id, digest).read(_MANIFEST_BYTES_MAX)
        document = json.loads(raw)
        config = facts.config_text(self._data_dir, image_id)
        self._add(digest_path(image_id), config.encode())
        self._add(digest_path(digest), raw)
        layers = [layer["digest"] for layer in document["layers"]]
        for layer in layers:
            self._member(digest_path(layer), self._blob(image_id, layer))
        about = {"mediaType": document.get("mediaType", ""), "digest": digest, "size": len(raw)}
        entries = [{**about, "annotations": _annotations(name)} for name in names] or [about]
        tags = [name for name in names if "@" not in name]
        return entries, {"Config": digest_path(image_id), "RepoTags": tags or None, "Layers": [digest_path(d) for d in layers]}

    def _blob(self, image_id: str, digest: str) -> BinaryIO:
        try:
            return self._files.enter_context(facts.blob_path(self._data_dir, digest).open("rb"))
        except FileNotFoundError:
            raise Conflict(
                f"image {image_id[7:19]}: this node does not have all that it came in: pull or load it again, then save it"
            ) from None

    def _add(self, name: str, content: bytes) -> None:
        self._members[name] = (len(content), io.BytesIO(content))

    def _member(self, name: str, file: BinaryIO) -> None:
        self._members[name] = (file.seek(0, io.SEEK_END), file)
        file.seek(0)


def wanted_of(rows: Sequence[tuple[str, Sequence[str]]], known: Sequence[str]) -> list[Wanted]:
    """(id, names) as they were asked for. Raises NotFound for an id that is not known."""
    for image_id, _ in rows:
        if image_id not in known:
            raise NotFound(f"No such image: {image_id}")
    return [Wanted(image_id, tuple(names)) for image_id, names in rows]


def digest_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _annotations(name: str) -> dict[str, str]:
    ref = parse_image_ref(name)
    tag = {"org.opencontainers.image.ref.name": ref.tag} if ref.tag else {}
    return {"io.containerd.image.name": ref.canonical, **tag}


def _plain(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
