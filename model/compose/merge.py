"""Laying one Compose file over another (several -f files, extends): the merge rules of the Compose Specification.

Rules: both sides are canonical (long forms). Mappings merge key by key, lists append and drop repeats by their key,
everything else is replaced; commands, tests and limits are replaced whole. `!reset` takes a value away, `!override`
replaces it. Neither side is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from model.compose.tree import Map, Seq, Tagged, copy_map, items_of, mark_of

_REPLACED = frozenset(("command", "entrypoint", "test", "ulimits.*", "content", "gpus"))
_SERVICE = "services.*."


def merge_projects(base: Map, over: Map) -> Map:
    """`over` laid on `base`, both whole canonical files."""
    result = copy_map(base)
    for key, value, mark in items_of(over):
        if key in ("services", "networks", "volumes", "secrets", "configs", "models") and not isinstance(value, Tagged):
            merged = _merge_named(key, base.get(key), value)
        else:
            merged = _merge(base.get(key), value, key)
        result.put(key, merged, mark)
    return result


def _merge_named(section: str, base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over if base is None or over is not None else base
    result = copy_map(base)
    for name, value, mark in items_of(over):
        old = base.get(name)
        if section == "services" and isinstance(old, dict) and isinstance(value, dict):
            result.put(name, merge_services(old, value), mark)
        else:
            result.put(name, _merge(old, value, f"{section}.*"), mark)
    return result


def merge_services(base: dict[str, Any], over: dict[str, Any]) -> Map:
    """One service laid on another."""
    result = copy_map(base)
    for key, value, mark in items_of(over):
        result.put(key, _merge(base.get(key), value, _SERVICE + key), mark)
    return result


def _merge(base: Any, over: Any, path: str) -> Any:
    if isinstance(over, Tagged) or base is None:
        return over
    if isinstance(base, Tagged):
        return over if base.kind == "reset" else Tagged("override", _merge(base.value, over, path))
    if over is None:
        return over if path.endswith(".environment.*") else base
    if _is_replaced(path) or (path == _SERVICE + "logging" and _other_driver(base, over)):
        return over
    if isinstance(base, dict) and isinstance(over, dict):
        return _merge_maps(base, over, path)
    if isinstance(base, list) and isinstance(over, list):
        return _merge_lists(base, over, path)
    return over


def _merge_maps(base: dict[str, Any], over: dict[str, Any], path: str) -> Map:
    free = path.rsplit(".", 1)[-1] in ("environment", "ulimits")
    result = copy_map(base)
    for key, value, mark in items_of(over):
        if key in base:
            value = _merge(base[key], value, f"{path}.{'*' if free else key}")
        result.put(key, value, mark)
    return result


def _is_replaced(path: str) -> bool:
    name = path.rsplit(".", 1)[-1]
    return name in _REPLACED or path.endswith(".ulimits.*")


def _other_driver(base: dict[str, Any], over: dict[str, Any]) -> bool:
    return bool(base.get("driver") and over.get("driver")) and base["driver"] != over["driver"]


def _merge_lists(base: list[Any], over: list[Any], path: str) -> Seq:
    key = _whole if path.endswith(".aliases") else _KEYS.get(path.removeprefix(_SERVICE))
    result = Seq(base, mark_of(base, 0))
    result.marks = [mark_of(base, index) for index in range(len(base))]
    if key is None:
        for index, item in enumerate(over):
            result.put(item, mark_of(over, index))
        return result
    return unify(result, over, key)


def unify(base: Seq, over: list[Any], key: Callable[[Any], Hashable]) -> Seq:
    """`base` with the items of `over`; one with a key that is already there takes its place."""
    places = {key(item): index for index, item in enumerate(base)}
    for index, item in enumerate(over):
        place = places.get(key(item))
        if place is None:
            places[key(item)] = len(base)
            base.put(item, mark_of(over, index))
        else:
            base[place] = item
            base.marks[place] = mark_of(over, index)
    return base


def unique_lists(service: Map) -> None:
    """Drop repeats by key inside each list of a service (`ports: ['80:80', '80:80']`). Changes `service`."""
    for name, key in _KEYS.items():
        value = service.get(name)
        if isinstance(value, list) and len(value) > 1:
            fresh = unify(Seq(mark=mark_of(service, name)), value, key)
            service.put(name, fresh, service.at(name))


def _whole(item: Any) -> Hashable:
    return item if isinstance(item, str) else repr(item)


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else None


def _port(item: Any) -> Hashable:
    parts = ("host_ip", "published", "target", "protocol")
    return tuple(_get(item, part) or ("tcp" if part == "protocol" else None) for part in parts)


def _target(item: Any) -> Hashable:
    return _get(item, "target") or _whole(item)


def _ref(prefix: str) -> Callable[[Any], Hashable]:
    return lambda item: _get(item, "target") or f"{prefix}{_get(item, 'source')}"


_KEYS: dict[str, Callable[[Any], Hashable]] = {
    **dict.fromkeys(
        ("cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "expose", "external_links", "extra_hosts", "group_add",
         "label_file", "links", "profiles", "security_opt", "tmpfs", "volumes_from", "build.tags", "device_cgroup_rules"),
        _whole,
    ),
    "configs": _ref("/"),
    "devices": _target,
    "env_file": lambda item: _get(item, "path"),
    "ports": _port,
    "secrets": _ref("/run/secrets/"),
    "volumes": _target,
    "networks.*.ipam.config": lambda item: _get(item, "subnet"),
}  # fmt: skip
