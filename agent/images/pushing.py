"""Pushing an image that this node has: its blobs beside each other, then the manifest, with the digests it has here.

Rules: for one event loop; what is sent is pinned, so that nothing deletes it meanwhile. See push.py for the way of one blob.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from agent.images.blobs import Blobs
from agent.images.calls import Calls, own_endpoint
from agent.images.catalog import Catalog
from agent.images.layer_pool import LayerPool
from agent.images.manifest import Descriptor
from agent.images.progress import PushMeter
from agent.images.push import Push, file_content
from agent.images.records import Credentials, Pushed, PushSink, PushState
from agent.images.threads import Threads, all_of
from model.image_ref import ImageRef


class Pushes:
    """`parallel` blobs at a time, over all pushes."""

    def __init__(
        self, calls: Calls, catalog: Catalog, layers: LayerPool, blobs: Blobs, threads: Threads, parallel: int
    ) -> None:
        self._calls = calls
        self._catalog = catalog
        self._layers = layers
        self._blobs = blobs
        self._threads = threads
        self._slots = asyncio.Semaphore(parallel)

    async def push(self, ref: ImageRef, auth: Credentials | None, progress: PushSink | None) -> Pushed:
        """See ImageStore.push."""
        named = self._catalog.to_push(ref)
        documents = self._catalog.documents(named, f"image {ref.familiar}")
        manifest, record = documents.manifest, self._catalog.records[named.id]
        push = Push(self._calls, self._calls.access(own_endpoint(ref), ref, auth, pushes=True))
        parts = list(dict.fromkeys((*manifest.layers, manifest.config)))
        meter = PushMeter(ref.familiar, [(layer.digest, layer.size_bytes) for layer in manifest.layers], progress)
        inline = {manifest.config.digest: record.config.encode()}
        elsewhere = self._catalog.repositories(ref.registry)
        with self._layers.pin(record.layers), self._blobs.pin([part.digest for part in parts] + [manifest.digest]):
            try:
                states = dict(
                    await all_of([self._one(push, part, inline, elsewhere.get(part.digest, ()), ref, meter) for part in parts])
                )
                await self._threads.run(push.manifest, documents)
            except BaseException:
                push.cancelled.set()
                raise
        layers = tuple((layer.digest, states[layer.digest]) for layer in manifest.layers)
        size_bytes = sum(part.size_bytes for part in (manifest.config, *manifest.layers))
        return Pushed(manifest.digest, len(documents.raw), size_bytes, layers)

    async def _one(
        self, push: Push, part: Descriptor, inline: Mapping[str, bytes], known: Sequence[str], ref: ImageRef, meter: PushMeter
    ) -> tuple[str, PushState]:
        data = inline.get(part.digest)
        content = file_content(self._blobs.path(part.digest)) if data is None else (lambda at, size: data[at : at + size])
        sources = [name for name in known if name != ref.repository]
        async with self._slots:
            meter.tell(part.digest, "pushing", 0)
            state = await self._threads.run(
                push.blob, part, content, sources, lambda done: meter.tell(part.digest, "pushing", done)
            )
        meter.tell(part.digest, state)
        return part.digest, state
