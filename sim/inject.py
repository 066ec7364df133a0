"""Faults begin and end: what each kind does to the world, and with whom something is wrong at the moment.

Rules: whatever a fault did is undone at its end, and only that: what several faults do to one thing is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sim.faults import AGES_PICTURES, BY_NAME, SENSORS, Fault
from sim.load import WRONG, Sensors

if TYPE_CHECKING:
    from sim.controller import SimController
    from sim.node import SimNode
    from sim.world import World

MIRROR_S: Final = 65.0
"""A mirror that lost a change has found it after so long: it compares itself once a minute."""
NEVER: Final = float("inf")


class Trouble:
    """With which nodes something is wrong, and since when nothing is. A controller's trouble is everybody's."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._active: Counter[str] = Counter()
        self._ended_s: dict[str, float] = {}

    def begin(self, target: str) -> None:
        self._active[target] += 1

    def end(self, target: str) -> None:
        self._active[target] -= 1
        self._ended_s[target] = self._now_s()

    def calm_since_s(self, node: str) -> float:
        if self._active[node] or self._active["*"]:
            return NEVER
        return max(self._ended_s.get(node, 0.0), self._ended_s.get("*", 0.0))


class Injector:
    """`begin(fault)`, `end(fault)`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._away: Counter[str] = Counter()
        self.trouble = Trouble(world.loop.time)

    def begin(self, fault: Fault) -> None:
        world = self._world
        kind = BY_NAME[fault.kind]
        length = f" for {fault.for_s:g} s" if fault.for_s else ""
        world.trace.add("fault", _about(fault), f"{fault.kind} ({kind.what}) {fault.amount:g}{length}")
        if BY_NAME[fault.kind] not in SENSORS:
            self.trouble.begin(_whose(fault))
        if fault.kind in AGES_PICTURES:
            world.checks.facts.pictures_are_old(fault.ends_s + MIRROR_S)
        self._turn(fault, True)
        if not fault.for_s and BY_NAME[fault.kind] not in SENSORS:
            self.trouble.end(_whose(fault))

    def end(self, fault: Fault) -> None:
        self._world.trace.add("fault", _about(fault), f"{fault.kind} is over")
        self._turn(fault, False)
        if BY_NAME[fault.kind] not in SENSORS:
            self.trouble.end(_whose(fault))

    def _turn(self, fault: Fault, on: bool) -> None:
        where = BY_NAME[fault.kind].where
        if where == "node":
            node = self._world.nodes[fault.target]
            self._node_process(fault, node, on)
            self._node_way(fault, on)
            self._machine(fault, node, on)
            if BY_NAME[fault.kind] in SENSORS:
                self._sensors(fault, node.machine.sensors, on)
        elif where == "controller":
            self._controller(fault, self._world.controllers[fault.target], on)
        elif where == "prometheus":
            self._prometheus(fault, on)
        else:
            for name in self._world.controllers:
                self._reach(name, on)

    def _prometheus(self, fault: Fault, on: bool) -> None:
        prometheus = self._world.prometheus
        match fault.kind:
            case "prometheus-slow":
                prometheus.slow_s = fault.amount if on else 0.0
            case "prometheus-away":
                prometheus.away = on

    def _sensors(self, fault: Fault, sensors: Sensors, on: bool) -> None:
        now_s = self._world.loop.time()
        match fault.kind:
            case "samples-missing":
                sensors.missing_since_s = now_s if on else -1.0
            case "samples-late":
                sensors.late_s = fault.amount if on else 0.0
            case "samples-wrong":
                sensors.wrong = WRONG[int(fault.amount)] if on else 0.0
        sensors.troubled_s = now_s

    def _node_process(self, fault: Fault, node: SimNode, on: bool) -> None:
        match fault.kind:
            case "agent-kill":
                node.kill() if on else node.start()
            case "agent-pause":
                node.pause() if on else node.resume()
            case "power":
                node.power_off() if on else node.power_on()
            case "node-clock":
                self._world.clocks[node.name].jump(fault.amount)

    def _node_way(self, fault: Fault, on: bool) -> None:
        wire, name = self._world.wire, fault.target
        turn = wire.cut if on else wire.mend
        match fault.kind:
            case "cut":
                turn(name, "*")
                turn("*", name)
            case "cut-up":
                turn(name, "*")
            case "cut-down":
                turn("*", name)
            case "slow" if on:
                wire.slow(name, fault.amount / 2, fault.amount)
            case "slow":
                wire.normal(name)
            case "lossy":
                wire.lossy(name, fault.amount if on else 0.0)
            case "reset":
                wire.reset(name)

    def _machine(self, fault: Fault, node: SimNode, on: bool) -> None:
        machine = node.machine
        match fault.kind:
            case "disk-full":
                machine.disk_full = on
                self._world.checks.ground.full_disk_s[fault.target] = self._world.loop.time()
            case "images-missing":
                machine.images_missing = on
            case "create-fails":
                machine.create_fails = on
            case "slow-machine":
                machine.slow_s = fault.amount if on else 0.0
            case "crash":
                machine.crash_some(max(1, round(fault.amount)))
            case "hang" if on:
                machine.hang.update(box.id for box in machine.containers() if box.running)
            case "hang":
                machine.hang.clear()

    def _controller(self, fault: Fault, controller: SimController, on: bool) -> None:
        wire, name, faults = self._world.wire, fault.target, controller.faults
        turn = wire.cut if on else wire.mend
        amount = fault.amount if on else 0.0
        match fault.kind:
            case "controller-kill":
                controller.kill() if on else controller.start()
            case "controller-pause":
                controller.pause() if on else controller.resume()
            case "controller-cut":
                turn(name, "*")
                turn("*", name)
            case "controller-clock":
                controller.clock.jump(fault.amount)
            case "store-slow":
                faults.slow_s = amount
            case "store-unknown":
                faults.unknown = amount
            case "store-conflict":
                faults.conflict = amount
            case "store-away":
                self._reach(name, on)
            case "store-read-only":
                faults.read_only = on
            case "watch-loses":
                faults.watch_loses = amount
            case "watch-late":
                faults.watch_late_s = amount

    def _reach(self, controller: str, away: bool) -> None:
        self._away[controller] += 1 if away else -1
        self._world.controllers[controller].faults.unavailable = self._away[controller] > 0


def _whose(fault: Fault) -> str:
    return fault.target if BY_NAME[fault.kind].where == "node" else "*"


def _about(fault: Fault) -> str:
    where = BY_NAME[fault.kind].where
    return f"{where}/{fault.target}" if fault.target != "*" else where
