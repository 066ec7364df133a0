"""Between the messages of protos/node.proto and the records of the plans.

Rules: conversion only. A spec that cannot be read is an error of the message that names the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agent.plan.desired import DesiredMessage, DesiredMismatch
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import NetworkWanted, PeerWanted
from agent.plan.records import Desired, ReplicaId, Slot, WantedService, WantedSpec, WantedVolume
from model import codec
from model.autoscale import MetricsPort
from model.documents import Event, ReplicaStatus
from model.spec import Attachment, Port, ServiceSpec
from protos import node_pb2 as pb

_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS: Final = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")


def desired_message(message: pb.Desired) -> DesiredMessage:
    """Raises DesiredMismatch when a spec cannot be read."""
    return DesiredMessage(
        generation=message.generation,
        whole=message.whole,
        base_generation=message.base_generation,
        services=tuple(_service(item) for item in message.services),
        removed_services=tuple(message.removed_services),
        specs=tuple(spec for item in message.services for spec in _specs(item)),
        networks=tuple(_network(item) for item in message.networks),
        removed_networks=tuple(message.removed_networks),
        volumes=tuple(_volume(item) for item in message.volumes),
    )


def _service(item: pb.Service) -> WantedService:
    slots = tuple(Slot(slot.slot, slot.version, slot.created_ms) for slot in item.slots)
    networks = tuple(Attachment(row.network, tuple(row.aliases), row.ipv4_address) for row in item.networks)
    metrics = MetricsPort(item.scrape.port, item.scrape.path) if item.HasField("scrape") else None
    held = networks if item.rewired else None
    return WantedService(item.service_id, item.name, slots, item.stopped, held, tuple(item.scrape.names), metrics)


def _specs(item: pb.Service) -> Iterable[WantedSpec]:
    for spec in item.specs:
        try:
            yield WantedSpec(item.service_id, spec.version, codec.decode(ServiceSpec, spec.json))
        except ValueError as error:
            raise DesiredMismatch(f"service {item.name}: spec of version {spec.version} cannot be read: {error}") from error


def _network(item: pb.Network) -> NetworkWanted:
    peers = tuple(PeerWanted(peer.node, peer.underlay, peer.slice, tuple(peer.addresses)) for peer in item.peers)
    return NetworkWanted(
        item.name, item.vni, item.subnet, item.slice, peers, item.internal, item.prefix6, tuple(item.addresses)
    )


def endpoints_message(message: pb.Endpoints) -> EndpointsMessage:
    services = tuple(_service_names(item) for item in message.services)
    return EndpointsMessage(message.network, message.whole, services, tuple(message.removed), message.number, message.prefix6)


def _service_names(item: pb.ServiceEndpoints) -> ServiceNames:
    endpoints = tuple(_endpoint(row) for row in item.endpoints if _ipv4(row.address))
    ports = tuple(
        Port(row.target, row.published, row.protocol or "tcp", "ingress", row.host_ip, local=row.local) for row in item.ports
    )
    return ServiceNames(item.service_id, item.name, tuple(item.names), endpoints, _ipv4(item.vip), ports, item.sleeping)


def _endpoint(row: pb.Endpoint) -> EndpointName:
    return EndpointName(row.replica, row.address, row.node, row.ready, tuple(row.names), row.network, _ipv4(row.underlay))


def _ipv4(text: str) -> str:
    """`text` if it is an IPv4 address, else empty: these become words of the kernel's rules, and some come from other nodes."""
    return text if _ADDRESS.fullmatch(text) else ""


def _volume(item: pb.Volume) -> WantedVolume:
    return WantedVolume(
        item.name, item.driver or "local", tuple(sorted(item.options.items())), tuple(sorted(item.labels.items()))
    )


def hello(node: str, node_id: str, info: bytes, desired: Desired, unreachable: str) -> pb.FromNode:
    """`desired` has only the specs that are in use. `unreachable`: the controller that was tried in vain."""
    known = [pb.SpecKey(service_id=spec.service_id, version=spec.version) for spec in desired.specs]
    return pb.FromNode(
        hello=pb.Hello(
            node=node, node_id=node_id, info=info, generation=desired.generation, known_specs=known, unreachable=unreachable
        )
    )


def replica(status: ReplicaStatus) -> pb.Replica:
    return pb.Replica(
        key=pb.ReplicaKey(service_id=status.service_id, slot=status.slot, created_ms=status.created_ms),
        version=status.version,
        state=status.state,
        since_ms=status.since_ms,
        container_id=status.container_id,
        restarts=status.restarts,
        exit_code=status.exit_code,
        message=status.message,
        addresses=[pb.Address(network=network, address=address) for network, address in status.addresses],
        health=status.health,
        ports=[pb.Port(target=target, published=published) for target, published in status.ports],
    )


def replica_key(key: ReplicaId) -> pb.ReplicaKey:
    return pb.ReplicaKey(service_id=key.service_id, slot=key.slot, created_ms=key.created_ms)


def event(item: Event) -> pb.NodeEvent:
    return pb.NodeEvent(at_ms=item.at_ms, kind=item.kind, about=item.about, sentence=item.sentence)
