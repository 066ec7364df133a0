"""An image of this node's store as buildah can take it in: a folder of links to what the store keeps, with a manifest.

Rules: reads the store, writes only into its own folder. The manifest is of Docker's kind whatever the image came with: only
that one carries a HEALTHCHECK, and with it buildah's image has the same id as the store's, but for images without a history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.images.records import Details
from model.errors import Conflict

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_VERSION = "Directory Transport Version: 1.1\n"


def write_base(folder: Path, name: str, details: Details, blob_path: Callable[[str], Path]) -> str:
    """Fill the new `folder`; the image's id in buildah, digits only. Raises Conflict when this node lacks parts of it."""
    folder.mkdir(mode=0o700)
    layers: list[dict[str, Any]] = []
    for digest in details.blobs.get(details.manifest, ()):
        blob, link = blob_path(digest), folder / digest.removeprefix("sha256:")
        try:
            size = blob.stat().st_size
        except FileNotFoundError:
            raise Conflict(f"image {name}: this node lacks parts that it came in: `shoal pull {name}` brings them") from None
        if not link.is_symlink():
            link.symlink_to(blob.absolute())
        layers.append({"mediaType": _LAYER, "size": size, "digest": digest})
    config = with_history(details.config).encode()
    image_id = hashlib.sha256(config).hexdigest()
    (folder / image_id).write_bytes(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "size": len(config), "digest": f"sha256:{image_id}"},
        "layers": layers,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "version").write_text(_VERSION)
    return image_id


def with_history(config: str) -> str:
    """As it is when its history tells of each layer. buildah builds on no other, and some images have none."""
    document = json.loads(config)
    layers = document.get("rootfs", {}).get("diff_ids") or ()
    steps = [step for step in document.get("history") or () if isinstance(step, dict)]
    if sum(1 for step in steps if not step.get("empty_layer")) == len(layers):
        return config
    created = document.get("created") or "1970-01-01T00:00:00Z"
    return json.dumps({**document, "history": [{"created": created, "created_by": "", "comment": ""} for _ in layers]})
