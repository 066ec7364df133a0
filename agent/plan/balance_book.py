"""What the node balances: taken from messages, plans and local replicas, given out as differences of the tables' content.

Rules: pure. Every change marks what it touches; `change` compares only that with what the tables hold, so its cost does not
depend on what else there is. Two that claim one frontend do not mix: the first by name has it. What an earlier agent left in
the tables stays until everybody who could claim it has spoken; a network this node takes no part in has nothing to say.
Addresses that are counted leave the tables after their counts were read once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from agent.plan.balance import (
    HELD,
    INGRESS,
    Backend,
    Frontend,
    HostPort,
    Member,
    Published,
    Row,
    Share,
    View,
    Vip,
    host_share,
    ingress_share,
    inside,
    network_share,
    rearranged,
)
from agent.plan.balance_heard import Heard
from agent.plan.names import EndpointsMessage, ServiceNames
from agent.plan.network import LinkPlan

FLOWS: Final = ("begun", "to", "from")
COUNTERS: Final = (*FLOWS, "opened", "ended")
UNREAD_MAX: Final = 4096
_HOST: Final = ""
_PLANS: Final = ("\0", "networks")

Owner = tuple[str, str]
Slots = tuple[Backend, ...]
Port = tuple[str, str, int]
"""(protocol, host address or empty, number)"""


@dataclass(frozen=True, slots=True)
class Move:
    """One frontend's slots before and after; None: the tables do not know it."""

    frontend: Frontend
    before: Slots | None
    after: Slots | None

    @property
    def lost(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports that get nothing by way of this frontend any more."""
        left = {(backend.address, backend.port) for backend in self.after or ()}
        before = () if self.before == HELD else self.before or ()
        return tuple(dict.fromkeys((b.address, b.port) for b in before if (b.address, b.port) not in left))


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction does. `fresh`: members that are there but begin anew (deleted and added)."""

    moves: tuple[Move, ...] = ()
    went: tuple[Member, ...] = ()
    came: tuple[Member, ...] = ()
    fresh: tuple[Member, ...] = ()


class BalanceBook:
    """The tables' wanted content (`slots`, `members`) and how it came about."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._known: dict[str, dict[str, ServiceNames]] = {}
        self._told6: dict[str, str] = {}
        self._whole: set[str] = set()
        self._plans: dict[str, LinkPlan] = {}
        self._planned = False
        """Whether the plans were told: none may be what is wanted, or be yet to come."""
        self.view = View(node, {}, {})
        self._shares: dict[Owner, Share] = {}
        self._claims: dict[Frontend, dict[Owner, Slots]] = {}
        self._needed: dict[Member, dict[Owner, bool]] = {}
        self._rows: dict[str, dict[Owner, Row]] = {}
        self._touched: dict[Frontend | Member, None] = {}
        self._inherited: dict[Frontend | Member, None] = {}
        self._again: dict[Member, None] = {}
        self._blocked: dict[Port, None] = {}
        self._ports_touched: dict[Port, None] = {}
        self._unread: dict[str, Row] = {}
        self._counting: dict[str, Row] = {}
        self.slots: dict[Frontend, Slots] = {}
        self.members: dict[Member, None] = {}

    # -- what comes in

    def inherit(self, slots: Mapping[Frontend, Slots], members: Iterable[Member]) -> None:
        """What the tables hold from an earlier agent."""
        self.slots |= slots
        self.members |= dict.fromkeys(members)
        self._inherited = dict.fromkeys([*self.slots, *self.members])

    def inherit_nothing(self) -> None:
        self.slots, self.members, self._inherited = {}, {}, {}

    def take(self, message: EndpointsMessage) -> None:
        known = self._known.setdefault(message.network, {})
        if self._told6.get(message.network, "") != message.prefix6:
            self._told6[message.network] = message.prefix6
            self._look(self._plans)
        gone = known.keys() - {s.service_id for s in message.services} if message.whole else set(message.removed)
        for service_id in sorted(gone):
            if known.pop(service_id, None):
                self._put((message.network, service_id), Share())
        for service in message.services:
            if known.get(service.service_id) == service:
                continue
            known[service.service_id] = service
            self._put((message.network, service.service_id), self._share(message.network, service))
        if message.whole:
            self._whole.add(message.network)
            self._settle()

    def networks(self, plans: Mapping[str, LinkPlan]) -> tuple[str, ...]:
        """The networks this node takes part in; gives those it no longer does, whose news are forgotten."""
        left = tuple(sorted(self._plans.keys() - plans.keys()))
        for network in left:
            for service_id in self._known.pop(network, {}):
                self._put((network, service_id), Share())
            self._told6.pop(network, None)
            self._whole.discard(network)
        self._planned = True
        self._look(plans)
        self._settle()
        return left

    def _look(self, plans: Mapping[str, LinkPlan]) -> None:
        """Reckon again what depends on networks that are seen differently now."""
        before, self._plans = self.view, dict(plans)
        prefix6 = {name: plan.prefix6 or self._told6.get(name, "") for name, plan in plans.items()}
        self.view = View(self._node, self._plans, prefix6)
        changed = {
            name
            for name in before.plans.keys() | plans.keys()
            if _seen(before.plans.get(name), before.prefix6) != _seen(plans.get(name), prefix6)
        }
        if not changed:
            return
        self._put(_PLANS, Share(members=frozenset(m for name, plan in plans.items() for m in inside(plan, prefix6[name]))))
        for network in sorted(changed):
            for service in self._known.get(network, {}).values():
                self._put((network, service.service_id), self._share(network, service))
        for service in self._known.get(INGRESS, {}).values():
            if any(endpoint.network in changed for endpoint in service.endpoints):
                self._put((INGRESS, service.service_id), self._share(INGRESS, service))

    def _share(self, network: str, service: ServiceNames) -> Share:
        return ingress_share(service, self.view) if network == INGRESS else network_share(service, network, self.view)

    def prefix6_of(self, network: str) -> str:
        return self.view.prefix6.get(network, "")

    def publish(self, sandbox: str, ports: Iterable[HostPort]) -> None:
        """All ports of mode host of one replica."""
        self._put((_HOST, sandbox), host_share(sandbox, ports))

    def ingress_ports(self) -> dict[Port, str]:
        """Ports of mode ingress whose claims have changed since the last call, with the service each belongs to now (empty:
        none)."""
        found = {}
        for port in self._ports_touched:
            claims = {**self._claims.get(_published(port, 4), {}), **self._claims.get(_published(port, 6), {})}
            owners = sorted(owner[1] for owner in claims if owner[0] == INGRESS)
            found[port] = self._known[INGRESS][owners[0]].name if owners else ""
        self._ports_touched = {}
        return found

    def block(self, port: Port, *, blocked: bool) -> None:
        """Whether this node cannot serve a port of mode ingress: somebody else has it."""
        if blocked != (port in self._blocked):
            self._touched |= dict.fromkeys((_published(port, 4), _published(port, 6)))
            if blocked:
                self._blocked[port] = None
            else:
                del self._blocked[port]

    @property
    def blocked(self) -> tuple[Port, ...]:
        return tuple(self._blocked)

    # -- claims

    def _put(self, owner: Owner, share: Share) -> None:
        before = self._shares.pop(owner, Share())
        if share != Share():
            self._shares[owner] = share
        for frontend in dict.fromkeys([*before.frontends, *share.frontends]):
            if before.frontends.get(frontend) != share.frontends.get(frontend):
                _claim(self._claims, frontend, owner, share.frontends.get(frontend))
                self._touched[frontend] = None
                if isinstance(frontend, Published) and owner[0] == INGRESS:
                    self._ports_touched[frontend.protocol, frontend.host_ip, frontend.published] = None
        for member in sorted(before.members ^ share.members):
            _claim(self._needed, member, owner, True if member in share.members else None)
            self._touched[member] = None
        for address in dict.fromkeys([*before.counted, *share.counted]):
            if before.counted.get(address) != share.counted.get(address):
                _claim(self._rows, address, owner, share.counted.get(address))
                self._count(address)

    def _count(self, address: str) -> None:
        """Begin, go on or end to count an address, by who claims it now."""
        claims, had = self._rows.get(address), self._counting.get(address)
        if claims:
            row = claims[max(claims)]
            self._counting[address] = row
            self._unread.pop(address, None)
            self._touched |= dict.fromkeys(counters(address))
            if had is not None and had.service_id and had.replica != row.replica:
                self._again |= dict.fromkeys(counters(address))
        elif had is not None:
            self._unread[address] = had
            while len(self._unread) > UNREAD_MAX:
                self.read([next(iter(self._unread))])

    def heard(self) -> Heard:
        return Heard(self.view.plans if self._planned else None, self._whole)

    def _settle(self) -> None:
        """What is inherited goes, but for what is claimed, once all who could claim it have spoken."""
        for item in self.heard().unclaimed(self._inherited) if self._inherited else ():
            del self._inherited[item]
            self._touched[item] = None

    # -- what goes out

    def change(self) -> Change:
        """From what the tables hold to what they should, as far as anything was touched; they are taken to hold it now."""
        moves: list[Move] = []
        went: list[Member] = []
        came: list[Member] = []
        fresh: list[Member] = []
        touched, self._touched = self._touched, {}
        for item in touched:
            if isinstance(item, Member):
                wanted, there = self._wants(item), item in self.members
                if wanted:
                    self._inherited.pop(item, None)
                elif item in self._inherited:
                    continue
                if wanted != there:
                    (came if wanted else went).append(item)
                elif wanted and item in self._again:
                    fresh.append(item)
            elif (move := self._move(item)) is not None:
                moves.append(move)
        self._again = {}
        for member in went:
            del self.members[member]
        self.members |= dict.fromkeys(came)
        return Change(tuple(moves), tuple(went), tuple(came), tuple(fresh))

    def _wants(self, member: Member) -> bool:
        if member.of.rstrip("6") in COUNTERS:
            return member.key in self._counting
        return member in self._needed

    def _move(self, frontend: Frontend) -> Move | None:
        claims, before = self._claims.get(frontend), self.slots.get(frontend)
        if claims:
            self._inherited.pop(frontend, None)
        elif frontend in self._inherited:
            return None
        owner = min(claims) if claims else None
        after: Slots | None = None
        if claims and owner and not (owner[0] == INGRESS and self._is_blocked(frontend)):
            after = rearranged(before or (), claims[owner])
        if after == () and isinstance(frontend, Vip):
            after = None
        if after == before:
            return None
        if after is None:
            self.slots.pop(frontend, None)
        else:
            self.slots[frontend] = after
        return Move(frontend, before, after)

    def _is_blocked(self, frontend: Frontend) -> bool:
        return isinstance(frontend, Published) and (frontend.protocol, frontend.host_ip, frontend.published) in self._blocked

    def called(self, link: str, protocol: str, address: str, port: int) -> str:
        """The id of the sleeping service that a packet which came in by `link` is for; empty: of none."""
        family = 6 if ":" in address else 4
        asked = (Vip(link, address), Published(protocol, port, address, family), Published(protocol, port, "", family))
        claims = (self._claims.get(frontend) for frontend in asked if self.slots.get(frontend) == HELD)
        return next((min(owners)[1] for owners in claims if owners), "")

    def sleeps(self, service_id: str) -> bool:
        return any(known[service_id].sleeping for known in self._known.values() if service_id in known)

    def rows(self) -> dict[str, Row]:
        """Addresses whose counts are in the tables, with whose they are."""
        return dict(self._counting)

    def known_rows(self) -> dict[str, Row]:
        """The same without those whose endpoint went, and without replicas that only publish ports of their own."""
        return {address: row for address, row in self._counting.items() if row.service_id and address not in self._unread}

    def read(self, addresses: Iterable[str]) -> None:
        """The counts of these were read: those whose endpoint went are counted no longer."""
        for address in addresses:
            if self._unread.pop(address, None):
                del self._counting[address]
                self._touched |= dict.fromkeys(counters(address))


def counters(address: str) -> tuple[Member, ...]:
    """The elements that count one address: new connections, what goes to it and comes from it, TCP that opened and ended."""
    family = "6" if ":" in address else ""
    return tuple(Member(f"{name}{family}", address) for name in COUNTERS)


K = TypeVar("K")
V = TypeVar("V")


def _published(port: Port, family: int) -> Published:
    protocol, host_ip, number = port
    return Published(protocol, number, host_ip, family)


def _claim(claims: dict[K, dict[Owner, V]], key: K, owner: Owner, value: V | None) -> None:
    """`owner` says `value` of `key` from now on; None: nothing any more."""
    if value is None:
        left = claims.get(key, {})
        left.pop(owner, None)
        if not left:
            claims.pop(key, None)
    else:
        claims.setdefault(key, {})[owner] = value


def _seen(plan: LinkPlan | None, prefix6: Mapping[str, str]) -> tuple[str, ...]:
    """What of a network's plan matters here."""
    return (plan.bridge, plan.vxlan, plan.subnet, prefix6.get(plan.name, "")) if plan else ()
