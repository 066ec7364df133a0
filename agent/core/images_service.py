"""The image part of the agent's gRPC service.

Rules: an archive is spooled to a file and never held in memory; progress is passed on as it comes, the newest is enough.
Credentials are used for the call they came with, and neither kept nor told.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.core import images_facts as facts
from agent.core.images_save import Archive, wanted_of
from agent.core.perform import pull_policy
from agent.core.ports import Ports
from agent.plan.inspect import inspected
from model.errors import BadInput, Conflict, NotFound
from model.image_ref import parse_image_ref
from model.stamps import utc_text
from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.images.records import Credentials, Image, PullProgress, PushProgress
    from agent.plan.records import Life


UPLOADS_MAX: Final = 32
"""Blobs given to other nodes at a time; who is sent here knows of fewer."""


class ImagesService:
    """`lives` gives the replicas of this node."""

    def __init__(self, ports: Ports, lives: Callable[[], Iterable[Life]]) -> None:
        self._ports = ports
        self._lives = lives
        self._uploads = 0

    def all(self) -> list[dict[str, Any]]:
        return self._plain(self._ports.images.list())

    def _plain(self, images: list[Image]) -> list[dict[str, Any]]:
        users = facts.users(self._lives())
        return [
            {
                "id": image.id,
                "names": list(image.names),
                "digest": image.digest,
                "digests": dict(self._ports.images.details(image.id).digests),
                "size_bytes": image.size_bytes,
                "created": utc_text(image.created) if image.created else "",
                "containers": users.get(image.id, []),
            }
            for image in images
        ]

    def _image(self, reference: str) -> Image:
        image = self._ports.images.get(reference)
        if image is None:
            raise NotFound(f"No such image: {reference}")
        return image

    def inspect(self, request: pb.ImageRequest) -> dict[str, Any]:
        """Docker's inspect and history of an image."""
        from agent.images import describe

        image = self._image(request.reference)
        details = self._ports.images.details(image.id)
        raw = facts.config(details)
        return {
            "inspect": describe.inspected(image, raw, details.digests),
            "history": describe.history(image.id, image.names, raw, details.sizes_bytes),
        }

    async def remote(self, request: pb.ImageRequest) -> dict[str, Any]:
        """Docker's history of what the registry has; sizes are those of the layers as they are sent."""
        from agent.images import describe

        found = await self._ports.images.remote(request.reference, auth=_credentials(request))
        names = (parse_image_ref(request.reference).familiar,)
        history = describe.history(found.id, names, facts.config(found), found.sizes_bytes)
        return {"id": found.id, "digest": found.digest, "history": history}

    async def resolve(self, request: pb.ImageRequest) -> dict[str, Any]:
        """The digest that the name has at its registry now."""
        return {"digest": await self._ports.images.resolve(request.reference, auth=_credentials(request))}

    async def tag(self, request: pb.TagRequest) -> dict[str, Any]:
        image = await self._ports.images.tag(request.reference, request.name)
        return {"id": image.id, "names": list(image.names)}

    async def remove(self, request: pb.ImageRequest) -> dict[str, Any]:
        """What became of it: `deleted` is the image with the layers that went with it, in Docker's names; `freed_bytes`.

        Without a reference goes what no image needs, as a broken pull leaves it.
        """
        from agent.images import describe

        images = self._ports.images
        if not request.reference:
            return {"deleted": [], "freed_bytes": await images.collect()}
        diff_ids = describe.diff_ids(facts.config(images.details(self._image(request.reference).id)))
        removed = await images.remove(request.reference, force=request.force)
        chains = zip(describe.chain_ids(diff_ids), diff_ids, strict=True)
        gone = [chain for chain, diff_id in chains if diff_id in removed.layers]
        return {"deleted": [removed.id, *reversed(gone)] if removed.id else [], "freed_bytes": removed.freed_bytes}

    async def pull(self, request: pb.ImageRequest) -> AsyncIterator[pb.Progress]:
        """Progress while it is pulled, at last the image as JSON in `result`: with its layers, top last, and whether each, and
        the image itself, was there before."""
        images = self._ports.images
        before, known = images.get(request.reference), {layer for image in images.list() for layer in image.layers}
        policy, auth = pull_policy(request.policy or "always"), _credentials(request)
        news: asyncio.Queue[PullProgress | None] = asyncio.Queue()
        pulling = asyncio.ensure_future(
            images.pull(request.reference, digest=request.digest, auth=auth, progress=news.put_nowait, policy=policy)
        )
        try:
            async for progress in _progress(pulling, news):
                yield progress
            image = await pulling
            (plain,) = self._plain([image])
            ids = facts.layer_digests(images.details(image.id), request.reference)
            layers = [{"id": each, "existed": layer in known} for each, layer in zip(ids, image.layers, strict=True)]
            result = {**plain, "layers": layers, "current": before is not None and before.id == image.id}
            yield pb.Progress(text=f"pulled {request.reference}", result=json.dumps(result).encode())
        finally:
            pulling.cancel()

    async def push(self, request: pb.ImageRequest) -> AsyncIterator[pb.Progress]:
        """Progress while it is pushed, at last in `result` what the registry has now: the manifest's digest and size, and its
        layers."""
        news: asyncio.Queue[PushProgress | None] = asyncio.Queue()
        pushing = asyncio.ensure_future(
            self._ports.images.push(request.reference, auth=_credentials(request), progress=news.put_nowait)
        )
        try:
            async for progress in _progress(pushing, news):
                yield progress
            pushed = await pushing
            layers = [{"id": digest, "state": state} for digest, state in pushed.layers]
            result = {"digest": pushed.digest, "size_bytes": pushed.manifest_bytes, "layers": layers}
            yield pb.Progress(text=f"pushed {request.reference}", result=json.dumps(result).encode())
        finally:
            pushing.cancel()

    async def save(self, request: pb.SaveRequest) -> AsyncIterator[pb.Chunk]:
        """The images as one archive; what stands at the end of it was there at its beginning."""
        images = self._ports.images
        wanted = [wanted_of(images.details(self._image(row.id).id), row.id, row.names) for row in request.images]
        archive = await asyncio.to_thread(Archive, images.blob_path, wanted)
        try:
            pieces = archive.pieces()
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                if piece:  # between members it may be empty, which is not the end
                    yield pb.Chunk(data=piece)
        finally:
            archive.close()

    async def blob(self, request: pb.BlobRequest) -> AsyncIterator[pb.Chunk]:
        """For another node. Raises Conflict when too many are given at once."""
        if self._uploads >= UPLOADS_MAX:
            raise Conflict(f"{UPLOADS_MAX} blobs are being given from here: ask again later")
        self._uploads += 1
        try:
            async for piece in self._ports.images.blob(request.digest, request.offset):
                yield pb.Chunk(data=piece)
        finally:
            self._uploads -= 1

    async def commit(self, life: Life, request: pb.CommitRequest) -> dict[str, Any]:
        """An image of what the container wrote to its own root."""
        from agent.images.commit import Said, committed
        from model.image_changes import changed

        image = self._ports.images.get(life.image.id) if life.image else None
        if image is None or not life.container_id:
            raise Conflict(f"{life.name} has no container yet")
        changed({}, request.changes)
        base = facts.config(self._ports.images.details(image.id))
        run = inspected(life, image.config, 0, ())["Config"]
        said = Said(request.created, life.container_id, request.author, request.message, tuple(request.changes))
        written = self._ports.runtime.written(life.container_id, pause=request.pause)
        made = await self._ports.images.commit(
            image.id, written, facts.not_its_own(life), lambda layer: committed(base, run, said, layer), request.name
        )
        return {"id": made.id, "names": list(made.names)}

    async def load(self, chunks: AsyncIterator[pb.Chunk]) -> dict[str, Any]:
        """Take in an archive that comes in chunks. Raises BadInput, ImageError, DiskFull."""
        from agent.images.errors import disk_error

        descriptor, name = tempfile.mkstemp(dir=self._ports.data_dir, prefix=".load-")
        path = Path(name)
        try:
            try:
                with os.fdopen(descriptor, "wb") as file:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk.data)
            except OSError as error:
                async for _ in chunks:  # of a caller that still sends, gRPC would lose the error
                    pass
                raise disk_error(error, "image load", self._ports.data_dir) from error
            if not path.stat().st_size:
                raise BadInput("image load: nothing was sent")
            images = await self._ports.images.load(path)
        finally:
            path.unlink(missing_ok=True)
        return {"images": self._plain(images), "names": [name for image in images for name in image.names]}


def _credentials(request: pb.ImageRequest) -> Credentials | None:
    from agent.images.records import Credentials

    return Credentials(request.auth.username, request.auth.password) if request.HasField("auth") else None


async def _progress(
    work: asyncio.Future[Any], news: asyncio.Queue[PullProgress | None] | asyncio.Queue[PushProgress | None]
) -> AsyncIterator[pb.Progress]:
    """What is said of the work, until it ends."""
    work.add_done_callback(lambda _: news.put_nowait(None))
    while (item := await news.get()) is not None:
        text = f"{item.layers_done}/{item.layers_total} layers"
        yield pb.Progress(text=text, done_bytes=item.bytes_done, total_bytes=item.bytes_total)
