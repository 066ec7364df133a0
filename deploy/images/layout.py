"""Writes an OCI image layout: layers as deterministic tars, config, manifest, index.

Rules: equal input gives equal bytes (sorted entries, one fixed time, owner 0, gzip without name and time). A layout appears
under its name in one rename, complete. Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.images.debs import FileEntry

EPOCH_S = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"
_TYPES = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}


@dataclass(frozen=True)
class Layer:
    """One layer, compressed. `diff_id` is the digest of the tar, `digest` of its gzip."""

    diff_id: str
    digest: str
    data: bytes
    comment: str


def make_layer(entries: Iterable[FileEntry], comment: str) -> Layer:
    """The last entry of a path wins; missing parent directories are added."""
    by_path: dict[str, FileEntry] = {}
    for entry in entries:
        by_path[entry.path] = entry
    for path in list(by_path):
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            by_path.setdefault("/".join(parts[:count]), FileEntry("/".join(parts[:count]), "dir", 0o755))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(by_path, key=lambda p: (by_path[p].kind == "hardlink", p)):
            entry = by_path[path]
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.mtime = _TYPES[entry.kind], entry.mode, EPOCH_S
            info.size, info.linkname = len(entry.data), entry.link
            archive.addfile(info, io.BytesIO(entry.data))
    tar = plain.getvalue()
    data = gzip.compress(tar, compresslevel=6, mtime=0)
    return Layer(_digest(tar), _digest(data), data, comment)


def write_layout(directory: Path, name: str, layers: Sequence[Layer], run: Mapping[str, Any], architecture: str) -> None:
    """An OCI layout of one image, named `name` (`busybox:1.35`), at `directory`; what stood there is replaced."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        building.chmod(0o755)
        config = _json_blob(building, _config(layers, run, architecture))
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **_blob(building, layer.data)} for layer in layers
            ],
        }
        entry = {"mediaType": manifest["mediaType"], **_json_blob(building, manifest)}
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        (building / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (building / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _config(layers: Sequence[Layer], run: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    return {
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": dict(run),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": CREATED, "created_by": layer.comment} for layer in layers],
    }


def _json_blob(layout: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    return _blob(layout, json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def _blob(layout: Path, data: bytes) -> dict[str, Any]:
    digest = _digest(data)
    file = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return {"digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
