"""Small simulated clusters where people do what a script says: each plot leads to the moment at which a known bug would show.

Rules: the world, its agents, controllers, faults and checkers are the simulation's own; only what people do next is written
down. A plot without a bug has no violation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from sim.asking import Deed
from sim.checks.verdicts import Violation
from sim.deeds import Deeds
from sim.faults import Fault
from sim.people import People, Town
from sim.scenario import Scenario
from sim.wishes import Project
from sim.world import World

FIRST_S: Final = 4.0
"""When the cluster is up and people begin."""


class Scripted(People):
    """Does what the script says at its times; each act returns the deed, or None when it is done already. Of one object one
    deed at a time, as other people do."""

    def __init__(self, world: Town, rng: Random, script: Sequence[Act]) -> None:
        super().__init__(world, rng)
        self.town = world
        self._script = list(script)
        self._turns: dict[str, asyncio.Lock] = {}

    @property
    def deeds(self) -> Deeds:
        return self._deeds

    async def act(self) -> None:
        """All of it."""
        loop = asyncio.get_running_loop()
        script, self._script = self._script, []
        async with asyncio.TaskGroup() as group:
            for act in script:
                await asyncio.sleep(max(0.0, act.at_s - loop.time()))
                group.create_task(self._play(act))

    async def _play(self, act: Act) -> None:
        async with self._turns.setdefault(act.about, asyncio.Lock()):
            deed = act.work(self)
            if deed is not None:
                await self._do(deed)


@dataclass(frozen=True, slots=True)
class Act:
    """`about`: the object that it is done with."""

    at_s: float
    about: str
    work: Callable[[Scripted], Deed | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """`quiet_s`: within this time after the last act and fault all must be well. `load`: of services that scale themselves,
    (until, connections per second)."""

    seed: int
    script: tuple[Act, ...]
    faults: tuple[Fault, ...] = ()
    nodes: int = 3
    controllers: int = 2
    until_s: float = 60.0
    quiet_s: float = 40.0
    load: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = ()

    @property
    def scenario(self) -> Scenario:
        minutes = (self.until_s + self.quiet_s) / 60
        return Scenario(
            self.seed, self.nodes, minutes, 0, self.controllers, self.faults, self.quiet_s, scales=bool(self.load)
        )


@dataclass(frozen=True, slots=True)
class Played:
    violations: tuple[Violation, ...]
    cpu_s: float
    trace_sha256: str

    @property
    def rules(self) -> list[str]:
        return list(dict.fromkeys(violation.rule for violation in self.violations))

    def __str__(self) -> str:
        return "\n".join(map(str, self.violations[:8])) or "no violation"


def play(plot: Plot) -> Played:
    began_s = time.process_time()
    world = World(plot.scenario, plot.faults)
    world.load.courses.update(plot.load)
    world.people = Scripted(world, world.chance.stream("people"), plot.script)
    world.run()
    return Played(world.checks.violations, time.process_time() - began_s, world.trace.sha256())


# ---- what scripts are written with


def stack(name: str, network: str = "", /, **services: dict[str, Any]) -> Project:
    """A resolved project with one network of its own, or on the given one."""
    net = {"name": network, "external": True} if network else {"name": f"{name}_default"}
    mounts = [mount["source"] for row in services.values() for mount in row.get("volumes", ())]
    return {
        "name": name, "services": services, "networks": {"default": net},
        "volumes": {source: {"name": f"{name}_{source}"} for source in mounts},
    }  # fmt: skip


def service(replicas: int = 1, image: str = "demo/web:1", /, **more: Any) -> dict[str, Any]:
    """`deploy` is merged; everything else as in a Compose file."""
    deploy = {"replicas": replicas, **more.pop("deploy", {})}
    if deploy.get("mode", "").startswith("global"):
        del deploy["replicas"]
    return {"image": image, "networks": {"default": None}, "deploy": deploy, "stop_grace_period": "2s", **more}


def scaling(port: int, least: int = 1) -> dict[str, Any]:
    """For 10 connections per second a replica, from the cluster's port."""
    down = {"window": "20s", "step": "100%", "every": "5s", "to_zero_after": "10s"}
    policy = {"min": least, "max": 9, "metrics": [{"connections": "10/s"}], "scale_out": {"every": "5s"}, "scale_in": down}
    ports = [{"target": 80, "published": str(port), "protocol": "tcp", "mode": "ingress"}]
    return {"x-autoscale": policy, "ports": ports}


def on(node: str) -> dict[str, Any]:
    return {"placement": {"constraints": [f"node.hostname=={node}"]}}


def apply(at_s: float, project: Project) -> Act:
    return Act(at_s, f"stack/{project['name']}", lambda people: people.deeds.apply(project, lambda: None))


def unstack(at_s: float, name: str) -> Act:
    return Act(at_s, f"stack/{name}", lambda people: people.deeds.remove_stack(name, False, lambda: None))


def scale(at_s: float, name: str, replicas: int) -> Act:
    return Act(at_s, _stack_of(name), lambda people: people.deeds.scale(name, replicas))


def _stack_of(name: str) -> str:
    return f"stack/{name.partition('_')[0]}"


def stop(at_s: float, name: str) -> Act:
    return Act(at_s, _stack_of(name), lambda people: people.deeds.stop(name))


def node(at_s: float, name: str, availability: Any = None, **labels: str) -> Act:
    return Act(at_s, f"node/{name}", lambda people: people.deeds.patch_node(name, availability, labels))


def remove_node(at_s: float, name: str) -> Act:
    return Act(at_s, f"node/{name}", lambda people: people.deeds.remove_node(name, True))


def network(at_s: float, name: str) -> Act:
    return Act(at_s, f"network/{name}", lambda people: people.deeds.create_network(name))


def slow_tables(at_s: float, name: str, seconds: float) -> Act:
    """The node's kernel is slow from now on: no fault, only a machine on which everything takes longer."""

    def work(people: Scripted) -> None:
        people.town.nodes[name].machine.slow_s = seconds  # type: ignore[attr-defined]

    return Act(at_s, "", work)


def journals_full(at_s: float, full: bool) -> Act:
    """Of all nodes: the disk of the journal, not that of containers."""

    def work(people: Scripted) -> None:
        for found in people.town.nodes.values():
            found.machine.journal.full = full  # type: ignore[attr-defined]

    return Act(at_s, "", work)
