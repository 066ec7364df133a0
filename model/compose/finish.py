"""From merged files to the resolved project: defaults, names, environment, profiles.

Rules: the result has exactly the shape of `docker compose config --format json`, except that `$` stands for itself and
`x-` keys are kept at every level. Services outside the chosen profiles and resources nobody uses are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.compose.dotenv import parse_env
from model.compose.merge import unique_lists
from model.compose.sources import Session, read_bytes
from model.compose.tree import Map, Seq, copy_map, items_of

RESOURCES = ("networks", "volumes", "secrets", "configs")


def finish(session: Session, merged: Map, name: str, profiles: Sequence[str], env: Mapping[str, str]) -> Map:
    """The resolved project of `merged` (untagged, canonical)."""
    project = Map(((key, value) for key, value in merged.items() if key not in ("version", "include")), merged.mark)
    project.marks.update(merged.marks)
    project["name"] = name
    services = Map(mark=merged.at("services"))
    for key, service, mark in items_of(merged.get("services") or {}):
        if is_enabled(service, profiles):
            services.put(key, finish_service(session, key, service, env), mark)
    project["services"] = services
    for section in RESOURCES:
        project[section] = _used(section, services, merged.get(section) or Map(), name)
    for section in (*RESOURCES, "models"):
        if not project.get(section):
            project.pop(section, None)
    return project


def is_enabled(service: Mapping[str, Any], profiles: Sequence[str]) -> bool:
    """Whether a service runs with these profiles; `*` stands for all."""
    own = service.get("profiles") or ()
    return not own or "*" in profiles or any(profile in profiles for profile in own)


def finish_service(session: Session, name: str, service: Map, env: Mapping[str, str]) -> Map:
    """One service with every default docker compose writes out."""
    result = copy_map(service)
    unique_lists(result)
    _environment(session, name, result, env)
    _labels(session, name, result, env)
    for key in ("command", "entrypoint"):
        result.setdefault(key, None)
    if not result.get("networks"):
        result.pop("networks", None)
        if not result.get("network_mode") and "provider" not in result:
            result["networks"] = Map([("default", None)], service.mark)
    _implied_dependencies(result)
    _nested_defaults(result, env)
    _drop_empty(result)
    return result


_KEEP_EMPTY = frozenset(("command", "entrypoint", "deploy", "healthcheck", "logging", "image"))
_KEEP_FALSE = frozenset(("attach", "init"))
_KEEP_ZERO = frozenset(("scale", "replicas", "parallelism", "max_attempts", "retries"))
_SIZES = frozenset(("shm_size", "mem_limit", "mem_reservation", "memswap_limit", "memory"))


def _says_nothing(key: str, value: Any) -> bool:
    """Whether docker compose leaves this field of a service out: empty, false or zero."""
    if key.startswith("x-") or value is None:
        return False
    if isinstance(value, bool):
        return not value and key not in _KEEP_FALSE
    if isinstance(value, (int, float)):
        return value == 0 and key not in _KEEP_ZERO
    return (value in ({}, [], "") and key not in _KEEP_EMPTY) or (value == "0" and key in _SIZES)


def _drop_empty(service: Map) -> None:
    for key in [key for key, value in service.items() if _says_nothing(key, value)]:
        del service[key]
    for key in ("deploy", "healthcheck"):
        if isinstance(service.get(key), Map):
            service[key] = _without_empty(service[key], f"{key}.")


def _without_empty(value: Map, path: str) -> Map:
    result = Map(mark=value.mark)
    for key, item, mark in items_of(value):
        if isinstance(item, Map) and key != "labels":
            item = _without_empty(item, f"{path}{key}.")
            result.put(key, item, mark)
        elif not _says_nothing(key, item) and not (item == "0s" and "_config." in path):
            result.put(key, item, mark)
    return result


def _environment(session: Session, name: str, service: Map, env: Mapping[str, str]) -> None:
    """env_file contents under the service's own environment; bare names take the value of `env`."""
    result = Map(mark=service.at("environment"))
    for index, entry in enumerate(service.pop("env_file", None) or ()):
        at = f"services.{name}.env_file[{index}]"
        path, form = entry.get("path"), entry.get("format") or ""
        if form not in ("", "raw"):
            session.report.problem(f"{at}.format", f"found {form!r}, expected 'raw' or nothing", entry.mark)
        if not path or (entry.get("required") is False and not session.files.exists(path)):
            continue
        data = read_bytes(session, path, entry.mark, at)
        if data is not None:
            earlier = {key: value for key, value in result.items() if value is not None}
            found = parse_env(data, path, env, session.report, earlier=earlier, raw=form == "raw")
            for key, value in found.items():
                if value is not None:
                    result.put(key, value, entry.mark)
    for key, value, mark in items_of(service.get("environment") or {}):
        result.put(key, env.get(key) if value is None else value, mark)
    if result:
        service["environment"] = result
    else:
        service.pop("environment", None)


