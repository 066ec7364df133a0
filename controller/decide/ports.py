"""Published ports: what services ask for, and who stands in whose way.

Rules: a port of mode ingress is every node's, so it is the cluster's only once; a port of mode host is taken on the replicas'
nodes only, so two services may ask for the same one (the scheduler keeps them apart). Containers that share the machine's
network, or have none, publish nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from model.documents import ServiceDoc, ServicePlanDoc
from model.spec import Port
from scheduler.ports import PortClaim, clash

if TYPE_CHECKING:
    from controller.decide.types import View

CHOSEN: Final = range(30_000, 32_768)
"""Published numbers the cluster chooses from. Nodes choose above."""
ETCD_PORTS: Final = (2379, 2380)
_SHARED: Final = frozenset({"host", "none"})


class Claim(NamedTuple):
    """One port somebody publishes."""

    port: PortClaim
    service: str
    ingress: bool


def ports_of(doc: ServiceDoc) -> tuple[Port, ...]:
    """What the service publishes."""
    ports = doc.spec.container.ports
    return () if ports and any(row.network in _SHARED for row in doc.attachments) else ports


def is_fixed(port: Port) -> bool:
    """Whether its published number stands in the spec."""
    return bool(port.published) and port.published_end in (0, port.published)


def claim_of(port: Port) -> PortClaim:
    return PortClaim(port.protocol, port.published, port.host_ip)


def host_claims(doc: ServiceDoc) -> tuple[PortClaim, ...]:
    """The ports that each replica takes of its node."""
    if not doc.spec.container.ports:
        return ()
    return tuple(claim_of(port) for port in ports_of(doc) if port.mode == "host" and is_fixed(port))


def ingress_ports(doc: ServiceDoc) -> list[Port]:
    if not doc.spec.container.ports:
        return []
    return [port for port in ports_of(doc) if port.mode == "ingress"]


def published(port: Port) -> str:
    """`8080->80/tcp`, with the address it is bound to when it is not every one; `*` where the node chooses the number."""
    number = f"{port.published}-{port.published_end}" if port.published and not is_fixed(port) else str(port.published or "*")
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{f'{host}:' if host else ''}{number}->{port.target}/{port.protocol}"


def port_clashes(view: View, docs: Sequence[ServiceDoc], gone: Collection[str] = ()) -> list[str]:
    """Why services that are about to be written cannot have their published ports, a line for each. `gone`: names of services
    that go with the same write."""
    if not any(doc.spec.container.ports for doc in docs):
        return []
    written = {doc.spec.name for doc in docs}
    taken: dict[tuple[str, int], list[Claim]] = {}
    for name, doc in view.services.items():
        if name not in written and name not in gone:
            _note(taken, _claims(doc, view.svcplans.get(name)))
    own = own_ports(view)
    lines: list[str] = []
    for doc in docs:
        mine = _claims(doc, view.svcplans.get(doc.spec.name))
        for claim in mine:
            lines += _own_lines(claim, own, view)
            rivals = taken.get((claim.port.protocol, claim.port.number), ())
            rival = next((row for row in rivals if _in_the_way(row, claim)), None)
            if rival is not None:
                lines.append(_line(claim, rival))
            _note(taken, [claim])
        lines += [_full(port, doc.spec.name) for port in ingress_ports(doc) if _is_full(port, doc.spec.name, taken)]
    return list(dict.fromkeys(lines))


def own_ports(view: View) -> list[tuple[PortClaim, str, str]]:
    """Ports of shoal itself on the nodes: (port, whose, node)."""
    rows: list[tuple[PortClaim, str, str]] = []
    hosts: dict[str, str] = {}
    for node in sorted(view.statuses.keys() & view.nodes.keys()):
        info = view.statuses[node].info
        host, number = host_port(info.address)
        hosts.update({text: node for text in (host, info.underlay) if text})
        if number:
            rows.append((PortClaim("tcp", number), "the agent", node))
    for document in view.controllers.values():
        for address in (document.api, document.dispatch):
            host, number = host_port(address)
            if number and host in hosts:
                rows.append((PortClaim("tcp", number), "the controller", hosts[host]))
                rows += [(PortClaim("tcp", etcd), "etcd", hosts[host]) for etcd in ETCD_PORTS]
    return list(dict.fromkeys(rows))


def host_port(address: str) -> tuple[str, int]:
    """`https://10.1.0.2:8443` or `10.1.0.2:7443` as host and number; 0 when there is none."""
    host, _, number = address.rpartition("//")[2].rpartition(":")
    return host.strip("[]"), int(number) if number.isdecimal() else 0


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


def _note(taken: dict[tuple[str, int], list[Claim]], claims: Iterable[Claim]) -> None:
    for claim in claims:
        taken.setdefault((claim.port.protocol, claim.port.number), []).append(claim)


def _in_the_way(one: Claim, other: Claim) -> bool:
    apart = not one.ingress and not other.ingress and one.service != other.service
    return not apart and clash(one.port, other.port)


def _is_full(port: Port, service: str, taken: Mapping[tuple[str, int], Sequence[Claim]]) -> bool:
    """Whether others have every number of the port's range."""
    numbers = () if not port.published or is_fixed(port) else range(port.published, port.published_end + 1)
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
