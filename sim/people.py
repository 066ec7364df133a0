"""The people of the simulation: what they want next, and what they were told was accepted.

Rules: of one object (a stack with its services, a single container, a network, a node) one deed at a time; of different ones
several. Refusals are everyday. At least two thirds of the nodes stay, so that what is wanted has room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from random import Random
from typing import Final, Protocol

from controller.api import networks, nodes, services, stacks, volumes
from model.documents import Availability, NodeInfo
from model.spec import Attachment, ContainerSpec, Mount, Port, ServiceSpec
from sim import wishes
from sim.asking import Asker, Deed, Outcome
from sim.controller import SimController
from sim.deeds import Deeds
from sim.scenario import LARGE
from sim.trace import Trace
from sim.wanted import ANY, GONE, Wanted

LABELLED_MAX: Final = 30
AT_ONCE: Final = 8
"""So many of the first deeds are done together."""
SECOND: Final = 0.25
"""How often two people do something at the same moment."""


class Computer(Protocol):
    """The part of sim.machine.Machine that is needed."""

    def info(self) -> NodeInfo: ...


class Node(Protocol):
    """The part of sim.node.SimNode that is needed."""

    @property
    def removed(self) -> bool: ...

    @property
    def machine(self) -> Computer: ...

    def rejoin(self, serial: str, node_id: str) -> None: ...


class Town(Protocol):
    """The part of sim.world.World that is needed."""

    @property
    def controllers(self) -> Mapping[str, SimController]: ...

    @property
    def nodes(self) -> Mapping[str, Node]: ...

    @property
    def trace(self) -> Trace: ...

    def volume_removed(self, name: str) -> None:
        """That was accepted."""


class People:
    """`act()` does something; `wanted` is what was accepted. `log`: the deeds with their outcomes, newest last."""

    def __init__(self, world: Town, rng: Random, scaling: bool = False) -> None:
        self.wanted = Wanted()
        self.asker = Asker(world.controllers, rng)
        self.log: deque[str] = deque(maxlen=400)
        self._world = world
        self._rng = rng
        self._scaling = scaling
        self._files: dict[str, wishes.Project] = {}
        self._busy: dict[str, None] = {}
        self._number = 0
        self._deeds = Deeds(self.wanted, self._rejoined, world.volume_removed)
        self._first: deque[Callable[[], Deed | None]] = deque()
        self._plan_first()

    async def act(self) -> None:
        """One deed or two at once, until nothing of them can happen any more."""
        deeds = [self._next() for _ in range(min(len(self._first), AT_ONCE) or 1 + (self._rng.random() < SECOND))]
        async with asyncio.TaskGroup() as group:
            for deed in deeds:
                if deed is not None:
                    group.create_task(self._do(deed))

    async def _do(self, deed: Deed) -> None:
        try:
            outcome, text = await self.asker.do(deed)
            self._note(deed, f"{outcome.value} {text}")
            if outcome is Outcome.ACCEPTED:
                self.wanted.unsure.pop(deed.about, None)
            elif outcome is Outcome.UNKNOWN and deed.about:
                await self._look(deed)
        finally:
            self._busy.pop(deed.about, None)

    async def _look(self, deed: Deed) -> None:
        seen = await self.asker.look(deed)
        self._note(deed, "looked at" if seen else "nobody could be asked")
        if not seen:
            self.wanted.unsure[deed.about] = None
            return
        self.wanted.unsure.pop(deed.about, None)
        if not self.wanted.of(deed.about):
            self._files.pop(deed.about.removeprefix("stack/"), None)

    def _note(self, deed: Deed, text: str) -> None:
        self._world.trace.add("people", deed.about or "people", f"{deed.text}: {text}")
        self.log.append(f"{deed.about} {deed.text}: {text}")

    def _rejoined(self, node: str, serial: str, node_id: str) -> None:
        self._world.nodes[node].rejoin(serial, node_id)

    # ---- what next

    def _plan_first(self) -> None:
        names = list(self._world.nodes)[:LABELLED_MAX]
        self._first += [self._base, self._new_network]
        self._first.extend([self._new_stack] * 2)
        if self._scaling:
            self._first.append(self._new_scaling)
        self._first.extend(
            lambda name=name, zone=zone: self._deeds.patch_node(name, None, {"zone": zone})  # type: ignore[misc]
            for name, zone in zip(names, wishes.ZONES * len(names), strict=False)
        )

    def _next(self) -> Deed | None:
        """A deed about what nobody is busy with; None: this one does nothing."""
        kinds: tuple[tuple[Callable[[], Deed | None], int], ...] = (
            (self._new_stack, 4), (self._edit_stack, 10), (self._remove_stack, 2), (self._scale, 8), (self._turn, 4),
            (self._remove_service, 2), (self._new_single, 3), (self._wire_single, 2), (self._new_network, 2),
            (self._remove_network, 2), (self._remove_volume, 4), (self._patch_node, 6), (self._remove_node, 2),
            (self._rejoin, 6), (self._read, 4), *(((self._order, 6), (self._new_scaling, 2)) if self._scaling else ()),
        )  # fmt: skip
        if self._first:
            chosen = self._first.popleft()
        else:
            (chosen,) = self._rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        deed = chosen()
        if deed is None or deed.about in self._busy:
            return None
        if deed.about:
            self._busy[deed.about] = None
        return deed

    def _large(self) -> bool:
        """Then nobody reads whole lists, and nothing is published on every node."""
        return len(self._world.nodes) > LARGE

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    # ---- stacks and services

    def _stacks_max(self) -> int:
        return 3 + min(12, len(self._world.nodes) // 2)

    def _base(self) -> Deed:
        return self._apply(wishes.first(len(self._world.nodes)))

    def _new_stack(self) -> Deed | None:
        if "base" not in self._files:
            return self._base()
        if len(self._files) >= self._stacks_max():
            return self._remove_stack()
        return self._apply(wishes.project(self._rng, self._name("s"), len(self._world.nodes)))

    def _new_scaling(self) -> Deed | None:
        """With services that scale themselves."""
        if len(self._files) >= self._stacks_max():
            return None
        return self._apply(wishes.scaling(self._rng, self._name("auto")))

    def _edit_stack(self) -> Deed | None:
        names = sorted(name for name in self._files if name != "base")
        if not names:
            return self._new_stack()
        return self._apply(wishes.edited(self._rng, self._files[self._rng.choice(names)], len(self._world.nodes)))

    def _apply(self, project: wishes.Project) -> Deed:
        stack = project["name"]
        self._files.setdefault(stack, project)  # a person's file is there, whatever the controllers say

        def keep() -> None:
            self._files[stack] = project

        return self._deeds.apply(project, keep)

    def _remove_stack(self) -> Deed | None:
        names = sorted(name for name in self._files if name != "base")
        if not names:
            return None
        stack = self._rng.choice(names)

        def forget() -> None:
            self._files.pop(stack, None)

        return self._deeds.remove_stack(stack, self._rng.random() < 0.3, forget)

    def _service(self, *, single: bool | None = None, modes: tuple[str, ...] = ()) -> str:
        found = self.wanted.services
        names = [
            name for name, row in sorted(found.items())
            if single in (None, row.about.startswith("service/")) and (not modes or row.mode in modes)
        ]  # fmt: skip
        return self._rng.choice(names) if names else ""

    def _scale(self) -> Deed | None:
        name = self._service(single=False, modes=("replicated",))
        if not name:
            return None
        size = self._rng.choice((0, 1, 2, wishes.replicas(self._rng, len(self._world.nodes))))
        if name == "base_web":
            size = max(1, int(wishes.web_replicas(len(self._world.nodes)) * self._rng.uniform(0.8, 1.2)))
        return self._deeds.scale(name, size)

    def _order(self) -> Deed | None:
        """To the autoscaler of a service that has one."""
        rng, names = self._rng, [name for name, row in sorted(self.wanted.services.items()) if row.scale == ANY]
        if not names:
            return None
        name = rng.choice(names)
        match rng.choice(("pause", "resume", "resume", "resume", "floor")):
            case "pause":
                return self._deeds.pause(name, rng.choice(("in", "out", "both")))
            case "resume":
                return self._deeds.resume(name)
        return self._deeds.scale(name, rng.randint(0, wishes.SCALED_MAX), rng.choice((None, 0.0, 20.0)))

    def _turn(self) -> Deed | None:
        name = self._service()
        if not name:
            return None
        stopped = self.wanted.services[name].stopped
        return self._deeds.start(name) if stopped else self._deeds.stop(name)

    def _remove_service(self) -> Deed | None:
        name = self._service(single=None if self._rng.random() < 0.5 else True)
        if not name or name == "base_web":
            return None
        return self._deeds.remove_service(name, lambda: self._strike(name))

    def _strike(self, name: str) -> None:
        """Out of the stack's file, unless nothing would be left in it."""
        stack, _, key = name.partition("_")
        project = self._files.get(stack)
        if project is not None and len(project["services"]) > 1 and key in project["services"]:
            project = self._files[stack] = deepcopy(project)
            del project["services"][key]

    def _new_single(self) -> Deed | None:
        rng, name = self._rng, self._name("box")
        loose = sorted(self.wanted.networks)
        attached = (Attachment(rng.choice(loose)),) if loose and rng.random() < 0.6 else ()
        ports = (Port(80, rng.choice(wishes.PORTS)),) if rng.random() < 0.3 and not self._large() else ()
        mounts = (Mount("volume", "/data", f"{name}-data"),) if rng.random() < 0.3 else ()
        command = ("job", "20") if rng.random() < 0.2 else None
        container = ContainerSpec(wishes.image(rng), command, networks=attached, ports=ports, mounts=mounts)
        return self._deeds.create(ServiceSpec(name, container, single=True))

    def _wire_single(self) -> Deed | None:
        name, loose = self._service(single=True), sorted(self.wanted.networks)
        if not name or not loose:
            return None
        network = self._rng.choice(loose)
        return self._rng.choice((self._deeds.connect, self._deeds.disconnect))(name, network)

    # ---- networks and volumes

    def _new_network(self) -> Deed | None:
        return self._deeds.create_network(self._name("net")) if len(self.wanted.networks) < 4 else None

    def _remove_network(self) -> Deed | None:
        names = sorted(self.wanted.networks)
        return self._deeds.remove_network(self._rng.choice(names)) if names else None

    def _remove_volume(self) -> Deed | None:
        """Of a stack, or a single container's: used or not. Now and then all that have no name."""
        number, kind = self._rng.randint(1, self._number or 1), self._rng.random()
        if kind < 0.15:
            return None if self._large() else self._deeds.prune_volumes()
        return self._deeds.remove_volume(f"s{number}_data-one" if kind < 0.7 else f"box{number}-data")

    # ---- nodes

    def _patch_node(self) -> Deed | None:
        """Drained and paused ones come back before others go."""
        rng, away = self._rng, self._away()
        back = [name for name in away if self.wanted.nodes[name] != GONE]
        if back and rng.random() < 0.6:
            return self._deeds.patch_node(rng.choice(back), "active", {})
        name = rng.choice(list(self._world.nodes))
        if self.wanted.nodes.get(name) == GONE:
            return None
        if rng.random() < 0.3:
            return self._deeds.patch_node(name, None, {"zone": rng.choice((*wishes.ZONES, None))})
        availability: Availability = rng.choice(("drain", "drain", "pause"))
        return self._deeds.patch_node(name, availability, {}) if self._may_go(name) else None

    def _away(self) -> list[str]:
        """Nodes that take no new replicas, by people's will."""
        return [name for name, is_now in sorted(self.wanted.nodes.items()) if is_now != "active"]

    def _may_go(self, name: str) -> bool:
        away = {*self._away(), name, *(about[5:] for about in self._busy if about.startswith("node/"))}
        return 3 * len(away) <= len(self._world.nodes)

    def _remove_node(self) -> Deed | None:
        name = self._rng.choice(self._away() or list(self._world.nodes))
        if self.wanted.nodes.get(name) == GONE or not self._may_go(name):
            return None
        return self._deeds.remove_node(name, self._rng.random() < 0.4)

    def _rejoin(self) -> Deed | None:
        names = [name for name in self._away() if self._world.nodes[name].removed]
        if not names:
            return None
        name = self._rng.choice(names)
        return self._deeds.rejoin(name, f"{self._rng.getrandbits(64):016x}", self._world.nodes[name].machine.info())

    # ---- reading

    def _read(self) -> Deed | None:
        rng, look = self._rng, self._deeds.look
        node, service = rng.choice(list(self._world.nodes)), self._service()
        found = [look(nodes.explain, name=node), look(nodes.get_node, name=node), look(networks.list_networks)]
        if service:
            found += [look(services.explain, name=service), look(services.get_service, name=service)]
        if stack := next(iter(self._files), ""):
            found.append(look(stacks.plan, None, self._files[stack], stack=stack))
        if not self._large():
            found += [look(services.list_services, {"stack": ""}), look(nodes.list_nodes), look(volumes.list_volumes)]
            found.append(look(volumes.get_volume, name=f"s{rng.randint(1, self._number or 1)}_data-one"))
        return rng.choice(found)
