"""Pulling from an OCI registry: manifests and blobs, verified.

Rules: synchronous, runs in worker threads. No byte is trusted: a manifest asked by digest and every blob must match
their sha256, sizes are those the manifest promised. Server errors and lost connections are retried with back-off, and a
broken blob goes on where it stopped. `stop` ends every wait.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.images.auth import Authorizer
from agent.images.errors import ImageNotFound, PullStopped, RegistryRefused, RegistryUnavailable, unauthorized
from agent.images.manifest import (
    ACCEPT,
    Descriptor,
    Manifest,
    check_digest,
    parse_index_or_manifest,
)
from agent.images.records import Credentials, RegistryConfig
from agent.images.transport import Reply, Transport
from model.errors import ImageError
from model.image_ref import DEFAULT_REGISTRY, ImageRef

_HUB_ENDPOINT = "registry-1.docker.io"
_CHUNK_BYTES = 256 << 10
_PROGRESS_BYTES = 16 << 10
"""A piece this large counts as progress, after which the count of failures starts again."""
_BACKOFF_S_MAX = 5.0
_INDEX_DEPTH_MAX = 3
_T = TypeVar("_T")


class _Retry(Exception):
    """This attempt failed in a way the next may not."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class RegistryClient:
    """One node's way to all registries."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._transport = Transport(config)
        self._auth = Authorizer(self._transport)
        self.stop = threading.Event()

    def close(self) -> None:
        self.stop.set()
        self._transport.close()

    def endpoints(self, ref: ImageRef) -> tuple[str, ...]:
        """Who is asked for this image, in order."""
        own = _HUB_ENDPOINT if ref.registry == DEFAULT_REGISTRY else ref.registry
        mirrors = self._config.mirrors.get(ref.registry)
        if not mirrors:
            return (own,)
        return tuple(own if name == ref.registry else name for name in mirrors)

    def resolve(self, ref: ImageRef, auth: Credentials | None = None) -> tuple[str, Manifest, bytes]:
        """(endpoint that has it, manifest for this platform, its bytes)."""
        failure: ImageError | None = None
        for endpoint in self.endpoints(ref):
            try:
                return endpoint, *self._resolve_at(endpoint, ref, auth)
            except (ImageNotFound, RegistryUnavailable, RegistryRefused) as error:
                failure = failure or error
        raise failure or ImageNotFound(f"image {ref.familiar}: no registry is configured for {ref.registry}")

    def blob(self, endpoint: str, ref: ImageRef, descriptor: Descriptor, auth: Credentials | None = None) -> Iterator[bytes]:
        """The blob's bytes. Raises at the end when they do not match: commit nothing before the last piece came."""
        digest, done, failures = hashlib.sha256(), 0, 0
        what = f"image {ref.familiar}: blob {descriptor.digest[:19]} from registry {endpoint}"
        while done < descriptor.size_bytes:
            try:
                for piece in self._blob_part(endpoint, ref, descriptor, done, auth):
                    digest.update(piece)
                    done += len(piece)
                    failures = 0 if len(piece) >= _PROGRESS_BYTES else failures
                    yield piece
                if done < descriptor.size_bytes:
                    raise _Retry(f"ended after {done} of {descriptor.size_bytes} bytes")
            except (_Retry, OSError, http.client.HTTPException) as error:
                failures += 1
                self._wait(error, failures, f"registry {endpoint} does not deliver {ref.familiar}")
        if digest.hexdigest() != descriptor.digest.removeprefix("sha256:"):
            raise ImageError(f"{what}: content does not match its digest: it is refused")

    def blob_bytes(self, endpoint: str, ref: ImageRef, descriptor: Descriptor, auth: Credentials | None = None) -> bytes:
        return b"".join(self.blob(endpoint, ref, descriptor, auth))

    def _resolve_at(self, endpoint: str, ref: ImageRef, auth: Credentials | None) -> tuple[Manifest, bytes]:
        what = f"image {ref.familiar}"
        wanted = ref.digest
        for _ in range(_INDEX_DEPTH_MAX):
            raw = self._manifest_bytes(endpoint, ref, wanted or ref.tag or "latest", auth)
            if wanted is not None:
                check_digest(raw, wanted, f"{what}: manifest from registry {endpoint}")
            parsed = parse_index_or_manifest(raw, what, self._config.platform, self._config.limits)
            if isinstance(parsed, Manifest):
                return parsed, raw
            wanted = parsed.digest
        raise ImageError(f"{what}: index within index within index")

    def _manifest_bytes(self, endpoint: str, ref: ImageRef, version: str, auth: Credentials | None) -> bytes:
        limit = self._config.limits.manifest_bytes
        url = f"{self._transport.base_url(endpoint)}/v2/{ref.repository}/manifests/{version}"

        def attempt() -> bytes:
            raw = self._get(endpoint, ref, url, {"Accept": ACCEPT}, auth, lambda reply: reply.text(limit))
            if len(raw) > limit:
                raise ImageError(f"image {ref.familiar}: manifest from registry {endpoint} is longer than {limit} bytes")
            return raw

        return self._retried(attempt, f"registry {endpoint} does not answer for {ref.familiar}")

    def _blob_part(
        self, endpoint: str, ref: ImageRef, descriptor: Descriptor, offset: int, auth: Credentials | None
    ) -> Iterator[bytes]:
        url = f"{self._transport.base_url(endpoint)}/v2/{ref.repository}/blobs/{descriptor.digest}"
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-{descriptor.size_bytes - 1}"
        for _ in range(2):
            headers |= self._auth.headers(endpoint, _scope(ref), self._credentials(endpoint, ref, auth))
            with self._transport.exchange("GET", url, headers) as reply:
                if reply.status in (200, 206):
                    yield from self._pieces(reply, endpoint, ref, offset, descriptor.size_bytes)
                    return
                self._judge(endpoint, ref, reply, auth)
        raise unauthorized(endpoint, ref.familiar, given=self._credentials(endpoint, ref, auth) is not None)

    def _pieces(self, reply: Reply, endpoint: str, ref: ImageRef, offset: int, size: int) -> Iterator[bytes]:
        skip = offset if reply.status == 200 else 0  # the server does not know ranges: read what we have again
        if reply.status == 206 and not reply.headers.get("content-range", "").startswith(f"bytes {offset}-"):
            raise _Retry("answers with another range than asked")
        left = size - (offset - skip)
        while left > 0:
            if self.stop.is_set():
                raise PullStopped(f"image {ref.familiar}: pull stopped")
            piece = reply.read(min(_CHUNK_BYTES, left))
            if not piece:
                return
            left -= len(piece)
            if skip:
                piece, skip = piece[skip:], max(0, skip - len(piece))
            if piece:
                yield piece
        if reply.read(1):
            raise ImageError(f"image {ref.familiar}: registry {endpoint} sends more bytes than the manifest says")

    def _get(
        self,
        endpoint: str,
        ref: ImageRef,
        url: str,
        headers: dict[str, str],
        auth: Credentials | None,
        read: Callable[[Reply], _T],
    ) -> _T:
        for _ in range(2):
            sent = headers | self._auth.headers(endpoint, _scope(ref), self._credentials(endpoint, ref, auth))
            with self._transport.exchange("GET", url, sent) as reply:
                if reply.status == 200:
                    return read(reply)
                self._judge(endpoint, ref, reply, auth)
        raise unauthorized(endpoint, ref.familiar, given=self._credentials(endpoint, ref, auth) is not None)

    def _judge(self, endpoint: str, ref: ImageRef, reply: Reply, auth: Credentials | None) -> None:
        """Return when a new try with other headers is worth it; raise otherwise."""
        reply.text(64 << 10)
        credentials = self._credentials(endpoint, ref, auth)
        if reply.status == 401:
            challenge = reply.headers.get("www-authenticate", "")
            if self._auth.answer(endpoint, _scope(ref), credentials, challenge):
                return
        if reply.status in (401, 403):
            raise unauthorized(endpoint, ref.familiar, given=credentials is not None)
        if reply.status == 404:
            raise ImageNotFound(f"image {ref.familiar} not found at registry {endpoint}")
        if reply.status == 429 or reply.status >= 500:
            after = reply.headers.get("retry-after", "")
            raise _Retry(f"answers {reply.status}", float(after) if after.isdigit() else None)
        raise RegistryRefused(f"registry {endpoint} refuses {ref.familiar}: HTTP status {reply.status}")

    def _credentials(self, endpoint: str, ref: ImageRef, auth: Credentials | None) -> Credentials | None:
        """Given ones belong to the registry named in the reference, never to a mirror in between."""
        if auth is not None and endpoint in (ref.registry, _HUB_ENDPOINT):
            return auth
        found = self._config.credentials.get(endpoint)
        if found is None and endpoint == _HUB_ENDPOINT:
            found = self._config.credentials.get(DEFAULT_REGISTRY)
        return found

    def _retried(self, attempt: Callable[[], _T], what: str) -> _T:
        failures = 0
        while True:
            try:
                return attempt()
            except (_Retry, OSError, http.client.HTTPException) as error:
                failures += 1
                self._wait(error, failures, what)

    def _wait(self, error: Exception, failures: int, what: str) -> None:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            raise RegistryRefused(f"{what}: TLS failed ({getattr(error, 'reason', None) or why})") from None
        if failures >= self._config.attempts:
            raise RegistryUnavailable(f"{what}: {why} ({failures} attempts)") from None
        wait_s = min(self._config.backoff_s * 2 ** (failures - 1), _BACKOFF_S_MAX) * random.uniform(0.75, 1.25)
        if isinstance(error, _Retry) and error.wait_s is not None:
            wait_s = max(wait_s, min(error.wait_s, 4 * _BACKOFF_S_MAX))
        if self.stop.wait(wait_s):
            raise PullStopped(f"{what}: pull stopped") from None


def _scope(ref: ImageRef) -> str:
    return f"repository:{ref.repository}:pull"
