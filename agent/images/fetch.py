"""Where the parts of an image come from: other nodes first, then its registry.

Rules: a blob from a peer is written down whole and compared with its digest before anybody sees a byte of it; one that breaks
off goes on with another peer where it stopped, one that is wrong begins anew and is asked of none of those who gave it. What
the registry gives is unpacked while it comes. What has come is given on at once, before its image is whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import IO, Any

from agent.images.blobs import Blobs
from agent.images.disk import BlobRecord, StoreDisk, iter_file
from agent.images.errors import ImageNotFound
from agent.images.layer_pool import LayerSource
from agent.images.manifest import Descriptor, Documents, Walk, sha256_digest
from agent.images.peers import Peer, PeerFailed, Peers, Want
from agent.images.progress import ProgressMeter
from agent.images.records import Credentials, RegistryConfig
from agent.images.registry import RegistryClient
from agent.images.threads import Threads
from model.image_ref import ImageRef


class Shelf:
    """Small documents of pulls under way, which are given to others although no image here needs them yet."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}
        self._users: Counter[str] = Counter()

    def get(self, digest: str) -> bytes | None:
        return self._documents.get(digest)

    def put(self, digest: str, raw: bytes) -> None:
        self._documents[digest] = raw
        self._users[digest] += 1

    def take_away(self, digest: str) -> None:
        self._users[digest] -= 1
        if not self._users[digest]:
            del self._users[digest], self._documents[digest]


class Sources:
    """Of one node; `fetch` for each pull."""

    def __init__(
        self, config: RegistryConfig, client: RegistryClient, peers: Peers, blobs: Blobs, disk: StoreDisk, threads: Threads
    ) -> None:
        self.config, self.client, self.peers = config, client, peers
        self.blobs, self.disk, self.threads = blobs, disk, threads
        self.shelf = Shelf()

    @asynccontextmanager
    async def fetch(self, ref: ImageRef, auth: Credentials | None) -> AsyncIterator[Fetch]:
        fetch = Fetch(self, ref, auth)
        try:
            yield fetch
        finally:
            fetch.close()


