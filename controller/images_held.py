"""Which node has which image: what the agents tell over their sessions, for who fetches from whom and what a name stands for.

Rules: memory of the leader only; a new leader begins empty and hears everything within a moment. A node whose session ended is
forgotten after `LEFT_S`. Nodes are numbered, who has something is a set of bits, and equal images are kept once: 5,000 nodes
with 50 images of ten blobs take a few megabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from model.ports import Clock
from protos import node_pb2 as pb

LEFT_S: Final = 10.0
IMAGES_MAX: Final = 10_000
"""Of one node; what it tells beyond is not kept."""
BLOBS_MAX: Final = 1_000
NAMES_MAX: Final = 1_000
TEXT_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class _Image:
    """As one node has it. `names` are (canonical reference, digest), `blobs` digests."""

    id: str
    names: tuple[tuple[str, str], ...]
    blobs: tuple[str, ...]


class HeldImages:
    """See the file's rules; for the event loop's thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """The reign is over."""
        self._numbers: dict[str, int] = {}
        self._nodes: list[str] = []
        self._of: dict[str, tuple[_Image, ...]] = {}
        self._same: dict[_Image, _Image] = {}
        self._users: Counter[_Image] = Counter()
        self._blobs: dict[str, int] = {}
        self._names: dict[str, dict[str, int]] = {}
        self._left: dict[str, float] = {}

    # what comes in

    def take(self, node: str, told: pb.ImagesHeld) -> None:
        """From a session: everything, or what changed."""
        self._left.pop(node, None)
        before = {} if told.whole else {image.id: image for image in self._of.get(node, ())}
        for image_id in told.gone:
            before.pop(image_id, None)
        for row in told.images[:IMAGES_MAX]:
            before[row.id[:TEXT_MAX]] = _image(row)
        self._set(node, tuple(before.values())[:IMAGES_MAX])

    def left(self, node: str) -> None:
        """Its session has ended."""
        self._forget_late()
        if node in self._of:
            self._left[node] = self._clock.monotonic()

    # what is asked

    def digest_of(self, name: str) -> str | None:
        """The digest that most nodes have under this canonical reference (of the index or manifest); None: nobody has it."""
        return next(iter(self.digests_of(name)), None)

    def digests_of(self, name: str) -> tuple[str, ...]:
        """All that some node has under it, that of most nodes first."""
        self._forget_late()
        found = self._names.get(name, {})
        return tuple(sorted(found, key=lambda digest: (-found[digest].bit_count(), digest)))

    def nodes_with(self, digest: str) -> tuple[str, ...]:
        """Who keeps this manifest, index, config or layer as it came, sorted."""
        self._forget_late()
        return tuple(sorted(self._nodes[number] for number in _numbers_in(self._blobs.get(digest, 0))))

    def bits_of(self, digest: str) -> int:
        """The same as bits, by the nodes' numbers."""
        self._forget_late()
        return self._blobs.get(digest, 0)

    def number(self, node: str) -> int:
        """Its own for this reign."""
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return number

    def node(self, number: int) -> str:
        return self._nodes[number]

    def means(self, node: str, name: str) -> str:
        """What the canonical reference stands for on this node; empty: nothing."""
        number = self._numbers.get(node)
        found = self._names.get(name, {}).items() if number is not None else ()
        return next((digest for digest, bits in found if bits >> (number or 0) & 1), "")

    def has(self, node: str, digest: str) -> bool:
        number = self._numbers.get(node)
        return number is not None and bool(self._blobs.get(digest, 0) >> number & 1)

    # the books

    def _forget_late(self) -> None:
        now = self._clock.monotonic()
        while self._left:
            node, since = next(iter(self._left.items()))  # oldest first
            if now - since < LEFT_S:
                return
            del self._left[node]
            self._set(node, ())

    def _set(self, node: str, images: tuple[_Image, ...]) -> None:
        bit = 1 << self.number(node)
        new = tuple(self._same.setdefault(image, image) for image in images)
        old = self._of.get(node, ())
        _take_bits(self._blobs, _blobs(old) - _blobs(new), bit)
        _give_bits(self._blobs, _blobs(new) - _blobs(old), bit)
        self._name(_names(old) - _names(new), _names(new) - _names(old), bit)
        self._users.update(new)
        for image in old:
            self._users[image] -= 1
            if not self._users[image]:
                del self._users[image], self._same[image]
        if new:
            self._of[node] = new
        else:
            self._of.pop(node, None)

    def _name(self, gone: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]], bit: int) -> None:
        for name, digest in gone:
            _take_bits(self._names[name], (digest,), bit)
            if not self._names[name]:
                del self._names[name]
        for name, digest in new:
            _give_bits(self._names.setdefault(name, {}), (digest,), bit)



def _image(row: pb.HeldImage) -> _Image:
    names = sorted((each.name[:TEXT_MAX], each.digest[:TEXT_MAX]) for each in row.names[:NAMES_MAX])
    return _Image(row.id[:TEXT_MAX], tuple(names), tuple(sorted({blob[:TEXT_MAX] for blob in row.blobs[:BLOBS_MAX]})))


def _blobs(images: Iterable[_Image]) -> set[str]:
    return {blob for image in images for blob in image.blobs}


def _names(images: Iterable[_Image]) -> set[tuple[str, str]]:
    return {named for image in images for named in image.names}


def _give_bits(table: dict[str, int], keys: Iterable[str], bit: int) -> None:
    for key in keys:
        table[key] = table.get(key, 0) | bit


def _take_bits(table: dict[str, int], keys: Iterable[str], bit: int) -> None:
    for key in keys:
        left = table[key] & ~bit
        if left:
            table[key] = left
        else:
            del table[key]


def _numbers_in(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
