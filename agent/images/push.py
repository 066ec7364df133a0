"""Pushing to an OCI registry: what it has is not sent, what it has elsewhere is mounted, what breaks goes on where it stopped.

Rules: synchronous, runs in worker threads, several blobs at once. Blobs go first, the manifest last, byte for byte as it came.
A large blob goes in parts, so that a lost connection loses one; to registries that take no second part it goes in one piece.
A registry may lead an upload to no other host than its own: data and credentials stay with the one that was named.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from agent.images.calls import BROKEN, Access, Calls, Retry
from agent.images.errors import ImageNotFound, PullStopped, RegistryRefused
from agent.images.manifest import Descriptor, Documents
from agent.images.records import PushState
from agent.images.transport import Reply, joined
from model.errors import ImageError

_CHUNK_BYTES: Final = 8 << 20
_CHUNK_BYTES_MAX: Final = 64 << 20
_MOUNTS_MAX: Final = 2
_PIECE_BYTES: Final = 1 << 20
_GONE: Final = (404, 416)
_NO_PARTS: Final = (400, 405, 411, 413, 501, *_GONE)
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
Content = Callable[[int, int], bytes]
"""(offset, size) -> that part of a blob."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """An upload under way: where it goes on, how much the registry has, how large a piece is to be."""

    url: str
    offset: int = 0
    chunk_bytes: int = _CHUNK_BYTES


class _OnePiece(Exception):
    """This registry does not take a blob in parts."""


class Push:
    """One image on its way to one registry. `cancelled` ends it at the next piece."""

    def __init__(self, calls: Calls, access: Access) -> None:
        self.cancelled = threading.Event()
        self._calls = calls
        self._access = access
        self._what = f"image {access.ref.familiar}: push to registry {access.endpoint}"

    def blob(self, part: Descriptor, content: Content, elsewhere: Sequence[str], tell: Callable[[int], None]) -> PushState:
        """Have one blob there. `elsewhere`: repositories of this registry that may have it; `tell`: bytes it has so far."""
        if self._calls.retried(lambda: self._has(part), self._what):
            return "exists"
        upload: _Upload | None = None
        for repository in elsewhere[:_MOUNTS_MAX]:
            mounted, upload = self._mount(part, repository)
            if mounted:
                return "mounted"
            if upload is not None:
                break
        return self._send(part, content, upload, tell)

    def manifest(self, documents: Documents) -> None:
        manifest, ref = documents.manifest, self._access.ref
        url = self._calls.url(self._access, f"manifests/{ref.digest or ref.tag or 'latest'}")
        headers = {"Content-Type": manifest.media_type, "Content-Length": str(len(documents.raw))}

        def attempt() -> None:
            with self._calls.exchange(self._access, "PUT", url, headers, (200, 201, 202), documents.raw) as reply:
                self._check_digest(reply, manifest.digest)
                reply.text(1 << 20)

        self._calls.retried(attempt, self._what)

    def _has(self, part: Descriptor) -> bool:
        self._check_stop()
        with self._calls.exchange(self._access, "HEAD", self._blob_url(part), {}, (200, 404)) as reply:
            reply.text(0)
            if reply.status == 404:
                return False
            self._check_digest(reply, part.digest)
            size = reply.headers.get("content-length", str(part.size_bytes))
            if size != str(part.size_bytes):
                raise self._lie(f"has {size[:20]} bytes as {part.digest[:19]}, which has {part.size_bytes}")
            return True

    def _mount(self, part: Descriptor, repository: str) -> tuple[bool, _Upload | None]:
        """(mounted, or an upload that was begun instead)."""
        access = self._access.reading(repository)
        url = self._uploads_url({"mount": part.digest, "from": repository})
        try:
            with self._calls.exchange(access, "POST", url, {"Content-Length": "0"}, (201, 202)) as reply:
                reply.text(1 << 20)
                if reply.status == 201:
                    self._check_digest(reply, part.digest)
                    return True, None
                return False, self._upload_of(reply, 0)
        except (*BROKEN, RegistryRefused, ImageNotFound):
            return False, None  # only a short cut: it is sent instead, and what is really wrong shows then

    def _send(self, part: Descriptor, content: Content, upload: _Upload | None, tell: Callable[[int], None]) -> PushState:
        reached = failures = 0
        broken = whole = False
        while True:
            try:
                if broken:
                    upload = self._asked(upload, part) if upload is not None and not whole else None
                    if upload is None and self._has(part):
                        return "pushed"  # the answer was lost, not the blob
                    broken = False
                upload = upload or self._begun()
                if upload.offset > reached:
                    reached, failures = upload.offset, 0
                    tell(reached)
                self._check_stop()
                if whole or part.size_bytes - upload.offset <= upload.chunk_bytes:
                    self._finish(upload, part, content, tell)
                    return "pushed"
                upload = self._chunk(upload, content)
            except _OnePiece:
                upload, whole = None, True
            except BROKEN as error:
                failures += 1
                broken = True
                self._calls.wait(error, failures, self._what)

    def _begun(self) -> _Upload:
        with self._calls.exchange(self._access, "POST", self._uploads_url({}), {"Content-Length": "0"}, (202,)) as reply:
            reply.text(1 << 20)
            return self._upload_of(reply, 0)

    def _chunk(self, upload: _Upload, content: Content) -> _Upload:
        data = content(upload.offset, upload.chunk_bytes)
        end = upload.offset + len(data)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(data)),
            "Content-Range": f"{upload.offset}-{end - 1}",
        }
        wanted = (202, 204, *(_NO_PARTS if upload.offset else _GONE))
        with self._calls.exchange(self._access, "PATCH", upload.url, headers, wanted, data) as reply:
            reply.text(1 << 20)
            if upload.offset and reply.status in _NO_PARTS:
                raise _OnePiece
            if reply.status in _GONE:
                raise Retry(f"answers {reply.status} to a part of an upload")
            has = _has_bytes(reply, end)
            if has > end:
                raise self._lie(f"has {has} bytes of an upload of which {end} were sent")
            if has <= upload.offset:
                raise Retry("takes no bytes of an upload")
            return self._upload_of(reply, has)

    def _asked(self, upload: _Upload, part: Descriptor) -> _Upload | None:
        """How far a broken upload really is; None when it is gone and must begin anew."""
        with self._calls.exchange(self._access, "GET", upload.url, {}, (204, 200, 202, 400, *_GONE)) as reply:
            reply.text(1 << 20)
            if reply.status in (400, *_GONE):
                return None
            has = _has_bytes(reply, 0)
            if has > part.size_bytes:
                raise self._lie(f"has {has} bytes of an upload of {part.size_bytes}")
            return self._upload_of(reply, has, upload.url)

    def _finish(self, upload: _Upload, part: Descriptor, content: Content, tell: Callable[[int], None]) -> None:
        """The end of a blob, and with it its digest; all of it when it goes in one piece."""

        def pieces() -> Iterator[bytes]:
            for at in range(upload.offset, part.size_bytes, _PIECE_BYTES):
                self._check_stop()
                yield content(at, min(_PIECE_BYTES, part.size_bytes - at))
                tell(at)

        left = part.size_bytes - upload.offset
        url = f"{upload.url}{'&' if '?' in upload.url else '?'}{urlencode({'digest': part.digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if left and upload.offset:
            headers["Content-Range"] = f"{upload.offset}-{part.size_bytes - 1}"
        with self._calls.exchange(self._access, "PUT", url, headers, (201, 204, *_GONE), pieces) as reply:
            reply.text(1 << 20)
            if reply.status in _GONE:
                raise Retry(f"answers {reply.status} to the end of an upload")
            self._check_digest(reply, part.digest)

    def _upload_of(self, reply: Reply, offset: int, before: str = "") -> _Upload:
        location = reply.headers.get("location", before)
        if not location:
            raise self._lie("does not say where an upload goes on")
        url = joined(reply.url, location)
        if not self._calls.transport.is_same_host(self._blob_base(), url):
            raise self._lie(f"leads an upload to another host, {url[:120]!r}")
        least = reply.headers.get("oci-chunk-min-length", "")
        wanted = int(least) if least.isascii() and least.isdigit() and len(least) < 12 else 0
        return _Upload(url, offset, min(max(_CHUNK_BYTES, wanted), _CHUNK_BYTES_MAX))

    def _check_digest(self, reply: Reply, digest: str) -> None:
        said = reply.headers.get("docker-content-digest", digest)
        if said != digest:
            raise self._lie(f"calls {digest[:19]} {said[:19]!r}")

    def _check_stop(self) -> None:
        self._calls.check_stop(self._what)
        if self.cancelled.is_set():
            raise PullStopped(f"{self._what}: stopped")

    def _lie(self, what: str) -> ImageError:
        return RegistryRefused(f"image {self._access.ref.familiar}: registry {self._access.endpoint} {what}: it is not trusted")

    def _blob_base(self) -> str:
        return self._calls.url(self._access, "blobs/")

    def _blob_url(self, part: Descriptor) -> str:
        return self._blob_base() + part.digest

    def _uploads_url(self, query: Mapping[str, str]) -> str:
        return f"{self._blob_base()}uploads/{'?' if query else ''}{urlencode(query)}"


def file_content(path: Path) -> Content:
    def read(offset: int, size: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _has_bytes(reply: Reply, unsaid: int) -> int:
    """How many bytes a registry says it has: `Range: 0-99` is 100, `0-0` none (or one: it is asked for again)."""
    if "range" not in reply.headers:
        return unsaid
    match = _RANGE.fullmatch(reply.headers["range"].strip())
    if match is None:
        raise Retry(f"says {reply.headers['range'][:40]!r} where a range is expected")
    return int(match[1]) + 1 if int(match[1]) else 0
