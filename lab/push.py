"""Pushing an OCI image layout to a registry: what is there already is not sent again.

Rules: synchronous, for the lab's own registry (no authentication). Blobs go first, the manifest last, so that a name never
points to something incomplete.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from agent.images.manifest import ACCEPT
from agent.images.transport import Body, Reply, Transport
from model.errors import ImageError
from model.image_ref import ImageRef, parse_image_ref


@dataclass(frozen=True, slots=True)
class PushResult:
    """`exists`: the registry had this very image under this name; nothing was sent."""

    name: str
    digest: str
    exists: bool
    blobs_sent: int
    bytes_sent: int


def push_layout(transport: Transport, endpoint: str, layout: Path, name: str) -> PushResult:
    """Push the one image of `layout` as `name` (`shoal/web:1.0`; its registry part is not used) to `endpoint`.

    Raises ImageError.
    """
    ref = parse_image_ref(name)
    entry = _single_manifest(layout)
    digest, media_type = str(entry["digest"]), str(entry["mediaType"])
    push = _Push(transport, f"{transport.base_url(endpoint)}/v2/{ref.repository}", ref, endpoint)
    try:
        if push.has_manifest(digest):
            return PushResult(ref.familiar, digest, True, 0, 0)
        raw = _blob_file(layout, digest).read_bytes()
        manifest = json.loads(raw)
        sent = [push.blob(layout, str(part["digest"])) for part in (*manifest["layers"], manifest["config"])]
        push.manifest(raw, media_type)
    except (OSError, http.client.HTTPException) as error:
        raise ImageError(f"image {ref.familiar} cannot be pushed to registry {endpoint}: {error}") from None
    return PushResult(ref.familiar, digest, False, sum(1 for size in sent if size), sum(sent))


@dataclass(frozen=True, slots=True)
class _Push:
    transport: Transport
    base: str
    ref: ImageRef
    endpoint: str

    def has_manifest(self, digest: str) -> bool:
        url = f"{self.base}/manifests/{self.ref.tag}"
        with self.transport.exchange("HEAD", url, {"Accept": ACCEPT}) as reply:
            reply.text(1 << 20)
            return reply.status == 200 and reply.headers.get("docker-content-digest") == digest

    def blob(self, layout: Path, digest: str) -> int:
        """Bytes sent; 0 when the registry had it."""
        with self.transport.exchange("HEAD", f"{self.base}/blobs/{digest}", {}) as reply:
            reply.text(1 << 20)
            if reply.status == 200:
                return 0
        started = self._send("POST", f"{self.base}/blobs/uploads/", {"Content-Length": "0"}, None, 202)
        location = urljoin(started.url, started.headers["location"])
        url = f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
        data = _blob_file(layout, digest).read_bytes()
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        self._send("PUT", url, headers, data, 201)
        return len(data)

    def manifest(self, raw: bytes, media_type: str) -> None:
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        self._send("PUT", f"{self.base}/manifests/{self.ref.tag}", headers, raw, 201)

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body, wanted: int) -> Reply:
        with self.transport.exchange(method, url, headers, body) as reply:
            text = reply.text(64 << 10)
            if reply.status != wanted:
                raise ImageError(
                    f"image {self.ref.familiar}: registry {self.endpoint} answers {reply.status} to a push: {text[:200]!r}"
                )
            return reply


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