class Fetch:
    """One image on its way here."""

    def __init__(self, own: Sources, ref: ImageRef, auth: Credentials | None) -> None:
        self._own = own
        self._ref = ref
        self._auth = auth
        self._endpoint = ""
        self._shelved: list[str] = []

    def close(self) -> None:
        for digest in self._shelved:
            self._own.shelf.take_away(digest)

    async def documents(self) -> Documents:
        """Its manifest for this platform and what led to it. A tag means what its registry says."""
        if self._ref.digest is None:
            found = await self._own.threads.run(self._own.client.resolve, self._ref, self._auth)
            self._endpoint = found.endpoint
            return found.documents
        limits = self._own.config.limits
        walk = Walk(f"image {self._ref.familiar}", self._own.config.platform, limits, self._ref.digest)
        while True:
            digest = walk.digest or self._ref.digest
            documents = walk.take(await self._document(digest, limits.manifest_bytes, self._manifest_at))
            if documents is not None:
                return documents

    async def config(self, part: Descriptor) -> bytes:
        def from_registry(digest: str) -> bytes:
            return self._own.client.blob_bytes(self._registry(), self._ref, part, self._auth)

        return await self._document(part.digest, self._own.config.limits.config_bytes, from_registry)

    def layer(self, blob: Descriptor, meter: ProgressMeter) -> LayerSource:
        def pieces() -> Iterator[bytes]:
            yield from meter.count(self._own.client.blob(self._registry(), self._ref, blob, self._auth))
            meter.layer_done()

        return LayerSource(pieces, blob, lambda: self._arrived(blob, meter))

    # documents

    async def _document(self, digest: str, bytes_max: int, from_registry: Callable[[str], bytes]) -> bytes:
        kept = self._own.blobs.read(digest, bytes_max) or self._own.shelf.get(digest)
        if kept is not None:
            return kept
        async with self._own.peers.want(digest, 0) as want:
            raw = await self._document_of_peers(want, digest, bytes_max)
            if raw is None:
                raw = await self._own.threads.run(from_registry, digest)
            self._own.shelf.put(digest, raw)
            self._shelved.append(digest)
            want.got()
        return raw

    async def _document_of_peers(self, want: Want, digest: str, bytes_max: int) -> bytes | None:
        failed: list[str] = []
        while (peer := await want.source(failed)) is not None:
            raw = bytearray()
            try:
                async with aclosing(self._own.peers.read(peer, digest, 0)) as pieces:
                    async for piece in pieces:
                        raw += piece
                        if len(raw) > bytes_max:
                            break
            except PeerFailed:
                failed.append(peer.node)
                continue
            if sha256_digest(bytes(raw)) == digest:
                return bytes(raw)
            failed.append(peer.node)
        return None

    def _manifest_at(self, digest: str) -> bytes:
        """From the first registry or mirror that has it."""
        endpoint, raw = self._own.client.manifest_bytes(self._ref, digest, self._auth)
        self._endpoint = self._endpoint or endpoint
        return raw

    def _registry(self) -> str:
        """Who has this image; asked only where a mirror may be the one. Blocks."""
        if not self._endpoint:
            known = self._own.client.endpoints(self._ref)
            self._endpoint = known[0] if len(known) == 1 else self._own.client.resolve(self._ref, self._auth).endpoint
        return self._endpoint

    # layers

    @asynccontextmanager
    async def _arrived(self, blob: Descriptor, meter: ProgressMeter) -> AsyncIterator[bool]:
        """Whether the blob is here by now, from a peer or from before; else it is read from the registry in the block."""
        if blob.digest in self._own.blobs and self._own.blobs.path(blob.digest).exists():
            meter.layer_done()
            yield True
            return
        async with self._own.peers.want(blob.digest, blob.size_bytes) as want:
            record = await self._blob_of_peers(want, blob, meter)
            if record is not None:
                self._own.blobs.take(blob.digest, record)
                want.got()
                meter.layer_done(from_peer=True)
            yield record is not None
            want.got()

    async def _blob_of_peers(self, want: Want, blob: Descriptor, meter: ProgressMeter) -> BlobRecord | None:
        """Raises OSError when it cannot be written."""
        peer = await want.source(())
        if peer is None:
            return None
        spool = self._own.disk.spool_file()
        try:
            with spool.open("wb") as out:
                if not await self._spooled(want, peer, blob, out, meter):
                    return None
            return self._own.disk.commit_blob(spool, blob.digest)
        finally:
            spool.unlink(missing_ok=True)

    async def _spooled(self, want: Want, first: Peer, blob: Descriptor, out: IO[bytes], meter: ProgressMeter) -> bool:
        """Whether peers gave it, beginning with `first`."""
        peer: Peer | None = first
        failed: list[str] = []
        part = _Part(out)
        while peer is not None:
            part.givers.append(peer.node)
            try:
                await self._read_on(peer, blob, part, meter)
            except PeerFailed:
                failed.append(peer.node)
            else:
                if part.digest.hexdigest() == blob.digest.removeprefix("sha256:"):
                    return True
                failed += [node for node in part.givers if node not in failed]
                meter.add(-part.size)
                part.start_over()
            peer = await want.source(failed)
        meter.add(-part.size)
        return False

    async def _read_on(self, peer: Peer, blob: Descriptor, part: _Part, meter: ProgressMeter) -> None:
        async with aclosing(self._own.peers.read(peer, blob.digest, part.size)) as pieces:
            async for piece in pieces:
                self._own.client.calls.check_stop(f"image {self._ref.familiar}: pull")
                if part.size + len(piece) > blob.size_bytes:
                    raise PeerFailed(f"node {peer.node} sends more than {blob.size_bytes} bytes")
                await self._own.threads.run(part.write, piece)
                meter.add(len(piece))
        if part.size < blob.size_bytes:
            raise PeerFailed(f"node {peer.node} ended after {part.size} of {blob.size_bytes} bytes")


class _Part:
    """What has come of a blob so far, and from whom."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.start_over()

    def start_over(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.digest: Any = hashlib.sha256()
        self.size = 0
        self.givers: list[str] = []

    def write(self, piece: bytes) -> None:
        self.digest.update(piece)
        self._out.write(piece)
        self.size += len(piece)


async def kept_pieces(own: Sources, digest: str, offset: int, config_of: Callable[[str], str | None]) -> AsyncIterator[bytes]:
    """What this node gives to others. It is not deleted meanwhile. Raises ImageNotFound."""
    config = config_of(digest)
    small = config.encode() if config is not None else own.shelf.get(digest)
    if small is not None:
        yield small[offset:]
        return
    if digest not in own.blobs:
        raise ImageNotFound(f"blob {digest[:19]} is not on this node")
    with own.blobs.pin([digest]):
        try:
            pieces = iter_file(own.blobs.path(digest), offset, own.blobs.size_bytes([digest]) - offset)
            while piece := await own.threads.run(next, pieces, b""):
                yield piece
        except FileNotFoundError:
            raise ImageNotFound(f"blob {digest[:19]} is no longer on this node") from None
