"""What applying or removing a stack changes, as documents: used by `apply` and, without writing, by `plan`.

Rules:
- A service gets a new version only when `spec.container` changed; everything else changes without touching a container.
- `apply` sets the scale to `deploy.replicas`, unless the service scales itself or did (scales.py).
- Volumes are never removed by `apply`, networks only when no other service is on them. What is another
  stack's is refused.
- What `network connect` and `disconnect` did to a service stays until its containers are replaced by another version.
- External networks must be there, and are neither made, changed nor removed.
- Applied twice, the second time changes nothing. Which digest an image stands for is found out before (pinning.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from controller.decide import scales
from controller.decide.attached import UNPLANNED, crowded, networks_of
from controller.decide.clashes import port_clashes
from controller.decide.nets import subnet_problem
from controller.decide.registry_auth import Keep, as_before
from controller.decide.types import Settings, View
from controller.decide.wording import counted, listed, too_many
from model.documents import NetworkDoc, ServiceDoc, StackDoc, VolumeDoc, key
from model.errors import BadInput, Conflict
from model.spec import NetworkSpec, ServiceSpec, StackSpec, VolumeSpec
from model.spec_check import network_problems, service_problems

Action = Literal["create", "update", "remove", "scale", "none"]
Kind = Literal["service", "network", "volume"]


@dataclass(frozen=True, slots=True)
class Change:
    """One line of `plan`. `fields`: what differs, as in the file's service."""

    action: Action
    kind: Kind
    name: str
    fields: tuple[str, ...] = ()
    sentence: str = ""


@dataclass(slots=True)
class StackChanges:
    """`deletes`: store keys. `stack` None: nothing to write about the stack itself."""

    changes: list[Change] = field(default_factory=list)
    services: list[ServiceDoc] = field(default_factory=list)
    networks: list[NetworkDoc] = field(default_factory=list)
    volumes: list[VolumeDoc] = field(default_factory=list)
    stack: StackDoc | None = None
    deletes: list[str] = field(default_factory=list)

    def empty(self) -> bool:
        return not (self.services or self.networks or self.volumes or self.stack or self.deletes)


def diff_stack(
    view: View,
    wanted: StackSpec,
    ids: Callable[[], str],
    now_ms: int,
    prune: bool = True,
    settings: Settings | None = None,
    keep: Keep = as_before,
    same_bytes: Collection[str] = (),
) -> StackChanges:
    """From what is to what the file says. `ids` gives a new id for each new document. With `settings` new networks' subnets are
    compared with what is taken. `keep`: the sealed credentials of each service. `same_bytes`: services whose
    containers run already what their image is pinned to for the first time.

    Raises BadInput (something named is missing or malformed) or Conflict (something is another's: a name, port or subnet).
    """
    _check(view, wanted)
    found = StackChanges()
    for network in wanted.networks:
        if not network.external:
            _diff_network(view, network, ids, now_ms, found)
    for volume in wanted.volumes:
        if not volume.external:
            _diff_volume(view, volume, ids, now_ms, found)
    for service in wanted.services:
        _diff_service(view, service, ids, now_ms, found, keep, service.name in same_bytes)
    names = {service.name for service in wanted.services}
    gone = [name for name in _services_of(view, wanted.name) if name not in names] if prune else []
    for name in gone:
        found.changes.append(Change("remove", "service", name, (), f"service {name} is no longer in the file: removed"))
        found.deletes.append(key("services", name))
    _drop_networks(view, wanted.name, {network.name for network in wanted.networks}, {*gone}, found)
    clashes = port_clashes(view, found.services, gone) + _subnet_clashes(view, found, settings)
    if clashes:
        raise Conflict("; ".join(clashes))
    _write_stack(view, wanted, gone, now_ms, found)
    return found


def _subnet_clashes(view: View, found: StackChanges, settings: Settings | None) -> list[str]:
    fresh = [doc.spec for doc in found.networks if doc.spec.name not in view.netplans]
    if settings is None or not fresh:
        return []
    after = replace(view, networks={**view.networks, **{doc.spec.name: doc for doc in found.networks}})
    return [why for spec in fresh if (why := subnet_problem(after, spec, settings))]


