"""Many nodes pull one image over a virtual clock: everybody gets it, whatever fails, and the registry gives hardly more than
one copy. Faults come from a seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from controller.decide.sharing import PEERS_MAX, REGISTRY, SMALL_BYTES, UPLOADS_MAX, WAIT, Answer, Sharing

LAYERS = {"config": 2_000, "base": 80 << 20, "libs": 30 << 20, "app": 5 << 20, "site": 1 << 20, "tiny": 400}
RATE = 20 << 20
"""Bytes a second, of every transfer."""
DEAD_S = 5.0
"""What a node waits for a peer that says nothing."""
PARALLEL = 3


@dataclass
class Node:
    """`lies`: gives wrong bytes. `dead`: nothing is heard of it any more."""

    number: int
    lies: bool = False
    dead: bool = False
    has: set[str] = field(default_factory=set)
    failed: dict[str, set[int]] = field(default_factory=dict)
    source: dict[str, int] = field(default_factory=dict)
    stuck: bool = False


class Cluster:
    def __init__(self, nodes: int, registry_has: bool = True) -> None:
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], Any]]] = []
        self.order = itertools.count()
        self.nodes = [Node(number) for number in range(nodes)]
        self.sharing = Sharing(self.holders)
        self.registry_has = registry_has
        self.copies: Counter[str] = Counter()
        self.uploads: Counter[int] = Counter()
        self.most_uploads = 0
        self.done_s: dict[int, float] = {}
        self.known: dict[str, int] = {}
        for node in self.nodes:
            self.sharing.came(node.number)
        self.at(1.0, self.look)

    def holders(self, digest: str) -> int:
        return self.known.get(digest, 0)

    def at(self, after_s: float, deed: Callable[[], Any]) -> None:
        heapq.heappush(self.events, (self.now + after_s, next(self.order), deed))

    def run(self, until_s: float) -> None:
        while self.events and self.events[0][0] <= until_s:
            self.now, _, deed = heapq.heappop(self.events)
            deed()

    def look(self) -> None:
        self.tell(self.sharing.look(self.now))
        for node in self.nodes:
            if not node.dead:
                for digest, source in [*node.source.items()]:
                    if source == WAIT:
                        self.tell(self.sharing.wanted(node.number, digest, LAYERS[digest], self.bits(node, digest), self.now))
                    else:
                        self.tell(self.sharing.fetching(node.number, digest, LAYERS[digest], self.now))
        self.at(1.0, self.look)

    def bits(self, node: Node, digest: str) -> int:
        return sum(1 << number for number in node.failed.get(digest, ()))

    def give(self, number: int, *digests: str) -> None:
        """It has them from the beginning, and says so."""
        for digest in digests:
            self.nodes[number].has.add(digest)
            self.known[digest] = self.known.get(digest, 0) | 1 << number

    def pull(self, node: Node) -> None:
        """As an agent: so many at a time, the next when one is there."""
        missing = [digest for digest in LAYERS if digest not in node.has and digest not in node.source]
        for digest in missing[: PARALLEL - len(node.source)]:
            self.ask(node, digest)
        if not missing and not node.source:
            self.done_s.setdefault(node.number, self.now)

    def ask(self, node: Node, digest: str) -> None:
        node.source[digest] = WAIT
        self.tell(self.sharing.wanted(node.number, digest, LAYERS[digest], self.bits(node, digest), self.now))

    def tell(self, answers: list[Answer]) -> None:
        for answer in answers:
            node = self.nodes[answer.asker]
            if not node.dead and node.source.get(answer.digest) == WAIT and answer.source != WAIT:
                node.source[answer.digest] = answer.source
                self.fetch(node, answer.digest, answer.source)

    def fetch(self, node: Node, digest: str, source: int) -> None:
        took_s = 0.01 + LAYERS[digest] / RATE
        if source == REGISTRY:
            self.copies[digest] += self.registry_has
            self.at(took_s if self.registry_has else 0.05, partial(self.from_registry, node, digest))
            return
        assert source != node.number
        assert source not in node.failed.get(digest, set()), "it was given again who had failed"
        if LAYERS[digest] > SMALL_BYTES:
            self.uploads[source] += 1
            self.most_uploads = max(self.most_uploads, self.uploads[source])
        peer = self.nodes[source]
        self.at(DEAD_S if peer.dead else took_s, partial(self.from_peer, node, digest, source))

    def from_registry(self, node: Node, digest: str) -> None:
        if node.dead:
            return
        del node.source[digest]
        if self.registry_has:
            self.take(node, digest)
        else:
            self.tell(self.sharing.gave_up(node.number, digest, self.now))
            self.at(1.0, partial(self.pull, node))  # the pull has failed, and is tried again later

    def from_peer(self, node: Node, digest: str, source: int) -> None:
        if LAYERS[digest] > SMALL_BYTES:
            self.uploads[source] -= 1
        if node.dead:
            return
        peer = self.nodes[source]
        if peer.dead or peer.lies or digest not in peer.has:
            node.failed.setdefault(digest, set()).add(source)
            assert len(node.failed[digest]) <= PEERS_MAX or not self.registry_has
            self.ask(node, digest)
        else:
            del node.source[digest]
            self.take(node, digest)

    def take(self, node: Node, digest: str) -> None:
        node.has.add(digest)
        self.tell(self.sharing.got(node.number, digest, self.now))
        self.pull(node)

    def kill(self, number: int, noticed_s: float) -> None:
        """Its session is seen to be over so much later."""
        self.nodes[number].dead = True
        self.at(noticed_s, lambda: self.tell(self.sharing.left(number, self.now)))

    def missing(self) -> dict[int, set[str]]:
        return {
            node.number: LAYERS.keys() - node.has for node in self.nodes if not node.dead and not LAYERS.keys() <= node.has
        }

    def copies_sent(self) -> float:
        """Of the whole image, by bytes."""
        return sum(LAYERS[digest] * count for digest, count in self.copies.items()) / sum(LAYERS.values())


def test_twenty_nodes_cost_the_registry_one_copy() -> None:
    cluster = Cluster(20)
    for node in cluster.nodes:
        cluster.at(node.number * 0.001, partial(cluster.pull, node))
    cluster.run(300)
    assert cluster.missing() == {}
    assert cluster.copies == dict.fromkeys(LAYERS, 1)
    assert cluster.most_uploads <= UPLOADS_MAX
    one_s = max(LAYERS.values()) / RATE
    assert max(cluster.done_s.values()) < 5 * one_s  # and not the 20 that the registry alone would take


def test_nodes_that_come_later_do_not_cost_it_more() -> None:
    cluster = Cluster(20)
    chance = random.Random(1)
    for node in cluster.nodes:
        cluster.at(chance.uniform(0, 60), partial(cluster.pull, node))
    cluster.run(300)
    assert cluster.missing() == {}
    assert cluster.copies == dict.fromkeys(LAYERS, 1)


def test_an_image_that_no_registry_has_reaches_everybody() -> None:
    cluster = Cluster(20, registry_has=False)
    cluster.give(7, *LAYERS)
    for node in cluster.nodes:
        cluster.pull(node)
    cluster.run(300)
    assert cluster.missing() == {}
    assert not cluster.copies


def test_what_is_nowhere_is_refused_to_everybody_soon() -> None:
    """Not one after the other."""
    cluster = Cluster(20, registry_has=False)
    told: list[tuple[int, float]] = []
    cluster.sharing.gave_up = partial(_noted, cluster.sharing.gave_up, told, cluster)  # type: ignore[method-assign]
    for node in cluster.nodes:
        cluster.pull(node)
    cluster.run(0.9)
    assert {node for node, _ in told} == set(range(20))


def _noted(real: Callable[..., list[Answer]], told: list[tuple[int, float]], cluster: Cluster, *args: Any) -> list[Answer]:
    told.append((args[0], cluster.now))
    return real(*args)


def test_a_dead_peer_costs_its_timeout_once() -> None:
    """It died while it was the only one to have the image, and its session is not yet seen to be over."""
    cluster = Cluster(20)
    cluster.give(0, *LAYERS)
    cluster.kill(0, noticed_s=60.0)
    for node in cluster.nodes[1:]:
        cluster.pull(node)
    cluster.run(300)
    healthy = Cluster(20)
    for node in healthy.nodes:
        healthy.pull(node)
    healthy.run(300)
    assert cluster.missing() == {}
    assert max(cluster.done_s.values()) < max(healthy.done_s.values()) + 2 * DEAD_S + 1
    assert cluster.copies_sent() <= 1.2


@pytest.mark.parametrize("seed", range(40))
def test_whatever_fails_everybody_alive_gets_it(seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(20)
    for node in cluster.nodes:
        node.lies = chance.random() < 0.15
        cluster.at(chance.choice([0.0, chance.uniform(0, 20)]), partial(cluster.pull, node))
    if chance.random() < 0.5:
        cluster.give(chance.randrange(20), *LAYERS)
    for number in chance.sample(range(20), chance.randrange(6)):
        cluster.at(chance.uniform(0, 20), partial(cluster.kill, number, chance.uniform(0, 30)))
    cluster.run(400)
    assert cluster.missing() == {}
    assert cluster.copies_sent() < 8


@pytest.mark.parametrize("seed", range(10))
def test_few_deaths_cost_few_copies(seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(20)
    for node in cluster.nodes:
        cluster.at(chance.uniform(0, 5), partial(cluster.pull, node))
    cluster.at(chance.uniform(0, 10), partial(cluster.kill, chance.randrange(20), 1.0))
    cluster.run(400)
    assert cluster.missing() == {}
    assert cluster.copies_sent() <= 2.01  # who died may have been the one at the registry