def _labels(session: Session, name: str, service: Map, env: Mapping[str, str]) -> None:
    """label_file contents under the service's own labels."""
    result = Map(mark=service.at("labels"))
    for index, path in enumerate(service.pop("label_file", None) or ()):
        data = read_bytes(session, path, service.at("label_file"), f"services.{name}.label_file[{index}]")
        if data is not None:
            for key, value in parse_env(data, path, env, session.report).items():
                result.put(key, value or "", service.mark)
    if result:
        for key, value, mark in items_of(service.get("labels") or {}):
            result.put(key, value, mark)
        service["labels"] = result


def _implied_dependencies(service: Map) -> None:
    """links, volumes_from and `service:NAME` modes mean depends_on as well."""
    implied: dict[str, bool] = {}
    for link in service.get("links") or ():
        implied[link.split(":")[0]] = True
    for key in ("network_mode", "ipc", "pid", "uts"):
        mode = service.get(key)
        if isinstance(mode, str) and mode.startswith("service:"):
            implied[mode.removeprefix("service:")] = True
    for source in service.get("volumes_from") or ():
        if not source.startswith("container:"):
            implied.setdefault(source.split(":")[0], False)
    depends = copy_map(service.get("depends_on") or Map())
    for name, restart in implied.items():
        if name not in depends:
            entry = Map([("condition", "service_started"), ("required", True)], service.mark)
            if restart:
                entry["restart"] = True
            depends.put(name, entry, service.mark)
    for name, entry in depends.items():
        full = copy_map(entry)
        full.setdefault("required", True)
        if full.get("restart") is False:
            del full["restart"]
        depends[name] = full
    if depends:
        service["depends_on"] = depends


def _nested_defaults(service: Map, env: Mapping[str, str]) -> None:
    build = service.get("build")
    if isinstance(build, dict):
        build = service["build"] = copy_map(build)
        build.setdefault("context", ".")
        if "dockerfile_inline" not in build:
            build.setdefault("dockerfile", "Dockerfile")
        if isinstance(build.get("args"), dict):
            known = ((key, env.get(key) if value is None else value) for key, value in build["args"].items())
            build["args"] = Map((pair for pair in known if pair[1] is not None), build.at("args"))
    deploy = service.get("deploy")
    if isinstance(deploy, dict):
        deploy = service["deploy"] = copy_map(deploy)
        deploy.setdefault("resources", Map())
        deploy.setdefault("placement", Map())
    _each(service, "secrets", _secret_target)
    _each(service, "ports", _port_defaults)
    _each(service, "volumes", _mount_defaults)
    _each(service, "devices", _device_defaults)


def _each(service: Map, key: str, change: Any) -> None:
    old = service.get(key)
    if isinstance(old, list):
        new = Seq(mark=service.at(key))
        for index, item in enumerate(old):
            item = copy_map(item)
            change(item)
            new.put(item, old.at(index) if isinstance(old, Seq) else service.mark)
        service[key] = new


def _secret_target(secret: Map) -> None:
    secret.setdefault("target", f"/run/secrets/{secret.get('source')}")


def _port_defaults(port: Map) -> None:
    port.setdefault("mode", "ingress")
    port.setdefault("protocol", "tcp")


def _mount_defaults(mount: Map) -> None:
    if mount.get("read_only") is False:
        del mount["read_only"]


def _device_defaults(device: Map) -> None:
    device.setdefault("target", device.get("source"))
    device.setdefault("permissions", "rwm")


def _used(section: str, services: Map, defined: Map, project: str) -> Map:
    """The resources of a section that some service names, with their full names."""
    used: dict[str, None] = {}
    for service in services.values():
        for key in names_used(section, service):
            used[key] = None
    result = Map(mark=defined.mark)
    if section == "networks" and "default" in used and "default" not in defined:
        defined = copy_map(defined)
        defined["default"] = Map()
    for key, value, mark in items_of(defined):
        if key in used:
            result.put(key, _resource(section, key, value, project), mark)
    return result


def names_used(section: str, service: Mapping[str, Any]) -> list[str]:
    """The keys of a section that a service refers to."""
    if section == "networks":
        return list(service.get("networks") or ())
    if section == "volumes":
        mounts = service.get("volumes") or ()
        return [mount["source"] for mount in mounts if mount.get("type") == "volume" and mount.get("source")]
    names = [ref["source"] for ref in service.get(section) or () if ref.get("source")]
    if section == "secrets":
        names += [ref["source"] for ref in (service.get("build") or {}).get("secrets") or () if ref.get("source")]
    return names


def _resource(section: str, key: str, value: Map, project: str) -> Map:
    result = copy_map(value)
    external = result.get("external")
    if isinstance(external, dict):
        result.setdefault("name", external["name"])
        result["external"] = True
    if not result.get("external"):
        result.pop("external", None)
    if result.get("name") == "":
        del result["name"]
    elif "name" not in result:
        result["name"] = key if result.get("external") else f"{project}_{key}"
    if section == "networks":
        result.setdefault("ipam", Map())
    for flag in ("internal", "attachable"):
        if result.get(flag) is False:
            del result[flag]
    for empty in ("labels", "driver_opts", "driver"):
        if result.get(empty) in ({}, ""):
            del result[empty]
    return result
