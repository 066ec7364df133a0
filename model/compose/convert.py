"""A resolved Compose project -> the records shoal works with (`StackSpec`).

Rules: pure; the input was checked (`validate_resolved`). Full names are `<stack>_<name>` unless the file gives another
name. Every field Compose has a word for is carried; pairs are sorted, so equal projects give equal specs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from model.compose.autoscale import AUTOSCALE, METRICS, autoscale_of, metrics_of
from model.compose.check_network import DRIVERS, OWN_NETWORKS
from model.compose.convert_container import container_spec, number, pairs, reservations_of
from model.compose.loader import validate_resolved
from model.compose.names import Names
from model.compose.portwords import subnet_version
from model.compose.priority import PRIORITY, priority_of
from model.compose.problems import ComposeError
from model.compose.scalars import duration_s
from model.spec import (
    Mode,
    NetworkSpec,
    Placement,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
    VolumeSpec,
)

_Json = Mapping[str, Any]
READ: Final = (PRIORITY, AUTOSCALE, METRICS)
"""Keys that became fields of their own."""


def to_stack(project: dict[str, Any], *, stack: str) -> StackSpec:
    """The records of a resolved project under the name `stack`. Raises ComposeError when the project does not hold up."""
    faults = validate_resolved({"name": stack, **{key: value for key, value in project.items() if key != "name"}})
    if faults:
        raise ComposeError(faults)
    names = Names(stack, project)
    services = tuple(service_spec(names, name, service) for name, service in sorted((project.get("services") or {}).items()))
    return StackSpec(
        name=stack,
        services=services,
        networks=_networks(names, project, services),
        volumes=tuple(_volume(names, key, value) for key, value in sorted((project.get("volumes") or {}).items())),
    )


def service_spec(names: Names, name: str, service: _Json) -> ServiceSpec:
    """One service of a resolved project."""
    deploy: _Json = service.get("deploy") or {}
    mode = deploy.get("mode") or "replicated"
    replicas = deploy.get("replicas", service.get("scale", 1))
    return ServiceSpec(
        name=names.service(name),
        container=container_spec(names, service),
        stack=names.stack,
        mode=cast(Mode, mode),
        replicas=1 if mode.startswith("global") else replicas,
        placement=_placement(deploy.get("placement") or {}),
        reservations=reservations_of(service),
        update=_update(deploy.get("update_config") or {}),
        rollback=_update(deploy.get("rollback_config") or {}),
        labels=pairs(deploy.get("labels")),
        endpoint_mode=deploy.get("endpoint_mode") or "vip",
        extensions=_extensions(service, deploy),
        priority=priority_of(service),
        autoscale=autoscale_of(service),
        metrics=metrics_of(service),
    )


def _placement(placement: _Json) -> Placement:
    return Placement(
        constraints=tuple(placement.get("constraints") or ()),
        spread=tuple(entry["spread"] for entry in placement.get("preferences") or () if entry.get("spread")),
        max_replicas_per_node=placement.get("max_replicas_per_node") or 0,
    )


def _update(config: _Json) -> UpdateConfig:
    return UpdateConfig(
        parallelism=config.get("parallelism", 1),
        delay_s=duration_s(config.get("delay") or "0"),
        order=config.get("order") or "stop-first",
        failure_action=config.get("failure_action") or "pause",
        monitor_s=duration_s(config.get("monitor") or "5s"),
        max_failure_ratio=number(config.get("max_failure_ratio")),
    )


def _extensions(service: _Json, deploy: _Json) -> tuple[tuple[str, str], ...]:
    rows = (row for part in (deploy, service) for row in part.items())
    found = {key: value for key, value in rows if key.startswith("x-") and key not in READ}
    return tuple((key, json.dumps(value, sort_keys=True, separators=(",", ":"))) for key, value in sorted(found.items()))


def _networks(names: Names, project: _Json, services: tuple[ServiceSpec, ...]) -> tuple[NetworkSpec, ...]:
    found = {names.network(key): _network(names, key, value) for key, value in (project.get("networks") or {}).items()}
    found = {name: spec for name, spec in found.items() if not (spec.external and name in OWN_NETWORKS)}
    default = names.network("default")
    if any(attachment.network == default for service in services for attachment in service.container.networks):
        found.setdefault(default, NetworkSpec(default, stack=names.stack))
    return tuple(found[name] for name in sorted(found))


def _network(names: Names, key: str, network: _Json) -> NetworkSpec:
    external = bool(network.get("external"))
    six = bool(network.get("enable_ipv6"))
    driver = network.get("driver")
    return NetworkSpec(
        name=names.network(key),
        stack="" if external else names.stack,
        driver=driver if driver in DRIVERS else "overlay",
        subnet=_subnet(network, 4),
        subnet6=_subnet(network, 6) if six else "",
        internal=bool(network.get("internal")),
        external=external,
        enable_ipv6=six,
        options=pairs(network.get("driver_opts")),
        labels=pairs(network.get("labels")),
    )


def _subnet(network: _Json, version: int) -> str:
    """The first subnet of that IP version; empty when none is asked for."""
    rows = (network.get("ipam") or {}).get("config") or ()
    return next((row["subnet"] for row in rows if row.get("subnet") and subnet_version(row["subnet"]) == version), "")


def _volume(names: Names, key: str, volume: _Json) -> VolumeSpec:
    external = bool(volume.get("external"))
    return VolumeSpec(
        name=names.volume(key),
        stack="" if external else names.stack,
        driver=volume.get("driver") or "local",
        external=external,
        options=pairs(volume.get("driver_opts")),
        labels=pairs(volume.get("labels")),
    )
