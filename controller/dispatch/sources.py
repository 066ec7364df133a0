"""Tells nodes from whom to fetch the blobs they lack: `controller/decide/sharing.py` decides, here it is asked and passed on.

Rules: memory of the leader only. What is told is the newest word on a blob; who is told to wait is told more as soon as there
is more. While anybody wants anything a second does not pass without a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from controller.decide.sharing import REGISTRY, WAIT, Answer, Sharing
from controller.images_held import HeldImages
from model.ports import Clock
from protos import node_pb2 as pb

LOOK_S: Final = 1.0
FAILED_MAX: Final = 100
DIGEST_MAX: Final = 128


class BlobSources:
    """`tell(node, source)`: to the session of that node."""

    def __init__(self, clock: Clock, images: HeldImages, tell: Callable[[str, pb.BlobSource], None]) -> None:
        self._clock = clock
        self._images = images
        self._tell = tell
        self._sharing = Sharing(images.bits_of)
        self._addresses: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def clear(self) -> None:
        """The reign is over."""
        self._sharing.clear()
        self._addresses.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def came(self, node: str, address: str) -> None:
        """It has a session; its agent listens there."""
        if address:
            self._addresses[node] = address
            self._sharing.came(self._images.number(node))

    def left(self, node: str) -> None:
        if self._addresses.pop(node, None) is not None:
            self._pass_on(self._sharing.left(self._images.number(node), self._clock.monotonic()))

    def take(self, node: str, told: pb.BlobWanted) -> None:
        number, digest, now_s = self._images.number(node), told.digest[:DIGEST_MAX], self._clock.monotonic()
        match told.phase:
            case "wanted":
                failed = {self._images.number(name) for name in told.failed[:FAILED_MAX] if name in self._addresses}
                bits = sum(1 << each for each in failed)
                self._pass_on(self._sharing.wanted(number, digest, told.size_bytes, bits, now_s))
            case "fetching":
                self._pass_on(self._sharing.fetching(number, digest, told.size_bytes, now_s))
            case "got":
                self._pass_on(self._sharing.got(number, digest, now_s))
            case "gave_up":
                self._pass_on(self._sharing.gave_up(number, digest, now_s))
        self._look_later()

    def _pass_on(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            source = pb.BlobSource(digest=answer.digest, registry=answer.source == REGISTRY)
            if answer.source not in (REGISTRY, WAIT):
                source.node = self._images.node(answer.source)
                source.address = self._addresses[source.node]
            self._tell(self._images.node(answer.asker), source)

    def _look_later(self) -> None:
        if self._timer is None and not self._sharing.is_idle():
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._pass_on(self._sharing.look(self._clock.monotonic()))
        self._look_later()
