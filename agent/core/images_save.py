"""Images as one archive: an OCI layout with the digests they came with, which `docker load` takes as well (`manifest.json`).

Rules: reads only. Everything is opened before the first byte goes out, so what is removed meanwhile is still whole; layers go
out as they are kept, piece by piece. The same images give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from agent.core import images_facts as facts
from model.errors import Conflict
from model.image_ref import parse_image_ref

if TYPE_CHECKING:
    from agent.images.records import Details

_PIECE_BYTES = 256 << 10
_MANIFEST_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image with its config's text; `came_as`: by manifest the names (as people write them) it is to have in the archive.
    Two names of an image may have come with different compressions."""

    id: str
    config: str
    came_as: Mapping[str, tuple[str, ...]]


class Archive:
    """Open until `close`; `pieces` gives its bytes once. `blob_path`: where a blob is. Raises Conflict when an image is not
    whole here."""

    def __init__(self, blob_path: Callable[[str], Path], wanted: Sequence[Wanted]) -> None:
        self._blob_path = blob_path
        self._files = contextlib.ExitStack()
        self._members: dict[str, tuple[int, BinaryIO]] = {}
        try:
            index, manifest = [], []
            for image in wanted:
                found = [self._take(image, digest, names) for digest, names in image.came_as.items()]
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

    def _take(self, image: Wanted, digest: str, names: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Its rows in index.json, and the one in manifest.json."""
        raw = self._blob(image.id, digest).read(_MANIFEST_BYTES_MAX)
        document = json.loads(raw)
        self._add(digest_path(image.id), image.config.encode())
        self._add(digest_path(digest), raw)
        layers = [layer["digest"] for layer in document["layers"]]
        for layer in layers:
            self._member(digest_path(layer), self._blob(image.id, layer))
        about = {"mediaType": document.get("mediaType", ""), "digest": digest, "size": len(raw)}
        entries = [{**about, "annotations": _annotations(name)} for name in names] or [about]
        tags = [name for name in names if "@" not in name]
        return entries, {"Config": digest_path(image.id), "RepoTags": tags or None, "Layers": [digest_path(d) for d in layers]}

    def _blob(self, image_id: str, digest: str) -> BinaryIO:
        try:
            return self._files.enter_context(self._blob_path(digest).open("rb"))
        except FileNotFoundError:
            raise Conflict(
                f"image {image_id[7:19]}: this node does not have all that it came in: pull or load it again, then save it"
            ) from None

    def _add(self, name: str, content: bytes) -> None:
        self._members[name] = (len(content), io.BytesIO(content))

    def _member(self, name: str, file: BinaryIO) -> None:
        self._members[name] = (file.seek(0, io.SEEK_END), file)
        file.seek(0)


def wanted_of(details: Details, image_id: str, names: Sequence[str]) -> Wanted:
    """The image with the names it was asked for by; without any it goes as it came first."""
    by_digest: dict[str, tuple[str, ...]] = {} if names else {details.manifest: ()}
    for name in names:
        digest = facts.manifest_of(details, name)
        by_digest[digest] = (*by_digest.get(digest, ()), name)
    return Wanted(image_id, details.config, by_digest)


def digest_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _annotations(name: str) -> dict[str, str]:
    ref = parse_image_ref(name)
    tag = {"org.opencontainers.image.ref.name": ref.tag} if ref.tag else {}
    return {"io.containerd.image.name": ref.canonical, **tag}


def _plain(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
