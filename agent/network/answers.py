"""The answers of a node's name server: who asks, which names that one has, and what is said on the wire.

Rules: everything is in memory, nothing waits. A container is known by its source address and has the names of all its
networks, in their order, its links first; whoever else asks has those of the network asked on. Answers are kept until anything
changes. Plain questions are answered by agent/plan/dns_wire.py, all others by dnslib.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.plan import dns_wire
from agent.plan.dns_wire import AAAA, ANY, NXDOMAIN, PTR, SERVFAIL, SRV, TCP_BYTES_MAX, TTL_S, UDP_BYTES_MAX, A, Question
from agent.plan.names import Client, EndpointName, in_turn, is_address
from agent.plan.network import LOCAL_BRIDGE
from agent.plan.zone import Found, Zone, embedded_in, reversed_address, service_asked
from model.spec import Pairs

if TYPE_CHECKING:
    from dnslib import DNSRecord

KEPT_MAX: Final = 2000
_UNUSUAL: Final = frozenset({PTR, SRV, ANY})
_MAPPED: Final = "::ffff:"
_NOBODY: Final = Client("")


@dataclass(slots=True)
class _Kept:
    """The records of one answer; each time they are told from another one on, so that callers who take the first are spread."""

    rows: tuple[bytes, ...]
    turn: int

    def next(self) -> bytes:
        self.turn += 1
        cut = self.turn % len(self.rows) if self.rows else 0
        return b"".join((*self.rows[cut:], *self.rows[:cut]))


@dataclass(slots=True)
class Scope:
    """What one asker has the names of. `links`: name in lower case -> what it stands for."""

    networks: tuple[str, ...]
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)
    name: str = ""
    """Its own, in lower case."""
    addresses: Pairs = ()
    resolvers: tuple[str, ...] = ()
    kept: dict[tuple[str, int], _Kept] = field(default_factory=dict)
    age: int = -1


class Zones:
    """The networks' names and the node's containers; `changed` after a zone was changed in place."""

    def __init__(self, random_below: Callable[[int], int] = random.randrange) -> None:
        self._zones: dict[str, Zone] = {}
        self._internal: frozenset[str] = frozenset()
        self._clients: dict[str, Client] = {}
        self._scopes: dict[str, Scope] = {}
        self._by_address: dict[str, Scope] = {}
        self._by_network: dict[str, Scope] = {}
        self._age = 0
        self._turn = 0
        self._random_below = random_below

    def set(self, network: str, zone: Zone | None) -> None:
        if zone is None:
            self._zones.pop(network, None)
            self._by_network.pop(network, None)
        else:
            self._zones[network] = zone
        self.changed()

    def changed(self) -> None:
        self._age += 1

    def internal(self, networks: Collection[str]) -> None:
        """The networks without a way out."""
        self._internal = frozenset(networks)

    def client(self, sandbox: str, client: Client | None) -> None:
        """Who asks from which addresses, for one container of this node; None: it is gone."""
        before = self._scopes.pop(sandbox, None)
        for _, address in self._clients.pop(sandbox, _NOBODY).addresses:
            if self._by_address.get(address) is before:  # else somebody has it already
                self._by_address.pop(address, None)
        if client is not None:
            scope = self._scopes[sandbox] = scope_of(client)
            self._clients[sandbox] = client
            self._by_address.update({address: scope for _, address in client.addresses})
        self.changed()

    def way_out(self, network: str, source: str) -> Sequence[str] | None:
        """Whom the asker's questions about other names go to: None nobody, empty the node's resolvers."""
        scope = self._scope(network, source)
        return None if self._internal.issuperset(scope.networks) else scope.resolvers

    def answer(self, network: str, question: bytes, udp: bool, source: str = "") -> bytes | None:
        """The answer on the wire; None when the question is not about our names. Raises ValueError for what is no question."""
        scope = self._scope(network, source)
        asked = dns_wire.read(question)
        if asked is None or asked.kind in _UNUSUAL or asked.name.startswith("_"):
            return self.unusual(scope, question, udp)
        kept = self._kept(scope, asked)
        if kept is None:
            return dns_wire.refusal(question, asked.end, NXDOMAIN, ours=True) if is_address(asked.name) else None
        limit = asked.udp_bytes if udp else TCP_BYTES_MAX
        return dns_wire.answer(question, asked.end, kept.next(), len(kept.rows[0]) if kept.rows else 0, limit)

    def refusal(self, question: bytes, *, nothing: bool) -> bytes | None:
        """NXDOMAIN (`nothing`: there is nobody else to ask) or SERVFAIL (nobody answered)."""
        code = NXDOMAIN if nothing else SERVFAIL
        if asked := dns_wire.read(question):
            return dns_wire.refusal(question, asked.end, code, ours=False)
        try:
            reply = _parsed(question).reply(ra=1, aa=0)
            reply.header.rcode = code
            return bytes(reply.pack())
        except ValueError:
            return None

    # ---- who asks

    def _scope(self, network: str, source: str) -> Scope:
        found = self._by_address.get(source) or (self._scope6(source) if ":" in source else None)
        if found is None:
            found = self._by_network.get(network) or self._by_network.setdefault(network, Scope((network,)))
        return found

    def _scope6(self, source: str) -> Scope | None:
        if source.startswith(_MAPPED):
            return self._by_address.get(source.removeprefix(_MAPPED))
        try:
            found = self._by_address.get(embedded_in(source.partition("%")[0]))
        except ValueError:
            return None
        zones = [self._zones[name] for name in found.networks if name in self._zones] if found else []
        return found if any(zone.has6(source) for zone in zones) else None

    # ---- which names that one has

    def find(self, scope: Scope, name: str) -> Found | None:
        """The first that the name means to the asker. A link whose target is away keeps its name: nobody else is asked."""
        targets = scope.links.get(name, ())
        for target in targets:
            if (found := self._target(scope, target)) is not None:
                return found
        found = self._in_zones(scope, name)
        if targets or name != scope.name or (found is not None and found.addresses):
            return Found() if targets else found
        return self._itself(scope) or found

    def _itself(self, scope: Scope) -> Found | None:
        """The asker, which has its name from its first instruction on: the controller may not have told of it yet."""
        for network, address in scope.addresses:
            if network != LOCAL_BRIDGE:
                zone = self._zones.get(network)
                return Found((address,), (), zone.prefix6 if zone is not None else "")
        return None

    def _target(self, scope: Scope, target: str) -> Found | None:
        found = self._in_zones(scope, target)
        if found is None and LOCAL_BRIDGE in scope.networks:
            rows = [row for client in self._clients.values() if client.name == target for row in client.addresses]
            addresses = tuple(address for network, address in rows if network == LOCAL_BRIDGE)
            return Found(addresses) if addresses else None
        return found

    def _in_zones(self, scope: Scope, name: str) -> Found | None:
        for network in scope.networks:
            zone = self._zones.get(network)
            if zone is not None and (found := zone.find(name)) is not None:
                return found
        return None

    def _kept(self, scope: Scope, asked: Question) -> _Kept | None:
        if scope.age != self._age or len(scope.kept) >= KEPT_MAX:
            scope.kept.clear()
            scope.age = self._age
        kept = scope.kept.get((asked.name, asked.kind))
        if kept is None and (found := self.find(scope, asked.name)) is not None:
            addresses = found.addresses if asked.kind == A else found.addresses6() if asked.kind == AAAA else ()
            kept = _Kept(dns_wire.rows(asked.kind, addresses), self._random_below(len(addresses)) if addresses else 0)
            scope.kept[asked.name, asked.kind] = kept
        return kept

    # ---- unusual questions

    def unusual(self, scope: Scope, question: bytes, udp: bool) -> bytes | None:
        """As `answer`, for every question there is."""
        from dnslib import PTR as Pointer
        from dnslib import QTYPE, RR

        asked = _parsed(question)
        if asked.header.qr or asked.header.opcode or len(asked.questions) != 1:
            raise ValueError("not a DNS question")
        name, kind = str(asked.q.qname), asked.q.qtype
        reply = asked.reply(ra=1, aa=1)
        reply.header.ad = 0
        found = self.find(scope, name.rstrip(".").lower())
        if kind == PTR and (owner := self._owner(scope, name)):
            reply.add_answer(RR(name, QTYPE.PTR, rdata=Pointer(owner), ttl=TTL_S))
        elif found is not None:
            self._turn += 1
            for address in in_turn(found.addresses, self._turn) if kind in (A, ANY) else ():
                reply.add_answer(_address_record(name, address))
            for address in in_turn(found.addresses6(), self._turn) if kind in (AAAA, ANY) else ():
                reply.add_answer(_address_record(name, address))
        elif service := service_asked(name):
            behind = self.find(scope, service[0])
            if behind is None:
                return None
            if service[1]:
                self._add_services(reply, name, service[1], behind, wanted=kind in (SRV, ANY))
            else:
                reply.header.rcode = NXDOMAIN
        elif is_address(name):
            reply.header.rcode = NXDOMAIN
        else:
            return None
        return _packed(reply, asked, udp)

    def _owner(self, scope: Scope, name: str) -> str:
        address = reversed_address(name)
        zones = [self._zones[network] for network in scope.networks if network in self._zones]
        return next((owner for zone in zones if (owner := zone.name_of(address))), "")

    def _add_services(self, reply: DNSRecord, name: str, port: int, behind: Found, *, wanted: bool) -> None:
        from dnslib import QTYPE, RR
        from dnslib import SRV as Service

        for row in _replicas_in_turn(behind.replicas, self._turn) if wanted else ():
            reply.add_answer(RR(name, QTYPE.SRV, rdata=Service(0, 1, port, row.replica), ttl=TTL_S))
            for address in (row.address, *Found((row.address,), (), behind.prefix6).addresses6()):
                reply.add_ar(_address_record(row.replica, address))
        self._turn += 1


def scope_of(client: Client) -> Scope:
    links: dict[str, list[str]] = {}
    for target, alias in client.links:
        for name in (alias, target):
            links.setdefault(name.rstrip(".").lower(), []).append(target)
    networks = tuple(dict.fromkeys(network for network, _ in client.addresses))
    return Scope(networks, links, client.name.lower(), client.addresses, client.resolvers)


def _replicas_in_turn(rows: tuple[EndpointName, ...], turn: int) -> tuple[EndpointName, ...]:
    cut = turn % len(rows) if rows else 0
    return rows[cut:] + rows[:cut]


def _parsed(question: bytes) -> DNSRecord:
    """Raises ValueError, and nothing else, for what dnslib cannot read."""
    from dnslib import DNSRecord

    try:
        return DNSRecord.parse(question)
    except Exception as error:  # dnslib raises half a dozen kinds for malformed messages
        raise ValueError(f"not a DNS question: {error}") from error


def _address_record(name: str, address: str) -> object:
    from dnslib import AAAA as Address6
    from dnslib import QTYPE, RR
    from dnslib import A as Address

    if ":" in address:
        return RR(name, QTYPE.AAAA, rdata=Address6(address), ttl=TTL_S)
    return RR(name, QTYPE.A, rdata=Address(address), ttl=TTL_S)


def _packed(reply: DNSRecord, asked: DNSRecord, udp: bool) -> bytes:
    """The reply, cut to what the asker takes by UDP; it asks again by TCP if it wants all. Additional records go first."""
    sizes = [rr.rclass for rr in asked.ar if rr.rtype == dns_wire.OPT]
    room = min(max(dns_wire.PLAIN_UDP_BYTES, *sizes, 0), UDP_BYTES_MAX)
    limit = room if udp else TCP_BYTES_MAX
    data = bytes(reply.pack())
    if len(data) > limit and reply.ar:
        reply.ar = []
        data = bytes(reply.pack())
    while len(data) > limit and reply.rr:
        reply.rr = reply.rr[: len(reply.rr) * limit // len(data)]
        reply.header.tc = 1
        data = bytes(reply.pack())
    return data
