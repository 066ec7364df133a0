"""Sentences that hold for node groups under any load: bounds, no flapping, nothing lost, and rest when the load rests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from controller.decide.machines.types import GOING
from model.autoscale import MachineTemplate
from model.documents import VolumePlaceDoc
from model.spec import ContainerSpec, Mount
from tests.properties.machine_world import GIB, World, group

LIES = ("create", "mute", "omit", "keep", "no-list", "no-delete")


class Watch:
    """Looks at the world after each second."""

    def __init__(self, world: World, *, honest: bool = True) -> None:
        self.world, self.honest = world, honest
        self.changed_ms = self.removed_ms = 0
        self.before: dict[str, str] = {}

    def look(self) -> None:
        world = self.world
        now: dict[str, str] = {row.node: row.state for doc in world.machines.values() for row in doc.machines}
        added = [name for name in now if name not in self.before and now[name] == "creating"]
        left = [name for name in now if now[name] == "draining" and self.before.get(name) == "ready"]
        for name, doc in world.machines.items():
            assert len(doc.machines) <= world.groups[name].spec.max
            assert len({row.node for row in doc.machines}) == len(doc.machines)
        if left:
            self.removed_ms = world.now_ms
            for name, doc in world.machines.items():
                assert world.now_ms - doc.added_ms >= world.groups[name].spec.after_add_s * 1000, "too soon after an addition"
                staying = [row for row in doc.machines if row.state not in ("draining", *GOING)]
                assert len(staying) >= min(world.groups[name].spec.min, len(doc.machines))
        if added and self.honest:
            assert self.removed_ms <= self.changed_ms, "a machine was added after a removal, and no load had changed"
        places = {node for place in world.cluster.docs["places"].values() for node in place.nodes}
        assert not places & set(left), "the holder of a volume was drained"
        self.before = now


def a_world(chance: random.Random, **changes: Any) -> World:
    least, most, spare = chance.choice((0, 0, 1)), chance.choice((2, 4, 8)), chance.choice((0, 0, 1))
    groups = [group(min=least, max=most, buffer=spare, **changes)]
    if chance.random() < 0.4:
        template = MachineTemplate(8.0, 16 * GIB)
        groups.append(group("large", template=template, max=3, **changes))
    world = World(*groups, nodes=chance.choice((1, 2, 3)))
    world.cluster.volume("data")
    for cloud in world.clouds.values():
        cloud.boot_s = chance.choice((1, 5, 20))
    return world


def change_load(world: World, chance: random.Random, at: int) -> None:
    mounts = (Mount("volume", "/data", "data"),)
    match chance.choice(("scale", "scale", "scale", "global", "volume")):
        case "global":
            world.cluster.service("everywhere", cpus=0.2, mode="global")
        case "volume" if "db" not in world.cluster.docs["services"]:
            world.cluster.service("db", 1, cpus=0.5, container=ContainerSpec("db", mounts=mounts))
        case _:
            name = f"web{chance.randrange(3)}"
            cpus = {"web0": 0.5, "web1": 1.0, "web2": 2.5}[name]
            world.cluster.service(name, chance.choice((0, 1, 2, 4, 8, 12)), cpus=cpus, memory=GIB // 2)


@pytest.mark.parametrize("seed", range(4))
def test_machines_follow_the_load_and_do_not_flap(seed: int) -> None:
    chance = random.Random(seed)
    world = a_world(chance)
    watch = Watch(world)
    for second in range(400):
        if second % 40 == 0 and second < 320:
            change_load(world, chance, second)
            watch.changed_ms = world.now_ms + 1_000
        if chance.random() < 0.01:
            world.new_leader()
        world.second()
        watch.look()
    _rests(world, watch)


def _rests(world: World, watch: Watch) -> None:
    """After the last change everything comes to rest, everybody has a place if there can be one, and nothing more happens."""
    for _ in range(400):
        world.second()
        watch.look()
    before = {name: doc.machines for name, doc in world.machines.items()}
    world.run(100)
    after = {name: doc.machines for name, doc in world.machines.items()}
    assert {k: [(m.node, m.state) for m in v] for k, v in before.items()} == {
        k: [(m.node, m.state) for m in v] for k, v in after.items()
    }
    if world.waiting():
        assert all(notes for notes in world.step.notes.values()), "somebody waits, and no group says why it does not help"


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_provider_does_wrong_passes(seed: int) -> None:
    chance = random.Random(1_000 + seed)
    world = a_world(chance, back_off_s=2.0)
    watch = Watch(world, honest=False)
    for second in range(600):
        if second % 50 == 0:
            change_load(world, chance, second)
            for cloud in world.clouds.values():
                cloud.lies = {lie for lie in LIES if chance.random() < 0.3}
        if chance.random() < 0.02:
            world.new_leader()
        world.second()
        watch.look()
    for cloud in world.clouds.values():
        cloud.lies.clear()
        cloud.boot_s = 1
    for _ in range(1_000):
        world.second()
        watch.look()
    for name, doc in world.machines.items():
        assert {row.state for row in doc.machines} <= {"ready"}
        assert sorted(world.clouds[name].there) == sorted(row.node for row in doc.machines), "the provider has what is known"
        full = len(doc.machines) == world.groups[name].spec.max
        assert full or not world.waiting() or any("would not fit" in note for note in world.step.notes[name])


def test_without_load_only_the_least_is_left() -> None:
    for seed in range(5):
        chance = random.Random(seed)
        world = a_world(chance)
        for second in range(200):
            if second % 40 == 0:
                change_load(world, chance, second)
            world.second()
        world.cluster.docs["services"].clear()
        world.cluster.docs["volumes"].clear()
        world.run(300)
        for name, doc in world.machines.items():
            spec = world.groups[name].spec
            assert len(doc.machines) == min(spec.max, max(spec.min, spec.buffer))


def test_a_place_that_was_lost_keeps_nobody() -> None:
    world = World(group(), nodes=1)
    world.cluster.docs["places"]["gone"] = VolumePlaceDoc("gone", ("burst-1",))
    world.cluster.service("web", 6, cpus=1.0)
    world.run(10)
    world.cluster.service("web", 1, cpus=1.0)
    world.run(120)
    assert world.names() == []
