"""The Balancer in memory: the book, the floors and the drain of the real one; only the kernel's tables are replaced.

Rules: the tables outlive the agent, as the kernel's do, and the next agent takes them over; everything else begins anew.
News are applied soon, all that have come by then at once; `takes` says how soon.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from agent.network.balance_port import LocalPort, Place, Traffic
from agent.network.draining import Draining
from agent.network.holding import Holding
from agent.network.port_holder import OTHER, Port, PortHolder, _Hold, text
from agent.network.published import PublishedPorts
from agent.plan.balance import HELD, INGRESS, Backend, Frontend, HostPort, Member, Row, Vip, families, port_frontend
from agent.plan.balance_book import BalanceBook
from agent.plan.forget import Forgetting
from agent.plan.names import EndpointsMessage, ServiceNames
from agent.plan.network import LinkPlan
from model.errors import Conflict
from model.ports import Clock

RETRY_MAX_S = 30.0


class Sending(NamedTuple):
    """New connections for this service go there."""

    network: str
    address: str
    service_id: str


@dataclass(slots=True)
class Tables:
    """What a kernel would hold. `refuses`: it takes no transaction. `taken`: ports that other programs have."""

    slots: dict[Frontend, tuple[Backend, ...]] = field(default_factory=dict)
    members: dict[Member, None] = field(default_factory=dict)
    sends: dict[Frontend, tuple[Sending, ...]] = field(default_factory=dict)
    refuses: bool = False
    taken: dict[Port, None] = field(default_factory=dict)
    _at: dict[Place, dict[str, int]] = field(default_factory=dict)

    def believes(self, network: str, address: str) -> tuple[str, ...]:
        """The services whose new connections this node sends there."""
        return tuple(sorted(self._at.get((network, address), ())))

    def put(self, frontend: Frontend, sends: tuple[Sending, ...]) -> None:
        for gone in self.sends.pop(frontend, ()):
            counts = self._at[gone.network, gone.address]
            counts[gone.service_id] -= 1
            if not counts[gone.service_id]:
                del counts[gone.service_id]
            if not counts:
                del self._at[gone.network, gone.address]
        for sending in sends:
            counts = self._at.setdefault((sending.network, sending.address), {})
            counts[sending.service_id] = counts.get(sending.service_id, 0) + 1
        if sends:
            self.sends[frontend] = sends

    def clear(self) -> None:
        """The machine has begun anew, or everything was taken away."""
        for content in (self.slots, self.members, self.sends, self._at):
            content.clear()


@lru_cache(maxsize=1024)
def _network(cidr: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(cidr)


def _at_once() -> float:
    return 0.0


def _none_open(addresses: Iterable[str]) -> dict[str, int]:
    return {}


class MemoryBalancer:
    """One agent's. `takes()`: seconds until news are applied; `open_connections`: how many are open to each address."""

    def __init__(
        self,
        node: str,
        clock: Clock,
        tables: Tables | None = None,
        *,
        say: Callable[[str, str, str], None] = lambda kind, about, sentence: None,
        takes: Callable[[], float] = _at_once,
        open_connections: Callable[[Iterable[str]], Mapping[str, int]] = _none_open,
    ) -> None:
        self.tables = tables or Tables()
        self._clock = clock
        self._takes = takes
        self._book = BalanceBook(node)
        if self.tables.slots or self.tables.members:
            self._book.inherit(self.tables.slots, self.tables.members)
        self.tables.slots, self.tables.members = self._book.slots, self._book.members
        self._forgetting = Forgetting(clock.monotonic())
        self._draining = Draining(self._forgetting, open_connections, self._book.prefix6_of, clock)
        self._ports = _Ports(self._book, say, self.tables.taken)
        self._holding = Holding(self._book.sleeps, clock)
        self._known: dict[str, dict[str, ServiceNames]] = {}
        self._by_vip: dict[Place, dict[str, None]] = {}
        self._renamed: dict[Frontend, None] = {}
        self._bridges: dict[str, str] = {}
        self._subnets: dict[str, ipaddress.IPv4Network] = {}
        self._number = self._applied = 0
        self._pause_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._done = asyncio.Event()

    # -- news

    def take(self, message: EndpointsMessage) -> None:
        self._forgetting.take(message, self._clock.monotonic())
        self._book.take(message)
        self._note(message)
        self._holding.look()
        self._number = max(self._number, message.number)
        self._ports.ingress(self._book.ingress_ports())
        self._soon()

    def networks(self, plans: Mapping[str, LinkPlan]) -> None:
        for network in self._book.networks(plans):
            self._forgetting.leave(network)
            for service in self._known.pop(network, {}).values():
                self._unname(network, service)
        self._bridges = {plan.bridge: name for name, plan in plans.items()}
        self._subnets = {name: _network(plan.subnet) for name, plan in plans.items()}
        self._ports.ingress(self._book.ingress_ports())
        for sandbox, ports in self._ports.host.items():
            self._book.publish(sandbox, [self._host_port(port) for port in ports])
        self._soon()

    async def applied(self, beyond: int) -> int:
        while self._applied <= beyond:
            self._done.clear()
            await self._done.wait()
        return self._applied

    def floor(self, number: int) -> None:
        if number == 0:
            self._number = self._applied = 0
        self._forgetting.floor(number)

    def forgotten(self, network: str, address: str) -> bool:
        return self._forgetting.forgotten((network, address), self._clock.monotonic())

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        await self._draining.drained(places, within_s)

    # -- applying

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s + self._takes(), self._apply)

    def _apply(self) -> None:
        self._timer = None
        if self.tables.refuses:
            self._pause_s = min(RETRY_MAX_S, 2 * self._pause_s or 0.1)
            self._soon()
            return
        self._pause_s = 0.0
        moved = dict.fromkeys(move.frontend for move in self._book.change().moves)
        self.tables.slots, self.tables.members = self._book.slots, self._book.members
        for frontend in moved | self._renamed:
            self.tables.put(frontend, self._sends(frontend, self._book.slots.get(frontend, ())))
        self._renamed = {}
        self._applied = self._number
        self._done.set()

    # -- whose is what

    def _note(self, message: EndpointsMessage) -> None:
        known = self._known.setdefault(message.network, {})
        before = {**known} if message.whole else {key: known[key] for key in _named(message) if key in known}
        for service_id, service in before.items():
            self._unname(message.network, service)
            del known[service_id]
        for service in message.services:
            known[service.service_id] = service
            if service.vip:
                self._by_vip.setdefault((message.network, service.vip), {})[service.service_id] = None
        for service_id in dict.fromkeys((*before, *(service.service_id for service in message.services))):
            was, now = before.get(service_id), known.get(service_id)
            if was is None or now is None:
                self._renamed |= dict.fromkeys(self._frontends(message.network, was or now))

    def _unname(self, network: str, service: ServiceNames) -> None:
        claims = self._by_vip.get((network, service.vip), {})
        claims.pop(service.service_id, None)
        if not claims:
            self._by_vip.pop((network, service.vip), None)

    def _frontends(self, network: str, service: ServiceNames | None) -> Iterable[Frontend]:
        """Whose owner is another one when this service comes or goes: the slots may stay as they are."""
        if service is None:
            return ()
        if network == INGRESS:
            rows = (port for port in service.ports if port.published and 4 in families(port.host_ip))
            return [port_frontend(port.protocol, port.published, port.host_ip, 4) for port in rows]
        return [Vip(bridge, service.vip) for bridge, name in self._bridges.items() if name == network and service.vip]

    def _sends(self, frontend: Frontend, slots: tuple[Backend, ...]) -> tuple[Sending, ...]:
        """Without those of IPv6, which are the same, and those that another node balances again."""
        if slots == HELD:
            return ()
        if isinstance(frontend, Vip):
            network = self._bridges.get(frontend.bridge, "")
            owner = min(self._by_vip.get((network, frontend.address), {}), default="")
            return tuple(Sending(network, slot.address, owner) for slot in slots) if owner else ()
        if frontend.family != 4:
            return ()
        found: dict[Sending, None] = {}
        for service_id, service in sorted(self._known.get(INGRESS, {}).items()):
            if any((port.protocol, port.published) == (frontend.protocol, frontend.published) for port in service.ports):
                on = {endpoint.address: endpoint.network for endpoint in service.endpoints}
                here = (slot.address for slot in slots if slot.address in on)
                found |= {Sending(on[address], address, service_id): None for address in here}
        return tuple(found)

    # -- ports of mode host

    def publish(self, sandbox: str, ports: Collection[LocalPort], name: str = "") -> tuple[LocalPort, ...]:
        chosen = self._ports.publish(sandbox, ports, name)
        self._book.publish(sandbox, [self._host_port(port) for port in chosen])
        self._ports.retry()
        self._soon()
        return chosen

    def published(self, sandbox: str) -> tuple[LocalPort, ...]:
        """The ports of mode host that it has now."""
        return self._ports.host.get(sandbox, ())

    def _host_port(self, port: LocalPort) -> HostPort:
        address = ipaddress.ip_address(port.address)
        network = next((name for name, subnet in self._subnets.items() if address in subnet), "")
        prefix6 = self._book.prefix6_of(network)
        return HostPort(port.protocol, port.published, port.target, port.address, port.host_ip, prefix6)

    # -- who is held

    def call(self, link: str, protocol: str, address: str, port: int, caller: str) -> None:
        """Somebody sends a first packet."""
        self._holding.called(self._book.called(link, protocol, address, port), caller)

    async def held(self, beyond: Mapping[str, int]) -> Mapping[str, int]:
        return await self._holding.changed(beyond)

    # -- the rest

    async def traffic(self) -> tuple[Traffic, ...]:
        """Nobody sends anything: every count is zero."""
        rows = self._book.rows()
        self._book.read(rows)
        self._soon()
        return _uncounted(rows)

    async def load(self) -> tuple[Traffic, ...]:
        return _uncounted(self._book.known_rows())

    async def repair(self) -> tuple[str, ...]:
        freed = self._ports.retry()
        if freed:
            self._soon()
        return freed

    async def close(self, *, remove: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ports.close()
        if remove:
            self.tables.clear()


def _uncounted(rows: Mapping[str, Row]) -> tuple[Traffic, ...]:
    return tuple(Traffic(row.service_id, row.service, row.replica, row.address) for row in dict.fromkeys(rows.values()))


def _named(message: EndpointsMessage) -> Iterable[str]:
    return dict.fromkeys((*message.removed, *(service.service_id for service in message.services)))


class _Holder(PortHolder):
    """Ports without sockets."""

    def __init__(self, taken: Collection[Port]) -> None:
        super().__init__()
        self._taken = taken

    def hold(self, port: Port, owner: str, name: str, *, must_exist: bool = False) -> None:
        held = self._holds.get(port)
        if held is not None and held.owner == owner:
            return
        other = self._holder_of(port) or (OTHER if port in self._taken else None)
        if other is not None:
            raise Conflict(f"{text(port)} of this node is taken by {other}")
        self._holds[port] = _Hold(owner, name, None)


class _Ports(PublishedPorts):
    def __init__(self, book: BalanceBook, say: Callable[[str, str, str], None], taken: Collection[Port]) -> None:
        super().__init__(book, say)
        self._holder = _Holder(taken)
