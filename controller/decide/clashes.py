"""Who stands in whose way: published ports of services that are about to be written, with both owners named. Pure.

Rules: only services that have one of the numbers are looked at, however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from controller.decide.index import index_of
from controller.decide.ports import claim_of, ingress_ports, is_fixed, own_ports, ports_of
from controller.decide.taken import Number
from controller.decide.types import View
from model.documents import ServiceDoc, ServicePlanDoc
from model.spec import Port
from scheduler.ports import PortClaim, clash


class Claim(NamedTuple):
    """One port somebody publishes."""

    port: PortClaim
    service: str
    ingress: bool


def port_clashes(view: View, docs: Sequence[ServiceDoc], gone: Collection[str] = ()) -> list[str]:
    """Why services that are about to be written cannot have their published ports, a line for each. `gone`: names of services
    that go with the same write."""
    if not any(doc.spec.container.ports for doc in docs):
        return []
    written = {doc.spec.name for doc in docs}
    claims = {doc.spec.name: _claims(doc, view.svcplans.get(doc.spec.name)) for doc in docs}
    taken: dict[Number, list[Claim]] = {}
    for name in _with_one_of(view, docs, claims.values()):
        if name not in written and name not in gone:
            _note(taken, _claims(view.services[name], view.svcplans.get(name)))
    own = own_ports(view)
    lines: list[str] = []
    for doc in docs:
        for claim in claims[doc.spec.name]:
            lines += _own_lines(claim, own, view)
            rivals = taken.get((claim.port.protocol, claim.port.number), ())
            rival = next((row for row in rivals if _in_the_way(row, claim)), None)
            if rival is not None:
                lines.append(_line(claim, rival))
            _note(taken, [claim])
        lines += [_full(port, doc.spec.name) for port in ingress_ports(doc) if _is_full(port, doc.spec.name, taken)]
    return list(dict.fromkeys(lines))


def _with_one_of(view: View, docs: Sequence[ServiceDoc], claims: Iterable[Sequence[Claim]]) -> list[str]:
    """Services that ask for, or were given, one of the numbers that are claimed or may be chosen; others are not looked at."""
    numbers = {(claim.port.protocol, claim.port.number): None for row in claims for claim in row}
    numbers.update(((port.protocol, number), None) for doc in docs for port in ingress_ports(doc) for number in _range(port))
    taken = index_of(view).taken(view)
    found = (name for key in numbers for table in (taken.asked, taken.numbers) for name in table.get(key, ()))
    return [name for name in dict.fromkeys(found) if name in view.services]


def _claims(doc: ServiceDoc, plan: ServicePlanDoc | None) -> list[Claim]:
    """What the service asks for by number, and the numbers it was given."""
    if not doc.spec.container.ports:
        return []
    name = doc.spec.name
    ports = ports_of(doc)
    claims = [Claim(claim_of(port), name, port.mode == "ingress") for port in ports if is_fixed(port)]
    if plan is not None and plan.id == doc.id:
        open_ones = {(port.target, port.protocol) for port in ports if port.mode == "ingress" and not is_fixed(port)}
        asked = {claim.port for claim in claims}
        chosen = [port for port in plan.ports if (port.target, port.protocol) in open_ones and claim_of(port) not in asked]
        claims += [Claim(claim_of(port), name, True) for port in chosen]
    return claims


def _note(taken: dict[Number, list[Claim]], claims: Iterable[Claim]) -> None:
    for claim in claims:
        taken.setdefault((claim.port.protocol, claim.port.number), []).append(claim)


def _in_the_way(one: Claim, other: Claim) -> bool:
    apart = not one.ingress and not other.ingress and one.service != other.service
    return not apart and clash(one.port, other.port)


def _range(port: Port) -> range:
    """The numbers that one may be chosen from, of a port that names a range."""
    return range(port.published, port.published_end + 1) if port.published and not is_fixed(port) else range(0)


def _is_full(port: Port, service: str, taken: Mapping[Number, Sequence[Claim]]) -> bool:
    """Whether others have every number of the port's range."""
    numbers = _range(port)
    others = (any(row.service != service for row in taken.get((port.protocol, number), ())) for number in numbers)
    return bool(numbers) and all(others)


def _full(port: Port, service: str) -> str:
    numbers = f"{port.published}-{port.published_end}/{port.protocol}"
    return f"ports {numbers} are all published already: {service} gets none of them for its {port.target}"


def _line(claim: Claim, rival: Claim) -> str:
    if rival.service == claim.service:
        return f"port {claim.port.text} is published twice by {claim.service}: once is enough"
    return f"port {claim.port.text} is published by {rival.service} already: {claim.service} cannot have it"


def _own_lines(claim: Claim, own: Sequence[tuple[PortClaim, str, str]], view: View) -> list[str]:
    """Ingress takes the port on every node; a replica with a port of the node needs one node where it is free."""
    rows = [(whose, node) for port, whose, node in own if clash(port, claim.port)]
    if not rows or (not claim.ingress and len({node for _, node in rows}) < len(view.nodes)):
        return []
    whose, node = rows[0]
    return [f"port {claim.port.text} is that of {whose} on {node}: {claim.service} cannot have it"]
