"""Merging what the controller sends into what the node must run, and the difference to what is there.

Rules: pure. A difference is taken only on top of the generation it was made from; whoever missed one asks for the whole
document again. A slot whose spec is not known is an error of the message, never silently skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.plan.network import NetworkWanted
from agent.plan.records import (
    Desired,
    Goal,
    Life,
    ReplicaId,
    Slot,
    WantedService,
    WantedSpec,
    WantedVolume,
)
from model.errors import ShoalError
from model.spec import Attachment, ServiceSpec


class DesiredMismatch(ShoalError):
    """The message cannot be applied to what we have: a whole document is needed."""

    code = "desired_mismatch"


@dataclass(frozen=True, slots=True)
class DesiredMessage:
    """One `Desired` of the wire, whole or a difference to `base_generation`."""

    generation: int
    whole: bool = True
    base_generation: int = 0
    services: tuple[WantedService, ...] = ()
    removed_services: tuple[str, ...] = ()
    specs: tuple[WantedSpec, ...] = ()
    networks: tuple[NetworkWanted, ...] = ()
    removed_networks: tuple[str, ...] = ()
    volumes: tuple[WantedVolume, ...] = ()


def merge(current: Desired, message: DesiredMessage) -> Desired:
    """What must run after `message`. Specs once received are kept: the controller sends each only once a session."""
    if not message.whole and message.base_generation != current.generation:
        raise DesiredMismatch(
            f"desired state {message.generation} builds on {message.base_generation}, but this node has {current.generation}"
        )
    services = {} if message.whole else {service.id: service for service in current.services}
    networks = {} if message.whole else {network.name: network for network in current.networks}
    volumes = {} if message.whole else {volume.name: volume for volume in current.volumes}
    for gone in message.removed_services:
        services.pop(gone, None)
    for gone in message.removed_networks:
        networks.pop(gone, None)
    services |= {service.id: service for service in message.services}
    networks |= {network.name: network for network in message.networks}
    volumes |= {volume.name: volume for volume in message.volumes}
    specs = {(spec.service_id, spec.version): spec for spec in (*current.specs, *message.specs)}
    _check_specs(services.values(), specs)
    return Desired(
        generation=message.generation,
        services=tuple(services[key] for key in sorted(services)),
        specs=tuple(specs[key] for key in sorted(specs)),
        networks=tuple(networks[key] for key in sorted(networks)),
        volumes=tuple(volumes[key] for key in sorted(volumes)),
    )


def _check_specs(services: Iterable[WantedService], specs: Mapping[tuple[str, int], WantedSpec]) -> None:
    for service in services:
        for slot in service.slots:
            if (service.id, slot.version) not in specs:
                raise DesiredMismatch(f"service {service.name}: the spec of version {slot.version} was never sent")


def used_specs(desired: Desired) -> Desired:
    """`desired` without the specs no slot names: what a new session begins with."""
    used = {(service.id, slot.version) for service in desired.services for slot in service.slots}
    return Desired(
        desired.generation,
        desired.services,
        tuple(spec for spec in desired.specs if (spec.service_id, spec.version) in used),
        desired.networks,
        desired.volumes,
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """`begin`: lives that are not there yet; `goals`: lives that want something else from now on; `networks`: lives, also those
    of `begin`, that are to be attached to something else than was known."""

    begin: tuple[tuple[ReplicaId, ServiceSpec, Goal], ...] = ()
    goals: tuple[tuple[ReplicaId, Goal], ...] = ()
    networks: tuple[tuple[ReplicaId, tuple[Attachment, ...] | None], ...] = ()


def changes(desired: Desired, lives: Mapping[ReplicaId, Life]) -> Changes:
    """What must change for `lives` to become `desired`; empty when they agree already."""
    specs = {(spec.service_id, spec.version): spec.spec for spec in desired.specs}
    wanted: dict[ReplicaId, tuple[ServiceSpec, Goal, tuple[Attachment, ...] | None]] = {}
    for service in desired.services:
        goal: Goal = "stop" if service.stopped else "run"
        for slot in service.slots:
            wanted[replica_id(service.id, slot)] = (specs[service.id, slot.version], goal, service.networks)
    begin = tuple((key, spec, goal) for key, (spec, goal, _) in wanted.items() if key not in lives)
    networks = [(key, wanted[key][2]) for key, _, _ in begin if wanted[key][2] is not None]
    goals: list[tuple[ReplicaId, Goal]] = []
    for key, life in lives.items():
        row = wanted.get(key)
        goal = row[1] if row is not None else "remove"
        if goal != life.goal:
            goals.append((key, goal))
        if row is not None and row[2] != life.networks:
            networks.append((key, row[2]))
    return Changes(begin, tuple(goals), tuple(networks))


def replica_id(service_id: str, slot: Slot) -> ReplicaId:
    return ReplicaId(service_id, slot.slot, slot.created_ms, slot.version)


def replica_name(spec: ServiceSpec, slot: int, node: str) -> str:
    """The replica's name as people write it: `shop_web.3`, `shop_agent.n1` (global), or a single container's own name."""
    if spec.single:
        return spec.name
    return f"{spec.name}.{node if spec.mode in ('global', 'global-job') and slot == 0 else slot}"
