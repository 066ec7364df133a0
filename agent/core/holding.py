"""What this node tells of the images it could give to others: everything when a session begins, then what changed.

Rules: a change is told at once, those that follow in the same moment as one message. What is told is what the store keeps as
it came, and so can be given away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from agent.core.ports import Images
from model.ports import Clock
from protos import node_pb2 as pb

if TYPE_CHECKING:
    from agent.images.records import HeldImage

COALESCE_S: Final = 0.1


class Holdings:
    def __init__(self, images: Images, clock: Clock) -> None:
        self._images = images
        self._clock = clock

    async def news(self) -> AsyncGenerator[pb.ImagesHeld]:
        """Without an end; the first one is whole."""
        told: dict[str, HeldImage] | None = None
        while True:
            self._images.moved.clear()
            held = {image.id: image for image in self._images.held()}
            message = difference(told, held)
            if message is not None:
                yield message
            told = held
            await self._clock.sleep(COALESCE_S)
            await self._images.moved.wait()


def difference(told: dict[str, HeldImage] | None, held: dict[str, HeldImage]) -> pb.ImagesHeld | None:
    """From what was told (None: nothing yet) to what is; None: nothing is to be told."""
    known = told or {}
    changed = [_row(image) for image_id, image in held.items() if known.get(image_id) != image]
    gone = [image_id for image_id in known if image_id not in held]
    if told is not None and not changed and not gone:
        return None
    return pb.ImagesHeld(whole=told is None, images=changed, gone=gone)


def _row(image: HeldImage) -> pb.HeldImage:
    names = [pb.HeldName(name=name, digest=digest) for name, digest in image.names]
    return pb.HeldImage(id=image.id, names=names, blobs=image.blobs)
