"""The addresses and published numbers of services: one VIP on each user network, a number for each port of mode ingress.

Rules: kept for the life of the service (its id). A VIP is chosen by the service's id in the last quarter of the subnet, where
no node has a slice, and goes when the service leaves the network or the network gets another subnet. A number is the lowest
free one. What cannot be had is a note: the service runs without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address
from zlib import crc32

from controller.decide.addresses import range_of, service_addresses
from controller.decide.attached import networks_of
from controller.decide.index import Index
from controller.decide.nets import Nets
from controller.decide.ports import CHOSEN, claim_of, ingress_ports, is_fixed, own_ports
from controller.decide.taken import Number, Taken
from controller.decide.types import View
from model.addresses import service_range
from model.documents import NetworkPlanDoc, ServiceDoc, ServicePlanDoc
from model.spec import Port
from scheduler.ports import clash

addresses_of = lru_cache(maxsize=20_000)(service_addresses)


def number_of(address: str) -> int:
    """Of one that we wrote ourselves, so without checks: every pass asks it of every service."""
    first, second, third, fourth = address.split(".")
    return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)


class ServicePlans:
    """Of one pass."""

    def __init__(self, view: View, index: Index, nets: Nets) -> None:
        self._view, self._index, self._nets = view, index, nets
        self._plans: dict[str, ServicePlanDoc] = {}
        self._freed: set[str] = set()
        """Services whose old plan counts no longer: it was replaced or dropped in this pass."""
        self._left: dict[str, tuple[Port, ...]] = {}
        """What services of this pass that are not settled yet will keep of their published ports."""
        self._given: set[tuple[str, str]] = set()
        self._numbers: dict[Number, str] = {}
        self._own: set[Number] | None = None
        self.deleted: list[str] = []

    @property
    def frees(self) -> bool:
        """Whether something was given back in this pass."""
        return bool(self._freed)

    def release(self, doc: ServiceDoc) -> None:
        """Lets others of the same pass have what the service no longer asks for. Of all before any is settled."""
        name = doc.spec.name
        before = self._view.svcplans.get(name)
        if before is not None and before.id != doc.id:
            self._freed.add(name)
        elif before is not None and before.ports:
            self._left[name] = tuple(row for _, row in _matched(ingress_ports(doc), before.ports) if row is not None)

    def settle(self, doc: ServiceDoc) -> list[str]:
        """Gives the service what it lacks; notes of what it cannot have. After its networks are planned."""
        name = doc.spec.name
        before = self._view.svcplans.get(name)
        if before is not None and before.id != doc.id:
            before = None
        networks = networks_of(doc) if has_vips(doc) else []
        ports = ingress_ports(doc)
        if not networks and not ports:
            if name in self._view.svcplans:
                self.drop(name)
            return []
        if before is not None and not ports and not before.ports and self._has_all(networks, before.vips):
            return []
        notes: list[str] = []
        after = ServicePlanDoc(doc.id, name, self._vips(doc, networks, before, notes), self._ports(doc, ports, before, notes))
        if not after.vips and not after.ports:
            if name in self._view.svcplans:
                self.drop(name)
        elif after != self._view.svcplans.get(name):
            self._plans[name] = after
            if before is not None and (set(before.vips) - set(after.vips) or set(before.ports) - set(after.ports)):
                self._freed.add(name)
        return notes

    def drop(self, name: str) -> None:
        """The service is gone, or has neither address nor number any more."""
        if name in self._view.svcplans:
            self._freed.add(name)
            self.deleted.append(name)

    def changed(self) -> tuple[ServicePlanDoc, ...]:
        return tuple(self._plans[name] for name in sorted(self._plans))

    def _taken(self) -> Taken:
        return self._index.taken(self._view)

    # ---- addresses

    def _has_all(self, networks: list[str], vips: tuple[tuple[str, str], ...]) -> bool:
        """Nearly always: the service has what it needs, nothing more, and everything is still good."""
        if len(networks) != len(vips):
            return False
        for network, (held, vip) in zip(networks, vips, strict=True):
            plan = self._nets.current(network) if network == held else None
            if plan is None or number_of(vip) not in addresses_of(plan.subnet):
                return False
        self._given.update(vips)
        return True

    def _vips(
        self, doc: ServiceDoc, networks: list[str], before: ServicePlanDoc | None, notes: list[str]
    ) -> tuple[tuple[str, str], ...]:
        had = dict(before.vips) if before else {}
        rows = []
        for network in networks:
            plan = self._nets.current(network)
            if plan is None:
                continue
            vip = had.get(network, "")
            if not vip or number_of(vip) not in addresses_of(plan.subnet):
                vip = self._free_address(doc, plan)
            if vip:
                rows.append((network, vip))
                self._given.add((network, vip))
            else:
                within = service_range(plan.subnet)
                notes.append(f"network {network}: no address left for services in {within}; names give replicas instead")
        return tuple(dict.fromkeys(rows))

    def _free_address(self, doc: ServiceDoc, plan: NetworkPlanDoc) -> str:
        among = addresses_of(plan.subnet)
        if not among:
            return ""
        held, fixed = self._taken().vips.get(plan.name, {}), self._taken().fixed.get(plan.name, {})
        low = range_of(service_range(plan.subnet))[0]
        slices = [row for row in (range_of(cidr) for cidr in self._nets.slices(plan.name).values()) if row[1] > low]
        start = crc32(doc.id.encode()) % len(among)
        for step in range(len(among)):
            number = among[(start + step) % len(among)]
            address = str(IPv4Address(number))
            others = held.get(address, {}).keys() - self._freed
            busy = others or address in fixed or (plan.name, address) in self._given
            if not busy and not any(first <= number < end for first, end in slices):
                return address
        return ""

    # ---- published numbers

    def _ports(
        self, doc: ServiceDoc, ports: list[Port], before: ServicePlanDoc | None, notes: list[str]
    ) -> tuple[Port, ...]:
        if not ports:
            return ()
        rows: list[Port] = []
        for port, kept in _matched(ports, before.ports if before else ()):
            if kept is not None:
                number = kept.published
            else:
                number = self._fixed(doc, port, notes) if is_fixed(port) else self._lowest(doc, port, rows, notes)
            if number:
                rows.append(replace(port, published=number, published_end=0))
                self._numbers[port.protocol, number] = doc.spec.name
        return tuple(sorted(rows, key=lambda row: (row.target, row.protocol, row.published, row.host_ip)))

    def _fixed(self, doc: ServiceDoc, port: Port, notes: list[str]) -> int:
        """The number itself, unless another service has it (both were written at the same time)."""
        key = (port.protocol, port.published)
        others = [*self._taken().numbers.get(key, {}), *([self._numbers[key]] if key in self._numbers else [])]
        for other in others:
            if other != doc.spec.name and any(clash(claim_of(port), claim_of(row)) for row in self._ports_of(other)):
                notes.append(f"port {port.published}/{port.protocol} is published by {other} already: it stays with that one")
                return 0
        return port.published

    def _ports_of(self, service: str) -> tuple[Port, ...]:
        """What the service has, as far as this pass has come."""
        if service in self._plans:
            return self._plans[service].ports
        if service in self._freed:
            return ()
        plan = self._view.svcplans.get(service)
        return self._left.get(service, plan.ports if plan is not None else ())

    def _lowest(self, doc: ServiceDoc, port: Port, rows: list[Port], notes: list[str]) -> int:
        among = range(port.published, max(port.published, port.published_end) + 1) if port.published else CHOSEN
        mine = {(row.protocol, row.published) for row in rows}
        taken = self._taken()
        for number in among:
            key = (port.protocol, number)
            others = taken.numbers.get(key, {}).keys() - self._freed - {doc.spec.name}
            if not (others or key in taken.asked or key in self._numbers or key in mine or key in self._shoals()):
                return number
        notes.append(f"port {port.target}/{port.protocol}: no number left in {among[0]}-{among[-1]}: it is not published")
        return 0

    def _shoals(self) -> set[Number]:
        """Numbers that shoal itself listens on."""
        if self._own is None:
            self._own = {(claim.protocol, claim.number) for claim, _, _ in own_ports(self._view)}
        return self._own


def has_vips(doc: ServiceDoc) -> bool:
    """Single containers and jobs are reached by their own addresses."""
    spec = doc.spec
    return spec.endpoint_mode == "vip" and not spec.single and not spec.mode.endswith("job")


def _matched(ports: list[Port], had: Iterable[Port]) -> list[tuple[Port, Port | None]]:
    """Each port with what it was given before, those with a fixed number first."""
    free, pairs = list(had), []
    for port in sorted(ports, key=lambda port: not is_fixed(port)):
        kept = next((row for row in free if _is_for(row, port)), None)
        if kept is not None:
            free.remove(kept)
        pairs.append((port, kept))
    return pairs


def _is_for(row: Port, port: Port) -> bool:
    """Whether the number given to `row` is one that `port` may have."""
    if (row.target, row.protocol, row.host_ip) != (port.target, port.protocol, port.host_ip):
        return False
    if is_fixed(port):
        return row.published == port.published
    if not port.published:
        return row.published in CHOSEN
    return port.published <= row.published <= port.published_end
