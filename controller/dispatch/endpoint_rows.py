"""The endpoints of one service on each network, as rows out of one snapshot. Pure.

Rules: an endpoint is a replica that its node's document still names and that shall run (so that one that is being stopped gets
no new caller), that starts or runs, on a node that is not down. A service with published ports of mode ingress has endpoints
in the pseudo network `ingress` too: the addresses its replicas have on its first network that has a way out.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Final, NamedTuple

from controller.decide.attached import attachments_of, is_planned
from controller.loops.picture import Snapshot
from model.documents import (
    INGRESS,
    AssignmentDoc,
    NetworkDoc,
    ReplicaStatus,
    ServiceDoc,
    ServicePlanDoc,
    StatusDoc,
)
from model.spec import Port
from model.states import RUNNING, STARTING
from protos import node_pb2 as pb

REACHABLE: Final = frozenset({STARTING, RUNNING})


class Row(NamedTuple):
    """One endpoint. `network`, `underlay`: in `ingress` only."""

    replica: str
    address: str
    node: str
    ready: bool
    names: tuple[str, ...]
    network: str = ""
    underlay: str = ""


class Facts(NamedTuple):
    """A service on one network."""

    name: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    vip: str = ""
    ports: tuple[Port, ...] = ()
    may_sleep: bool = False

    def message(self, service_id: str) -> pb.ServiceEndpoints:
        return pb.ServiceEndpoints(
            service_id=service_id, name=self.name, names=self.names, endpoints=map(_endpoint, self.rows), vip=self.vip,
            ports=map(_port, self.ports), sleeping=self.may_sleep and not any(row.ready for row in self.rows),
        )  # fmt: skip


class Running(NamedTuple):
    """Replicas of one service that may be called on one node."""

    node: str
    underlay: str
    replicas: tuple[ReplicaStatus, ...]


def reachable(snapshot: Snapshot, node: str, told: Container[str]) -> dict[str, tuple[ReplicaStatus, ...]]:
    """Replicas of the node that may be called, by service id; of services in `told` only."""
    status: StatusDoc | None = snapshot.of("status").get(node)
    assignment: AssignmentDoc | None = snapshot.of("assignments").get(node)
    if status is None or assignment is None or not status.replicas or is_down(snapshot.of("health").get(node)):
        return {}
    found: dict[str, list[ReplicaStatus]] = {}
    for item in status.replicas:
        if item.service_id in told and item.state in REACHABLE and item.addresses:
            found.setdefault(item.service_id, []).append(item)
    if not found:
        return {}
    there: dict[str, tuple[ReplicaStatus, ...]] = {}
    for entry in assignment.services:
        rows = found.get(entry.service_id)
        if rows is not None:
            wanted = {(slot, run[1]) for run in entry.runs for slot in run[2:]}
            if kept := tuple(item for item in rows if (item.slot, item.created_ms) in wanted):
                there[entry.service_id] = kept
    return there


def is_told(snapshot: Snapshot, document: ServiceDoc) -> bool:
    """Whether anybody is told of the service: False: `facts_of` has nothing, however many replicas run."""
    on_networks = any(is_planned(item.network) for item in document.attachments)
    return on_networks or any(port.mode == "ingress" for port in _plan(snapshot, document).ports)


def _plan(snapshot: Snapshot, document: ServiceDoc) -> ServicePlanDoc:
    plan: ServicePlanDoc | None = snapshot.of("svcplans").get(document.spec.name)
    return plan if plan is not None and plan.id == document.id else ServicePlanDoc(document.id, document.spec.name)


def facts_of(snapshot: Snapshot, document: ServiceDoc, running: tuple[Running, ...]) -> dict[str, Facts]:
    """By network. `running`: sorted by node."""
    plan = _plan(snapshot, document)
    there = () if document.stopped else running
    vips = dict(plan.vips)
    may_sleep = document.spec.autoscale is not None and document.spec.autoscale.may_sleep and not document.stopped
    found = {
        item.network: Facts(
            document.spec.name, service_names(document, item.aliases), tuple(_rows(document, item.network, there)),
            vips.get(item.network, ""), may_sleep=may_sleep,
        )
        for item in document.attachments
        if is_planned(item.network)
    }  # fmt: skip
    ports = tuple(port for port in plan.ports if port.mode == "ingress" and port.published)
    if ports:
        ways = tuple(ingress_networks(document, snapshot.of("networks")))
        found[INGRESS] = Facts(document.spec.name, (), tuple(_ingress_rows(document, ways, there)), "", ports, may_sleep)
    return found


def ingress_networks(document: ServiceDoc, networks: Mapping[str, NetworkDoc]) -> Iterator[str]:
    """Those by which published ports reach the service's containers, the first one that a container has is taken."""
    for item in attachments_of(document):
        if item.network in ("host", "none") or ":" in item.network:
            continue
        known = networks.get(item.network)
        if known is None or not known.spec.internal:
            yield item.network


def _rows(document: ServiceDoc, network: str, running: tuple[Running, ...]) -> Iterator[Row]:
    for node, _, replicas in running:
        for status in replicas:
            replica = replica_of(document, status, node)
            for name, address in status.addresses:
                if name == network:
                    names = replica_names(document, replica, status)
                    yield Row(replica, address.partition("/")[0], node, is_ready(status), names)


def _ingress_rows(document: ServiceDoc, ways: tuple[str, ...], running: tuple[Running, ...]) -> Iterator[Row]:
    for node, underlay, replicas in running:
        for status in replicas:
            addresses = dict(status.addresses)
            network = next((name for name in ways if name in addresses), None)
            if network is not None:
                replica, address = replica_of(document, status, node), addresses[network].partition("/")[0]
                yield Row(replica, address, node, is_ready(status), (), network, underlay)


def is_ready(status: ReplicaStatus) -> bool:
    """It runs, and its health check, if it has one, succeeds."""
    return status.state == RUNNING and status.health in ("", "healthy")


def replica_of(document: ServiceDoc, status: ReplicaStatus, node: str) -> str:
    spec = document.spec
    return spec.name if spec.single else f"{spec.name}.{status.slot or node}"


def service_names(document: ServiceDoc, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """`shop_web`, `web`, `web.shop` and the aliases of this network; a single container only has its aliases as a service."""
    spec = document.spec
    short = spec.name.removeprefix(f"{spec.stack}_") if spec.stack else spec.name
    own = (spec.name, short, f"{short}.{spec.stack}") if spec.stack else (spec.name,)
    return tuple(dict.fromkeys((*own, *aliases)))


def replica_names(document: ServiceDoc, replica: str, status: ReplicaStatus) -> tuple[str, ...]:
    """`web.3` beside `shop_web.3`, the short container id, and the host name that was asked for."""
    spec = document.spec
    short = replica.removeprefix(f"{spec.stack}_") if spec.stack else replica
    found = (short, status.container_id[:12], spec.container.hostname)
    return tuple(dict.fromkeys(name for name in found if name and name != replica))


def is_down(health: object) -> bool:
    return getattr(health, "state", "") == "down"


def _endpoint(row: Row) -> pb.Endpoint:
    return pb.Endpoint(
        replica=row.replica, address=row.address, node=row.node, ready=row.ready, names=row.names, network=row.network,
        underlay=row.underlay,
    )  # fmt: skip


def _port(port: Port) -> pb.PublishedPort:
    return pb.PublishedPort(
        published=port.published, target=port.target, protocol=port.protocol, host_ip=port.host_ip, local=port.local
    )
