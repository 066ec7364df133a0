"""Pulling from an OCI registry: manifests and blobs, verified.

Rules: synchronous, runs in worker threads. No byte is trusted: a manifest asked by digest and every blob must match
their sha256, sizes are those the manifest promised. A broken blob goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from agent.images.calls import BROKEN, Access, Calls, Retry, own_endpoint
from agent.images.errors import ImageNotFound, RegistryRefused, RegistryUnavailable
from agent.images.manifest import (
    ACCEPT,
    Descriptor,
    Documents,
    Manifest,
    Walk,
    check_digest,
    is_digest,
    sha256_digest,
)
from agent.images.records import Credentials, RegistryConfig
from agent.images.transport import Reply
from model.errors import ImageError
from model.image_ref import ImageRef

_CHUNK_BYTES = 256 << 10
_PROGRESS_BYTES = 16 << 10
"""A piece this large counts as progress, after which the count of failures starts again."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Resolved:
    """`endpoint` is the registry or mirror that has it."""

    endpoint: str
    documents: Documents

    @property
    def manifest(self) -> Manifest:
        return self.documents.manifest


class RegistryClient:
    def __init__(self, config: RegistryConfig) -> None:
        self.calls = Calls(config)
        self._config = config

    def close(self) -> None:
        self.calls.close()

    def endpoints(self, ref: ImageRef) -> tuple[str, ...]:
        """Who is asked for this image, in order."""
        own = own_endpoint(ref)
        mirrors = self._config.mirrors.get(ref.registry)
        if not mirrors:
            return (own,)
        return tuple(own if name == ref.registry else name for name in mirrors)

    def resolve(self, ref: ImageRef, auth: Credentials | None = None) -> Resolved:
        """Who has the image, and its manifest for this platform."""
        return self._first(ref, auth, lambda access: Resolved(access.endpoint, self._resolve_at(access)))

    def digest(self, ref: ImageRef, auth: Credentials | None = None) -> str:
        """What the tag stands for now: the digest of an index or a manifest."""
        return self._first(ref, auth, self._digest_at)

    def manifest_bytes(self, ref: ImageRef, digest: str, auth: Credentials | None = None) -> tuple[str, bytes]:
        """Who has the manifest or index with this digest, and its bytes."""

        def ask(access: Access) -> tuple[str, bytes]:
            raw, _ = self._manifest_bytes(access, digest)
            check_digest(raw, digest, f"image {ref.familiar}: manifest from registry {access.endpoint}")
            return access.endpoint, raw

        return self._first(ref, auth, ask)

    def _first(self, ref: ImageRef, auth: Credentials | None, ask: Callable[[Access], _T]) -> _T:
        """The answer of the first registry that has the image."""
        failure: ImageError | None = None
        for endpoint in self.endpoints(ref):
            try:
                return ask(self.calls.access(endpoint, ref, auth))
            except (ImageNotFound, RegistryUnavailable, RegistryRefused) as error:
                failure = failure or error
        raise failure or ImageNotFound(f"image {ref.familiar}: no registry is configured for {ref.registry}")

    def blob(self, endpoint: str, ref: ImageRef, descriptor: Descriptor, auth: Credentials | None = None) -> Iterator[bytes]:
        """The blob's bytes. Raises at the end when they do not match: commit nothing before the last piece came."""
        access = self.calls.access(endpoint, ref, auth)
        digest, done, failures = hashlib.sha256(), 0, 0
        what = f"image {ref.familiar}: blob {descriptor.digest[:19]} from registry {endpoint}"
        while done < descriptor.size_bytes:
            try:
                for piece in self._blob_part(access, descriptor, done):
                    digest.update(piece)
                    done += len(piece)
                    failures = 0 if len(piece) >= _PROGRESS_BYTES else failures
                    yield piece
                if done < descriptor.size_bytes:
                    raise Retry(f"ended after {done} of {descriptor.size_bytes} bytes")
            except BROKEN as error:
                failures += 1
                self.calls.wait(error, failures, f"registry {endpoint} does not deliver {ref.familiar}")
        if digest.hexdigest() != descriptor.digest.removeprefix("sha256:"):
            raise ImageError(f"{what}: content does not match its digest: it is refused")

    def blob_bytes(self, endpoint: str, ref: ImageRef, descriptor: Descriptor, auth: Credentials | None = None) -> bytes:
        return b"".join(self.blob(endpoint, ref, descriptor, auth))

    def _resolve_at(self, access: Access) -> Documents:
        what = f"image {access.ref.familiar}"
        walk = Walk(what, self._config.platform, self._config.limits, access.ref.digest)
        while True:
            raw, content_type = self._manifest_bytes(access, walk.digest or access.ref.tag or "latest")
            if walk.digest is not None:
                check_digest(raw, walk.digest, f"{what}: manifest from registry {access.endpoint}")
            if (found := walk.take(raw, content_type)) is not None:
                return found

    def _digest_at(self, access: Access) -> str:
        """As it says itself, which costs nothing where pulls are counted; else of what it gives."""
        tag = access.ref.tag or "latest"
        url = self.calls.url(access, f"manifests/{tag}")

        def attempt() -> str:
            with self.calls.exchange(access, "HEAD", url, {"Accept": ACCEPT}, (200, 405)) as reply:
                return reply.headers.get("docker-content-digest", "")

        said = self.calls.retried(attempt, f"registry {access.endpoint} does not answer for {access.ref.familiar}")
        return said if is_digest(said) else sha256_digest(self._manifest_bytes(access, tag)[0])

    def _manifest_bytes(self, access: Access, version: str) -> tuple[bytes, str]:
        """A manifest or index, and what the registry calls it."""
        limit = self._config.limits.manifest_bytes
        url = self.calls.url(access, f"manifests/{version}")

        def attempt() -> tuple[bytes, str]:
            with self.calls.exchange(access, "GET", url, {"Accept": ACCEPT}, (200,)) as reply:
                raw = reply.text(limit)
                if len(raw) > limit:
                    raise ImageError(
                        f"image {access.ref.familiar}: manifest from registry {access.endpoint} is longer than {limit} bytes"
                    )
                return raw, reply.headers.get("content-type", "")

        return self.calls.retried(attempt, f"registry {access.endpoint} does not answer for {access.ref.familiar}")

    def _blob_part(self, access: Access, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-{descriptor.size_bytes - 1}"
        url = self.calls.url(access, f"blobs/{descriptor.digest}")
        with self.calls.exchange(access, "GET", url, headers, (200, 206)) as reply:
            yield from self._pieces(access, reply, offset, descriptor.size_bytes)

    def _pieces(self, access: Access, reply: Reply, offset: int, size: int) -> Iterator[bytes]:
        skip = offset if reply.status == 200 else 0  # the server does not know ranges: read what we have again
        if reply.status == 206 and not reply.headers.get("content-range", "").startswith(f"bytes {offset}-"):
            raise Retry("answers with another range than asked")
        left = size - (offset - skip)
        while left > 0:
            self.calls.check_stop(f"image {access.ref.familiar}: pull")
            piece = reply.read(min(_CHUNK_BYTES, left))
            if not piece:
                return
            left -= len(piece)
            if skip:
                piece, skip = piece[skip:], max(0, skip - len(piece))
            if piece:
                yield piece
        if reply.read(1):
            raise ImageError(
                f"image {access.ref.familiar}: registry {access.endpoint} sends more bytes than the manifest says"
            )
