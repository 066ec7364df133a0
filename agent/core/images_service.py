"""The image part of the agent's gRPC service.

Rules: an archive is spooled to a file and never held in memory; progress is passed on as it comes, the newest is enough.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.perform import pull_policy
from agent.core.ports import Ports
from model.errors import BadInput
from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.images.records import Image, PullProgress


def plain_image(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.names),
        "digest": image.digest,
        "size_bytes": image.size_bytes,
        "created": image.created.isoformat().replace("+00:00", "Z") if image.created else "",
    }


class ImagesService:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def all(self) -> list[dict[str, Any]]:
        return [plain_image(image) for image in self._ports.images.list()]

    async def pull(self, request: pb.ImageRequest) -> AsyncIterator[pb.Progress]:
        """Progress while it is pulled, at last the image as JSON in `result`."""
        import json

        news: asyncio.Queue[PullProgress | None] = asyncio.Queue()
        policy = pull_policy(request.policy or "always")
        pulling = asyncio.ensure_future(self._ports.images.pull(request.reference, progress=news.put_nowait, policy=policy))
        pulling.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (item := await news.get()) is not None:
                text = f"{item.layers_done}/{item.layers_total} layers"
                yield pb.Progress(text=text, done_bytes=item.bytes_done, total_bytes=item.bytes_total)
            image = await pulling
            yield pb.Progress(text=f"pulled {request.reference}", result=json.dumps(plain_image(image)).encode())
        finally:
            pulling.cancel()

    async def load(self, chunks: AsyncIterator[pb.Chunk]) -> dict[str, Any]:
        """Take in an archive that comes in chunks."""
        descriptor, name = tempfile.mkstemp(dir=self._ports.data_dir, prefix=".load-")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk.data)
            if not path.stat().st_size:
                raise BadInput("image load: nothing was sent")
            images = await self._ports.images.load(path)
        finally:
            path.unlink(missing_ok=True)
        return {"images": [plain_image(image) for image in images], "names": [name for image in images for name in image.names]}
