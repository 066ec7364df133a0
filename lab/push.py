"""Pushing an OCI image layout to the lab's own registry, as a node pushes: what is there already is not sent again.

Rules: synchronous. Blobs go first, the manifest last, so that a name never points to something incomplete.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.images.calls import Access, Calls
from agent.images.manifest import ACCEPT, Descriptor, Documents, Manifest, parse_index_or_manifest
from agent.images.push import Push, file_content
from agent.images.records import Limits, PushState
from model.errors import ImageError
from model.image_ref import parse_image_ref


@dataclass(frozen=True, slots=True)
class PushResult:
    """`exists`: the registry had this very image under this name; nothing was sent."""

    name: str
    digest: str
    exists: bool
    blobs_sent: int
    bytes_sent: int


def push_layout(calls: Calls, endpoint: str, layout: Path, name: str) -> PushResult:
    """Push the one image of `layout` as `name` (`shoal/web:1.0`; its registry part is not used) to `endpoint`.

    Raises ImageError.
    """
    ref = parse_image_ref(name)
    digest = str(_single_manifest(layout)["digest"])
    access = Access(endpoint, ref, None, pushes=True)
    what = f"image {ref.familiar} cannot be pushed to registry {endpoint}"
    if calls.retried(lambda: _has(calls, access, digest), what):
        return PushResult(ref.familiar, digest, True, 0, 0)
    raw = _blob_file(layout, digest).read_bytes()
    manifest = parse_index_or_manifest(raw, f"image {ref.familiar}", "/", Limits())
    if not isinstance(manifest, Manifest):
        raise ImageError(f"{layout} holds an index, one image is expected")
    push = Push(calls, access)

    def send(part: Descriptor) -> PushState:
        return push.blob(part, file_content(_blob_file(layout, part.digest)), (), lambda _: None)

    sent = [part.size_bytes for part in (*manifest.layers, manifest.config) if send(part) == "pushed"]
    push.manifest(Documents(manifest, raw))
    return PushResult(ref.familiar, digest, False, len(sent), sum(sent))


def _has(calls: Calls, access: Access, digest: str) -> bool:
    """Whether the registry has this very image under this name."""
    url = calls.url(access, f"manifests/{access.ref.tag}")
    with calls.exchange(access, "HEAD", url, {"Accept": ACCEPT}, (200, 404)) as reply:
        reply.text(1 << 20)
        return reply.status == 200 and reply.headers.get("docker-content-digest") == digest


def _single_manifest(layout: Path) -> dict[str, Any]:
    try:
        entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(f"{layout} is no OCI image layout: {error}") from None
    if len(entries) != 1:
        raise ImageError(f"{layout} holds {len(entries)} images, one is expected")
    first: dict[str, Any] = entries[0]
    return first


def _blob_file(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
