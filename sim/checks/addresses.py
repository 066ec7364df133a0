"""No address and no port twice among containers that run, and nothing shared by two networks or two services.

Rules: containers count on nodes that are in the cluster and with which nothing is wrong; a node that was cut off or removed
keeps its containers and their addresses until it hears.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import pairwise
from typing import Final

from model.documents import NetworkPlanDoc, ServicePlanDoc
from sim.checks.facts import Running, Step
from sim.checks.ground import Checker, Ground

CALM_S: Final = 5.0
Key = tuple[str, ...]


class Addresses(Checker):
    """Each start; each written plan of a network or of a service's addresses."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._held: dict[Key, dict[tuple[str, str], Running]] = {}
        self._subnets: dict[str, IPv4Network] = {}
        self._vnis: dict[int, str] = {}
        self._vips: dict[Key, str] = {}
        self._published: dict[tuple[str, int], str] = {}

    # ---- containers

    def started(self, now: Running) -> None:
        self._take(now, now.since_s)

    def rewired(self, was: Running, now: Running, at_s: float) -> None:
        self._drop(was)
        self._take(now, at_s)

    def _take(self, now: Running, at_s: float) -> None:
        for key in _keys(now):
            held = self._held.setdefault(key, {})
            for other in held.values():
                if self._counts(now, at_s) and self._counts(other, at_s):
                    self._twice(now, other, key, at_s)
            held[now.node, now.box.id] = now

    def ended(self, was: Running, code: int | None, why: str, at_s: float) -> None:
        self._drop(was)

    def _drop(self, was: Running) -> None:
        for key in _keys(was):
            self._held.get(key, {}).pop((was.node, was.box.id), None)

    def _counts(self, one: Running, at_s: float) -> bool:
        nodes = self.facts.recently("nodes", one.node, at_s)
        return all(node is not None for node in nodes) and self.ground.calm(one.node, at_s, CALM_S)

    def _twice(self, now: Running, other: Running, key: Key, at_s: float) -> None:
        mine, theirs = self.facts.row(now.node, now.box), self.facts.row(other.node, other.box)
        if key[0] == "port":
            self.bad(at_s, "port", f"node/{now.node}", f"{mine} and {theirs} both have {key[2]} {key[3]}")
        else:
            self.bad(at_s, "address", f"service/{mine.service}", f"{mine} and {theirs} both have {key[2]} on {key[1]}")

    # ---- documents

    def wrote(self, step: Step) -> None:
        """What a transaction gives back it may give out again: its deletions stand behind its writes."""
        for change in step.changes:
            if change.kind == "netplans" and change.old is not None:
                self._subnets.pop(change.old.name, None)
                self._vnis.pop(change.old.vni, None)
            elif change.kind == "svcplans":
                self._drop_service(change.old)
        for change in step.changes:
            if change.kind == "netplans" and change.new is not None:
                self._take_network(step, change.new)
            elif change.kind == "svcplans" and change.new is not None:
                self._take_service(step, change.new)

    def _take_network(self, step: Step, new: NetworkPlanDoc) -> None:
        about, subnet = f"network/{new.name}", IPv4Network(new.subnet)
        for name, other in self._subnets.items():
            if other.overlaps(subnet):
                self.bad(step.at_s, "subnet", about, f"its subnet {subnet} overlaps {other} of network {name}")
        if new.vni in self._vnis:
            self.bad(step.at_s, "subnet", about, f"network {self._vnis[new.vni]} has the same VNI {new.vni}")
        self._subnets[new.name], self._vnis[new.vni] = subnet, new.name
        slices = sorted((IPv4Network(cidr), node) for node, cidr in new.slices)
        for (one, first), (other, second) in pairwise(slices):
            if one.overlaps(other):
                self.bad(step.at_s, "subnet", about, f"slice {one} of {first} overlaps {other} of {second}")
        for one, node in slices:
            if not one.subnet_of(subnet):
                self.bad(step.at_s, "subnet", about, f"slice {one} of {node} is not in {subnet}")

    def _drop_service(self, old: ServicePlanDoc | None) -> None:
        for vip in _vips(old):
            self._vips.pop(vip, None)
        for port in _published(old):
            self._published.pop(port, None)

    def _take_service(self, step: Step, new: ServicePlanDoc) -> None:
        for vip in _vips(new):
            if vip in self._vips:
                self.bad(step.at_s, "address", f"service/{new.name}", f"{vip[1]} on {vip[0]} is that of {self._vips[vip]} too")
            self._vips[vip] = new.name
        for port in _published(new):
            if port in self._published:
                text = f"port {port[1]}/{port[0]} is published by {self._published[port]} too"
                self.bad(step.at_s, "port", f"service/{new.name}", text)
            self._published[port] = new.name


def _keys(one: Running) -> list[Key]:
    """What nobody else may have: addresses anywhere, ports on the node."""
    addresses = [("address", network, address.partition("/")[0]) for network, address in one.box.addresses]
    own = [key for key in addresses if key[1] not in ("bridge", "host", "none")]
    return [*own, *(("port", one.node, target.partition("/")[2], where) for target, where in one.box.ports)]


def _vips(plan: ServicePlanDoc | None) -> list[Key]:
    return [(network, address) for network, address in plan.vips] if plan else []


def _published(plan: ServicePlanDoc | None) -> list[tuple[str, int]]:
    return [(port.protocol, port.published) for port in plan.ports] if plan else []