def remove_stack(view: View, name: str, volumes: bool = False) -> StackChanges:
    """Takes the stack's services and networks away, and its volumes when `volumes`. What others use stays, with a sentence."""
    found = StackChanges()
    gone = _services_of(view, name)
    for service in gone:
        found.changes.append(Change("remove", "service", service, (), f"service {service} is removed"))
        found.deletes.append(key("services", service))
    _drop_networks(view, name, set(), set(gone), found)
    for volume in sorted(volume for volume, doc in view.volumes.items() if volumes and doc.spec.stack == name):
        users = [other for other in _mounting(view, volume) if other not in gone]
        _drop(found, "volume", volume, users)
    if name in view.stacks:
        found.deletes.append(key("stacks", name))
    return found


def _check(view: View, wanted: StackSpec) -> None:
    problems = [
        f"network {n.name} is external and does not exist: create it with `shoal network create {n.name}`"
        for n in wanted.networks
        if n.external and n.name not in view.networks and n.name not in UNPLANNED
    ]
    problems += [problem for network in wanted.networks for problem in network_problems(network)]
    problems += [
        f"volume {v.name} is external and does not exist" for v in wanted.volumes if v.external and v.name not in view.volumes
    ]
    for service in wanted.services:
        problems += service_problems(service)
        if why := too_many(service.replicas, len(view.nodes)):
            problems.append(f"service {service.name}: {why}")
    if problems:
        raise BadInput(problems[0] if len(problems) == 1 else f"{problems[0]} (and {len(problems) - 1} more)", problems)
    others: list[str] = []
    owned: tuple[tuple[str, Any, Any], ...] = (
        ("service", wanted.services, view.services),
        ("network", wanted.networks, view.networks),
        ("volume", wanted.volumes, view.volumes),
    )
    for kind, specs, documents in owned:
        for spec in specs:
            doc = documents.get(spec.name)
            if doc is not None and not getattr(spec, "external", False) and doc.spec.stack != wanted.name:
                owner = f"belongs to stack {doc.spec.stack}" if doc.spec.stack else "belongs to no stack"
                others.append(f"{kind} {spec.name} exists and {owner}: rename it here or remove it there")
    if others:
        raise Conflict("; ".join(others))


def _diff_service(
    view: View, spec: ServiceSpec, ids: Callable[[], str], now_ms: int, found: StackChanges, keep: Keep, same_bytes: bool
) -> None:
    before, image = view.services.get(spec.name), spec.container.image
    if before is None:
        scale, _ = scales.applied(None, spec)
        made = ServiceDoc(ids(), spec, scale, 1, False, now_ms, now_ms)
        found.services.append(replace(made, registry_auth=keep(made.id, image, None)))
        size = f" with {counted(scale)}" if spec.mode.startswith("replicated") else ""
        found.changes.append(Change("create", "service", spec.name, (), f"service {spec.name} is created{size}"))
        return
    if before.spec.mode != spec.mode:
        raise Conflict(f"service {spec.name}: its mode cannot change from {before.spec.mode} to {spec.mode}: remove it first")
    scale, kept = scales.applied(before, spec)
    changed = differing(before.spec, spec, skip=("container", "replicas"))
    inside = differing(before.spec.container, spec.container, skip=("image_digest",) if same_bytes else ())
    inside = tuple(name for name in inside if name != "image_digest" or "image" not in inside)
    networks = None if inside else before.networks
    after = replace(before, spec=spec, scale=scale, version=before.version + bool(inside), stopped=False, networks=networks)
    after = replace(after, updated_ms=now_ms, kept_replicas=kept, registry_auth=keep(before.id, image, before))
    if replace(after, updated_ms=before.updated_ms) == before:
        found.changes.append(Change("none", "service", spec.name, (), f"service {spec.name} is unchanged"))
        return
    if problems := crowded(after):
        raise BadInput(problems[0], problems)
    found.services.append(after)
    found.changes.append(_service_change(before, after, inside + changed))


def _service_change(before: ServiceDoc, after: ServiceDoc, changed: tuple[str, ...]) -> Change:
    name, said = after.spec.name, []
    if after.version != before.version:
        verb = "is" if after.scale == 1 else "are"
        said.append(f"{listed(changed)} changed, its {counted(after.scale)} {verb} replaced by version {after.version}")
    elif changed:
        said.append(f"{listed(changed)} changed, no container is restarted")
    if after.scale != before.scale:
        said.append(f"scaled from {before.scale} to {after.scale}")
    if before.stopped:
        said.append("started again")
    if after.registry_auth != before.registry_auth and after.version == before.version:
        said.append("credentials for its registry changed, no container is restarted")
    if not changed and after.spec.container != before.spec.container:
        said.append("pinned to what its containers run")
    rest = (*changed, *(["replicas"] if after.scale != before.scale else []))
    action: Action = "scale" if not changed and after.scale != before.scale and not before.stopped else "update"
    return Change(action, "service", name, rest, f"service {name}: {'; '.join(said) or 'updated'}")


