"""Published ports: what services ask for, and which shoal itself needs.

Rules: a port of mode ingress is every node's, so it is the cluster's only once; a port of mode host is taken on the replicas'
nodes only, so two services may ask for the same one (the scheduler keeps them apart). Containers that share the machine's
network, or have none, publish nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from model.documents import ReplicaStatus, ServiceDoc
from model.spec import Port
from scheduler.ports import PortClaim

if TYPE_CHECKING:
    from controller.decide.types import View

CHOSEN: Final = range(30_000, 32_768)
"""Published numbers the cluster chooses from. Nodes choose above."""
ETCD_PORTS: Final = (2379, 2380)
_SHARED: Final = frozenset({"host", "none"})


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


def told_claims(status: ReplicaStatus) -> Iterator[PortClaim]:
    """What a replica has of its node, as its agent says."""
    for target, published in status.ports:
        host_ip, number = host_port(published)
        if number:
            yield PortClaim(target.rpartition("/")[2], number, host_ip)


def ingress_ports(doc: ServiceDoc) -> list[Port]:
    if not doc.spec.container.ports:
        return []
    return [port for port in ports_of(doc) if port.mode == "ingress"]


def published(port: Port) -> str:
    """`8080->80/tcp`, with the address it is bound to when it is not every one; `*` where the node chooses the number."""
    number = f"{port.published}-{port.published_end}" if port.published and not is_fixed(port) else str(port.published or "*")
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{f'{host}:' if host else ''}{number}->{port.target}/{port.protocol}"


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
