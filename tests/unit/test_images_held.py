"""Who has which image, as the nodes tell it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.core.holding import difference
from agent.images.records import HeldImage
from controller.api.heard import PAUSE_S, TRIES, digests_in, heard
from controller.images_held import LEFT_S, HeldImages
from protos import node_pb2 as pb

NAME = "docker.io/library/web:1"


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    monotonic = now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


def image(image_id: str, *blobs: str, **names: str) -> pb.HeldImage:
    """`names`: digest by the name's first letters."""
    told = [pb.HeldName(name=f"docker.io/library/{name}:1", digest=digest) for name, digest in names.items()]
    return pb.HeldImage(id=image_id, names=told, blobs=blobs)


def whole(*images: pb.HeldImage) -> pb.ImagesHeld:
    return pb.ImagesHeld(whole=True, images=images)


def test_a_name_stands_for_what_most_nodes_have_under_it() -> None:
    held = HeldImages(Hand())
    assert held.digest_of(NAME) is None
    held.take("n1", whole(image("i1", "m1", "l1", web="m1")))
    held.take("n2", whole(image("i2", "m2", "l1", web="m2")))
    held.take("n3", whole(image("i2", "m2", "l1", web="m2")))
    assert held.digest_of(NAME) == "m2"
    assert (held.nodes_with("m1"), held.nodes_with("l1")) == (("n1",), ("n1", "n2", "n3"))
    assert held.has("n1", "m1")
    assert not held.has("n2", "m1")
    assert not held.has("nobody", "m1")


def test_a_difference_changes_what_it_names_only() -> None:
    held = HeldImages(Hand())
    held.take("n1", whole(image("i1", "m1", "l1", web="m1"), image("i2", "m2", "l1", "l2", other="m2")))
    held.take("n1", pb.ImagesHeld(gone=["i1"]))
    assert (held.nodes_with("m1"), held.nodes_with("l1"), held.digest_of(NAME)) == ((), ("n1",), None)
    held.take("n1", pb.ImagesHeld(images=[image("i2", "m2", "l2", web="m2")]))
    assert (held.nodes_with("l1"), held.nodes_with("l2"), held.digest_of(NAME)) == ((), ("n1",), "m2")
    held.take("n1", whole())
    assert (held.nodes_with("l2"), held.digest_of(NAME)) == ((), None)


def test_a_node_without_a_session_is_forgotten_after_a_moment() -> None:
    clock = Hand()
    held = HeldImages(clock)
    for node in ("n1", "n2"):
        held.take(node, whole(image("i1", "m1", web="m1")))
        held.left(node)
    held.take("n2", pb.ImagesHeld())
    clock.at = LEFT_S - 0.1
    assert held.nodes_with("m1") == ("n1", "n2")
    clock.at = LEFT_S
    assert held.nodes_with("m1") == ("n2",)
    held.left("n2")
    clock.at *= 2
    assert held.digest_of(NAME) is None


def test_whatever_is_told_the_books_are_those_of_one_look() -> None:
    """After any differences, as after one whole telling of the same."""
    chance, held, kept = random.Random(7), HeldImages(Hand()), dict[str, dict[str, pb.HeldImage]]()
    blobs = [f"b{number}" for number in range(12)]
    for _ in range(2000):
        node, image_id = f"n{chance.randrange(6)}", f"i{chance.randrange(5)}"
        own = kept.setdefault(node, {})
        if chance.random() < 0.3:
            own.pop(image_id, None)
            held.take(node, pb.ImagesHeld(gone=[image_id]))
        else:
            own[image_id] = image(image_id, *chance.sample(blobs, 3), web=chance.choice(blobs))
            if chance.random() < 0.2:
                held.take(node, whole(*own.values()))
            else:
                held.take(node, pb.ImagesHeld(images=[own[image_id]]))
        blob = chance.choice(blobs)
        assert held.nodes_with(blob) == tuple(sorted(node for node in kept if _has(kept[node].values(), blob)))


def _has(images: Iterable[Any], blob: str) -> bool:
    return any(blob in each.blobs for each in images)


def test_the_books_of_a_large_cluster_are_small() -> None:
    """300 nodes with the same 50 images of ten blobs."""
    told = [image(f"sha256:{i:064}", *(f"{i * 10 + b:071}" for b in range(10)), web=f"sha256:{i:064}") for i in range(50)]
    data = whole(*told).SerializeToString()
    tracemalloc.start()
    held = HeldImages(Hand())
    for number in range(300):
        held.take(f"n{number}", pb.ImagesHeld.FromString(data))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(held.nodes_with(told[0].blobs[0])) == 300
    assert used < 1_500_000


def test_what_is_told_is_the_difference() -> None:
    one, two = HeldImage("i1", (), ("m1",)), HeldImage("i2", ((NAME, "m2"),), ("m2",))
    first = difference(None, {"i1": one})
    assert first == pb.ImagesHeld(whole=True, images=[pb.HeldImage(id="i1", blobs=["m1"])])
    assert difference(None, {}) == pb.ImagesHeld(whole=True)
    assert difference({"i1": one}, {"i1": one}) is None
    assert difference({"i1": one}, {"i2": two}) == pb.ImagesHeld(images=[image("i2", "m2", web="m2")], gone=["i1"])


def test_what_a_name_stands_for_on_a_node_and_anywhere() -> None:
    held = HeldImages(Hand())
    assert (held.digests_of(NAME), held.means("n1", NAME)) == ((), "")
    for node, digest in (("n1", "old"), ("n2", "new"), ("n3", "new")):
        held.take(node, whole(image("i", web=digest)))
    assert (held.digests_of(NAME), held.digest_of(NAME)) == (("new", "old"), "new")
    assert [held.means(node, NAME) for node in ("n1", "n2", "n4")] == ["old", "new", ""]
    assert held.means("n1", "docker.io/library/other:1") == ""


class Waits(Hand):
    """After so many pauses the node has told it."""

    def __init__(self, held: HeldImages, pauses: int) -> None:
        super().__init__()
        self.held, self.pauses = held, pauses

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.pauses -= 1
        if self.pauses == 0:
            self.held.take("n1", whole(image("i", web="new")))


@pytest.mark.parametrize(
    ("leader", "digest", "pauses"), [("me", "new", 3), ("other", "new", 0), ("me", "", 0), ("me", "never", TRIES)]
)
async def test_the_leader_answers_when_it_has_heard_of_it_and_does_not_wait_for_ever(
    leader: str, digest: str, pauses: int
) -> None:
    held = HeldImages(Hand())
    held.take("n1", whole(image("i", web="old")))
    clock = Waits(held, 3)
    snapshot = SimpleNamespace(one=lambda kind: SimpleNamespace(api=leader))
    api = SimpleNamespace(held=lambda: held, clock=clock, api_address="me", snapshot=lambda: snapshot)
    await heard(cast(Any, api), "n1", digests_in({"digests": {"web:1": digest}}))
    assert clock.at == pytest.approx(pauses * PAUSE_S)