def differing(old: Any, new: Any, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the fields in which two records of the same class differ."""
    return tuple(f.name for f in fields(old) if f.name not in skip and getattr(old, f.name) != getattr(new, f.name))


def _diff_network(view: View, spec: NetworkSpec, ids: Callable[[], str], now_ms: int, found: StackChanges) -> None:
    before = view.networks.get(spec.name)
    if before is None:
        found.networks.append(NetworkDoc(ids(), spec, now_ms))
        found.changes.append(Change("create", "network", spec.name, (), f"network {spec.name} is created"))
        return
    changed = differing(before.spec, spec)
    if not changed:
        found.changes.append(Change("none", "network", spec.name, (), f"network {spec.name} is unchanged"))
        return
    hard = [name for name in changed if name not in ("labels", "attachable")]
    if hard and spec.name in view.netplans:
        raise Conflict(f"network {spec.name}: {listed(hard)} cannot change while it is in use: remove the stack first")
    found.networks.append(replace(before, spec=spec))
    found.changes.append(Change("update", "network", spec.name, changed, f"network {spec.name}: {listed(changed)} changed"))


def _diff_volume(view: View, spec: VolumeSpec, ids: Callable[[], str], now_ms: int, found: StackChanges) -> None:
    before = view.volumes.get(spec.name)
    if before is None:
        found.volumes.append(VolumeDoc(ids(), spec, now_ms))
        found.changes.append(Change("create", "volume", spec.name, (), f"volume {spec.name} is created"))
        return
    changed = differing(before.spec, spec)
    if not changed:
        found.changes.append(Change("none", "volume", spec.name, (), f"volume {spec.name} is unchanged"))
        return
    hard = [name for name in changed if name != "labels"]
    if hard:
        raise Conflict(f"volume {spec.name}: {listed(hard)} of an existing volume cannot change: remove the volume first")
    found.volumes.append(replace(before, spec=spec))
    found.changes.append(Change("update", "volume", spec.name, changed, f"volume {spec.name}: {listed(changed)} changed"))


def _drop_networks(view: View, stack: str, keep: set[str], gone: set[str], found: StackChanges) -> None:
    replaced = {doc.spec.name: doc for doc in found.services}
    staying = [replaced.get(name, doc) for name, doc in sorted(view.services.items()) if name not in gone]
    for name in sorted(name for name, doc in view.networks.items() if doc.spec.stack == stack and name not in keep):
        _drop(found, "network", name, [doc.spec.name for doc in staying if name in networks_of(doc)])


def _drop(found: StackChanges, kind: Kind, name: str, users: list[str]) -> None:
    if users:
        found.changes.append(Change("none", kind, name, (), f"{kind} {name} is kept: used by {listed(users)}"))
        return
    found.changes.append(Change("remove", kind, name, (), f"{kind} {name} is removed"))
    found.deletes.append(key(f"{kind}s", name))


def _write_stack(view: View, wanted: StackSpec, gone: list[str], now_ms: int, found: StackChanges) -> None:
    before = view.stacks.get(wanted.name)
    kept = {*_services_of(view, wanted.name)} - {*gone}
    dropped = {*found.deletes}
    after = StackDoc(
        wanted.name,
        tuple(sorted(kept | {service.name for service in wanted.services})),
        _owned(view.networks, wanted.name, wanted.networks, "networks", dropped),
        _owned(view.volumes, wanted.name, wanted.volumes, "volumes", dropped),
        before.created_ms if before else now_ms,
        now_ms,
    )
    if before is None or not found.empty() or replace(after, updated_ms=before.updated_ms) != before:
        found.stack = after


def _owned(documents: Any, stack: str, wanted: Any, kind: str, dropped: set[str]) -> tuple[str, ...]:
    """Full names of the stack's networks or volumes after the change."""
    names = {name for name, doc in documents.items() if doc.spec.stack == stack and key(kind, name) not in dropped}
    return tuple(sorted(names | {spec.name for spec in wanted if not spec.external}))


def _services_of(view: View, stack: str) -> list[str]:
    return sorted(name for name, doc in view.services.items() if doc.spec.stack == stack)


def _mounting(view: View, volume: str) -> list[str]:
    return sorted(
        name
        for name, doc in view.services.items()
        if any(mount.type == "volume" and mount.source == volume for mount in doc.spec.container.mounts)
    )
