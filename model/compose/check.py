"""What must hold between the parts of a resolved project, and which of its fields shoal does not act on.

Rules: pure; every reference names something that is there, no circle of dependencies, no field says two things. Fields
are looked up in the one table (`fields`); each one that shoal leaves aside gives a named warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model.compose.autoscale import check_autoscale
from model.compose.check_network import (
    check_ingress,
    network_texts,
    service_network_texts,
    unsupported_network_words,
    unsupported_service_words,
)
from model.compose.convert_container import limits_of, reservations_of
from model.compose.fields import TOP
from model.compose.finish import RESOURCES, names_used
from model.compose.kinds import Field, ListOf, MapOf, Obj, Or
from model.compose.parts import MOUNT, MOUNT_OBJ
from model.compose.priority import check_priority
from model.compose.problems import Mark, Report, near, show
from model.compose.tree import Map, mark_of
from model.constraints import parse_constraint, parse_spread
from model.errors import BadInput
from model.image_ref import parse_image_ref
from model.node_words import kind_problem
from model.spec import GENERIC_MAX


def check_project(
    project: Mapping[str, Any],
    report: Report,
    *,
    complete: bool,
    disabled: tuple[str, ...] = (),
    known: Mapping[str, Any] | None = None,
) -> None:
    """Report what does not fit together. `complete`: empty images and mounts are faults, else warnings.

    `known` is the project before unused things were left out: names like a misspelt one are looked for there.
    """
    services: Mapping[str, Any] = project.get("services") or {}
    for name, service in services.items():
        if not isinstance(service, dict):
            continue
        at = f"services.{name}"
        _references(project, known or project, service, at, report)
        _dependencies(services, service, at, report, disabled)
        _contradictions(service, at, report)
        _generic_resources(service, at, report)
        _incomplete(service, at, mark_of(services, name), report, complete)
        _mount_targets(service, at, report)
        _readable(service, at, report, complete)
        check_ingress(service, at, report)
        check_priority(service, at, report)
        mode = (service.get("deploy") or {}).get("mode") or "replicated"
        check_autoscale(service, at, report, mode, reservations_of(service), limits_of(service))
    _circle(services, report)
    _resources(project, report, complete)
    for read, text, path, mark in network_texts(project):
        _read(read, text, path, mark, report, complete)


def _references(
    project: Mapping[str, Any], known: Mapping[str, Any], service: Mapping[str, Any], at: str, report: Report
) -> None:
    for section in RESOURCES:
        defined = project.get(section) or {}
        for key in names_used(section, service):
            if key not in defined and not (section == "networks" and key == "default" and not defined):
                expected = (
                    f"{section} has no {show(key)}{near(key, list(known.get(section) or ()))}: define it at the top of the file"
                )
                report.problem(f"{at}.{section}", expected, _place(service, section, key))


def _place(service: Mapping[str, Any], section: str, key: str) -> Mark:
    """Where a service names `key` of a section."""
    refs = service.get(section)
    if isinstance(refs, dict):
        return mark_of(refs, key)
    index = next((i for i, ref in enumerate(refs or ()) if isinstance(ref, dict) and ref.get("source") == key), None)
    return mark_of(service, section) if index is None else mark_of(refs, index)


def _dependencies(
    services: Mapping[str, Any], service: Mapping[str, Any], at: str, report: Report, disabled: tuple[str, ...]
) -> None:
    for name, entry in (service.get("depends_on") or {}).items():
        if name in services or not isinstance(entry, dict) or entry.get("required") is False:
            continue
        why = "is in a profile that is not chosen" if name in disabled else "is no service" + near(name, list(services))
        report.problem(f"{at}.depends_on.{name}", f"{show(name)} {why}", mark_of(service, "depends_on"))


_SAME = (
    ("cpus", ("limits", "cpus")),
    ("mem_limit", ("limits", "memory")),
    ("pids_limit", ("limits", "pids")),
    ("mem_reservation", ("reservations", "memory")),
)


def _contradictions(service: Mapping[str, Any], at: str, report: Report) -> None:
    if service.get("network_mode") and service.get("networks"):
        mark = mark_of(service, "network_mode")
        report.problem(f"{at}.network_mode", "cannot stand beside 'networks': write one of the two", mark)
    deploy = service.get("deploy") or {}
    for key, (group, field) in _SAME:
        other = ((deploy.get("resources") or {}).get(group) or {}).get(field)
        if service.get(key) is not None and other is not None and service[key] != other:
            message = f"found {show(service[key])}, but deploy.resources.{group}.{field} says {show(other)}"
            report.problem(f"{at}.{key}", message, mark_of(service, key))
    scale, replicas = service.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and scale != replicas:
        report.problem(f"{at}.scale", f"found {scale}, but deploy.replicas says {replicas}", mark_of(service, "scale"))
    health = service.get("healthcheck") or {}
    if health.get("disable") and health.get("test") not in (None, [], ["NONE"]):
        report.problem(f"{at}.healthcheck", "has both 'disable: true' and a 'test'", mark_of(service, "healthcheck"))


def _generic_resources(service: Mapping[str, Any], at: str, report: Report) -> None:
    asked = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    for index, entry in enumerate(asked.get("generic_resources") or ()):
        row = entry.get("discrete_resource_spec") or {}
        if not row.get("kind") or not 1 <= (row.get("value") or 0) <= GENERIC_MAX:
            where = f"{at}.deploy.resources.reservations.generic_resources[{index}]"
            message = f"expected a discrete_resource_spec with a kind and a value from 1 to {GENERIC_MAX:,}"
            report.problem(where, message, mark_of(asked["generic_resources"], index))
        elif problem := kind_problem(row["kind"]):
            where = f"{at}.deploy.resources.reservations.generic_resources[{index}].discrete_resource_spec.kind"
            report.problem(where, problem, mark_of(row, "kind"))
    for index, request in enumerate(asked.get("devices") or ()):
        if not any(request.get("capabilities") or ()):
            where = f"{at}.deploy.resources.reservations.devices[{index}].capabilities"
            report.problem(where, "expected at least one, such as gpu", mark_of(request, "capabilities"))


def _incomplete(service: Mapping[str, Any], at: str, mark: Mark, report: Report, complete: bool) -> None:
    """Fields an unset variable left empty: docker stack loads such templates, but nothing can run from them."""
    missing: list[tuple[str, str, Mark]] = []
    if not service.get("image") and ("image" in service or not service.get("build")) and "provider" not in service:
        missing.append((f"{at}.image", "names no image", mark_of(service, "image") if "image" in service else mark))
    elif complete and not service.get("image") and service.get("build"):
        report.problem(f"{at}.image", "names no image: `shoal apply` builds it and gives it a name", mark_of(service, "build"))
    for index, mount in enumerate(service.get("volumes") or ()):
        empty = [key for key in ("type", "target") if not mount.get(key)]
        missing.extend((f"{at}.volumes[{index}].{key}", "is empty", mark_of(mount, key)) for key in empty)
    for path, message, where in missing:
        if complete or (path.endswith("image") and "image" not in service):
            report.problem(path, message, where)
        else:
            report.warn("incomplete", path, message + ": the service cannot be started so", where)


def _mount_targets(service: Mapping[str, Any], at: str, report: Report) -> None:
    seen: dict[str, str] = {}
    places = [(f"{at}.volumes[{i}]", str(m.get("target") or "")) for i, m in enumerate(service.get("volumes") or ())]
    places += [(f"{at}.tmpfs[{i}]", text.split(":")[0]) for i, text in enumerate(service.get("tmpfs") or ())]
    for path, target in places:
        if target and target in seen:
            report.problem(path, f"{target} is already mounted by {seen[target]}", mark_of(service, "volumes"))
        if target and not target.startswith("/"):
            report.problem(path, f"the target {show(target)} is no absolute path", mark_of(service, "volumes"))
        seen.setdefault(target, path)


def _readable(service: Mapping[str, Any], at: str, report: Report, complete: bool) -> None:
    """The texts that only the scheduler and the image store read later: better told here, with their line. docker compose
    takes anything there, so a file is only warned about; what is to be applied has a fault."""
    for read, text, path, mark in (*_texts(service, at), *service_network_texts(service, at)):
        _read(read, text, path, mark, report, complete)


def _read(read: Callable[[str], object], text: str, path: str, mark: Mark, report: Report, complete: bool) -> None:
    try:
        read(text)
    except BadInput as error:
        if complete:
            report.problem(path, str(error), mark)
        else:
            report.warn("unusable", path, f"{error}: the service cannot be started so", mark)


def _texts(service: Mapping[str, Any], at: str) -> Iterator[tuple[Callable[[str], object], str, str, Mark]]:
    if service.get("image"):
        yield parse_image_ref, service["image"], f"{at}.image", mark_of(service, "image")
    at = f"{at}.deploy.placement"
    placement = (service.get("deploy") or {}).get("placement") or {}
    constraints = placement.get("constraints") or ()
    for index, text in enumerate(constraints):
        yield parse_constraint, text, f"{at}.constraints[{index}]", mark_of(constraints, index)
    for index, row in enumerate(placement.get("preferences") or ()):
        if row.get("spread"):
            yield parse_spread, row["spread"], f"{at}.preferences[{index}].spread", mark_of(row, "spread")


def _circle(services: Mapping[str, Any], report: Report) -> None:
    """Report one circle of depends_on, walking without recursion."""
    done: set[str] = set()
    for start in services:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, True)]
        while stack:
            name, entering = stack.pop()
            if not entering:
                path.pop()
                done.add(name)
            elif name in path:
                way = " -> ".join([*path[path.index(name) :], name])
                report.problem(f"services.{name}.depends_on", f"the services wait for each other in a circle: {way}")
                return
            elif name not in done:
                path.append(name)
                stack.append((name, False))
                after = (services.get(name) or {}).get("depends_on") or {}
                stack.extend((other, True) for other in reversed(list(after)) if other in services)


def _resources(project: Mapping[str, Any], report: Report, complete: bool) -> None:
    for section in ("secrets", "configs"):
        for name, value in (project.get(section) or {}).items():
            given = [key for key in ("file", "environment", "content") if value.get(key) is not None]
            mark = mark_of(project.get(section), name)
            if value.get("external") and given:
                report.problem(f"{section}.{name}", f"is external, so it cannot have '{given[0]}'", mark)
            elif len(given) > 1:
                report.problem(f"{section}.{name}", f"has both '{given[0]}' and '{given[1]}': write one of them", mark)
            elif not given and not value.get("external") and "driver" not in value:
                report.problem(f"{section}.{name}", "has no source: write file, environment or external", mark)
    for section in ("networks", "volumes"):
        for name, value in (project.get(section) or {}).items():
            extra = sorted(set(value) - {"name", "external", "ipam", "labels"} - {key for key in value if key[:2] == "x-"})
            mark = mark_of(project.get(section), name)
            if value.get("external") and extra:
                report.warn("ignored", f"{section}.{name}.{extra[0]}", "says nothing about an external one", mark)
            if "name" not in value:
                message = "is empty, so which one is meant is not known"
                if complete:
                    report.problem(f"{section}.{name}.name", message, mark)
                else:
                    report.warn("incomplete", f"{section}.{name}.name", message, mark)


def warn_unsupported(project: Map, report: Report) -> None:
    """A named warning for each field of the project that shoal leaves aside."""
    _walk(TOP, project, "", report)

    for name, service in (project.get("services") or {}).items():
        for key, value, why in (*_unsupported_values(service), *unsupported_service_words(service)):
            mark = mark_of(service, key.replace(".", "[").partition("[")[0])
            report.warn("unsupported", f"services.{name}.{key}", f"{show(value)} {why}", mark)
    for name, network in (project.get("networks") or {}).items():
        for key, message in unsupported_network_words(network):
            report.warn("unsupported", f"networks.{name}.{key}", message, mark_of(network, key.partition(".")[0]))


def _unsupported_values(service: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Values that shoal leaves aside although it acts on their field."""
    for key in ("pid", "ipc"):
        if ":" in str(service.get(key) or ""):
            yield key, service[key], "is not there: each container has its own"
    update = (service.get("deploy") or {}).get("update_config") or {}
    if update.get("failure_action") == "rollback":
        yield "deploy.update_config.failure_action", "rollback", "is taken as pause: apply the earlier file to go back"
    policy = service.get("pull_policy")
    if policy not in (None, "always", "never", "missing", "if_not_present", "build" if service.get("build") else None):
        yield "pull_policy", policy, "is taken as missing: apply with --resolve-image always to ask the registry again"
    for index, mount in enumerate(service.get("volumes") or ()):
        if mount.get("type") in ("npipe", "image"):
            yield f"volumes[{index}]", mount["type"], "mounts are left out"
        elif mount.get("type") == "cluster":
            yield f"volumes[{index}]", "cluster", "is taken as an ordinary volume"


def _walk(kind: Any, value: Any, path: str, report: Report) -> None:
    if isinstance(kind, Obj) and isinstance(value, dict):
        for key, item in value.items():
            row = kind.fields.get(key)
            implied = key == "depends_on" and isinstance(value, Map) and key not in value.marks  # by links, for example
            if row is not None and not implied:
                _field(row, item, f"{path}.{key}" if path else key, mark_of(value, key), report)
    elif isinstance(kind, MapOf) and isinstance(value, dict):
        for key, item in value.items():
            _walk(kind.kind, item, f"{path}.{key}", report)
    elif isinstance(kind, ListOf) and isinstance(value, list):
        for index, item in enumerate(value):
            _walk(kind.kind, item, f"{path}[{index}]", report)
    elif isinstance(kind, Or):
        _walk(kind.long, value, path, report)
    elif kind is MOUNT:
        _walk(MOUNT_OBJ, value, path, report)


def _field(row: Field, value: Any, path: str, mark: Mark, report: Report) -> None:
    if row.later and value is not None and value is not False:
        report.warn("unsupported", path, row.later, mark)
    else:
        _walk(row.kind, value, path, report)
