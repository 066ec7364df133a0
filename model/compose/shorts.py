"""Short forms and the values with a grammar of their own: ports, volumes, devices, hosts, dependencies.

Rules: each function is a kind (or the `short` of an Obj) as described in `kinds`; ranges are written out; the result is
what `docker compose config --format json` prints. Host paths are made absolute here, against the folder of their file.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from model.compose import scalars
from model.compose.kinds import Context
from model.compose.problems import Mark, show
from model.compose.tree import Map, Seq, items_of, mark_of

PORTS_MAX = 2000
_PROTOCOLS = ("tcp", "udp", "sctp")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def host_path(cx: Context, path: str) -> str:
    """`path` made absolute against the folder of the file it stands in."""
    if path == "~" or path.startswith("~/"):
        path = (cx.home or "~") + path[1:]
    if not cx.base_dir or path.startswith("/"):
        return posixpath.normpath(path) if path.startswith("/") and cx.base_dir else path
    return posixpath.normpath(posixpath.join(cx.base_dir, path))


def PATH(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """A path on the machine that runs the command."""
    if value is None:
        return None
    if not isinstance(value, str):
        return cx.bad(path, value, "a path", mark)
    return host_path(cx, value)


def BUILD_CONTEXT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if isinstance(value, str) and ("://" in value or value.startswith(("git@", "github.com/", "docker-image:"))):
        return value
    return PATH(cx, value, path, mark)


def port_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`[[host_ip:]published:]target[/protocol]` with ranges -> the list of long forms."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    expected = "a port such as 80, '8080:80', '127.0.0.1:53:53/udp' or a mapping with 'target'"
    if not isinstance(text, str):
        return cx.bad(path, value, expected, mark)
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        return cx.bad(path, value, f"a port with the protocol {', '.join(_PROTOCOLS[:2])} or {_PROTOCOLS[2]}", mark)
    head, _, target = rest.rpartition(":")
    host_ip, _, published = head.rpartition(":")
    if host_ip.startswith("[") and host_ip.endswith("]"):
        host_ip = host_ip[1:-1]
    targets, outer = _range(target), _range(published) if published else None
    if targets is None or (published and outer is None) or not _is_address(host_ip):
        return cx.bad(path, value, expected, mark)
    return _write_out(cx, value, path, mark, (host_ip, protocol), targets, outer)


def _write_out(
    cx: Context, value: Any, path: str, mark: Mark, where: tuple[str, str], targets: range, outer: range | None
) -> Any:
    host_ip, protocol = where
    if outer is not None and len(outer) != len(targets) and len(targets) != 1:
        return cx.bad(path, value, "two port ranges of the same length", mark)
    if len(targets) > PORTS_MAX:
        return cx.bad(path, value, f"a range of at most {PORTS_MAX} ports", mark)
    result = []
    for index, target in enumerate(targets):
        port = Map([("mode", "ingress"), ("target", target), ("protocol", protocol)], mark)
        if outer is not None:
            whole = len(targets) == 1 and len(outer) > 1
            port["published"] = f"{outer[0]}-{outer[-1]}" if whole else str(outer[index])
        if host_ip:
            port["host_ip"] = host_ip
        result.append(port)
    return result


def _range(text: str) -> range | None:
    found = re.match(r"(\d{1,5})(?:-(\d{1,5}))?\Z", text)
    if not found:
        return None
    low, high = int(found[1]), int(found[2] or found[1])
    return range(low, high + 1) if low <= high <= 65535 and (low > 0 or not found[2]) else None


def _is_address(text: str) -> bool:
    return not text or bool(re.match(r"[0-9a-fA-F:.]+(%[\w.-]+)?\Z", text))


def PUBLISHED(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if text is None or text == "":
        return None
    if not isinstance(text, str) or _range(text) is None:
        return cx.bad(path, value, "a port from 1 to 65535, or a range like 8000-8010", mark)
    return text


def mount_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`[source:]target[:options]` -> a long form."""
    if not isinstance(value, str):
        return cx.bad(path, value, "a volume such as 'data:/data', './here:/there:ro' or a mapping", mark)
    parts = value.split(":")
    if len(parts) > 3 or not all(parts):
        return cx.bad(path, value, "a volume like source:target or source:target:options, no part empty", mark)
    if len(parts) == 1:
        return Map([("type", "volume"), ("target", _target(parts[0])), ("volume", Map())], mark)
    source, target = parts[0], _target(parts[1])
    kind = "bind" if source[0] in "./~" else "volume"
    mount = Map([("type", kind), ("source", source), ("target", target)], mark)
    mount[kind] = Map([("create_host_path", True)] if kind == "bind" else [])
    for option in parts[2].split(",") if len(parts) == 3 else ():
        _mount_option(cx, mount, option, path, mark)
    return mount


def _target(text: str) -> str:
    return posixpath.normpath(text) if text.startswith("/") else text


def _mount_option(cx: Context, mount: Map, option: str, path: str, mark: Mark) -> None:
    if option in ("ro", "rw"):
        if option == "ro":
            mount["read_only"] = True
    elif option == "nocopy":
        mount["volume"] = Map([("nocopy", True)])
    elif option in _PROPAGATION and mount["type"] == "bind":
        mount["bind"]["propagation"] = option
    elif option in ("z", "Z") and mount["type"] == "bind":
        mount["bind"]["selinux"] = option
    elif option not in ("cached", "delegated", "consistent", "z", "Z"):
        cx.report.warn("ignored", path, f"the volume option {show(option)} is not known", mark)


def device_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if not isinstance(value, str) or not value or value.count(":") > 2:
        return cx.bad(path, value, "a device such as '/dev/fuse' or '/dev/sda:/dev/xvda:rwm'", mark)
    parts = value.split(":")
    target = parts[1] if len(parts) > 1 else parts[0]
    return Map([("source", parts[0]), ("target", target), ("permissions", parts[2] if len(parts) > 2 else "rwm")], mark)


def EXTRA_HOSTS(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`{name: address}` or `[name=address, name:address]` -> sorted `name=address` lines."""
    if value is None:
        return None
    pairs: list[tuple[str, Any, Mark]] = []
    if isinstance(value, dict):
        for name, item, at in items_of(value):
            pairs.extend((name, one, at) for one in (item if isinstance(item, list) else [item]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found = re.match(r"([^=:]+)[=:](.+)\Z", item) if isinstance(item, str) else None
            if not found:
                cx.bad(f"{path}[{index}]", item, "text like 'name=address'", mark_of(value, index))
                continue
            pairs.append((found[1], found[2], mark_of(value, index)))
    else:
        return cx.bad(path, value, "a mapping or a list of 'name=address'", mark)
    result = Seq(mark=mark)
    for name, address, at in sorted(pairs, key=lambda pair: pair[0]):
        line = f"{name}={_unbracket(address)}" if isinstance(address, str) and address else None
        if line is None:
            cx.bad(f"{path}.{name}", address, "an address", at)
        elif line not in result:
            result.put(line, at)
    return result


def _unbracket(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def names_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`[a, b]` -> `{a: , b: }` (networks and models of a service)."""
    return _from_names(cx, value, path, mark, None)


def depends_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return _from_names(cx, value, path, mark, {"condition": "service_started", "required": True})


def _from_names(cx: Context, value: Any, path: str, mark: Mark, each: dict[str, Any] | None) -> Any:
    if not isinstance(value, list):
        return cx.bad(path, value, "a list of names or a mapping", mark)
    result = Map(mark=mark)
    for index, item in enumerate(value):
        at = mark_of(value, index)
        if isinstance(item, str):
            result.put(item, None if each is None else Map(each.items(), at), at)
        else:
            cx.bad(f"{path}[{index}]", item, "a name", at)
    return result


def source_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """A config or secret given by its name only."""
    return Map([("source", value)], mark) if isinstance(value, str) else cx.bad(path, value, "a name or a mapping", mark)


def path_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return Map([("path", value)], mark) if isinstance(value, str) else cx.bad(path, value, "a path or a mapping", mark)


def context_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return Map([("context", value)], mark) if isinstance(value, str) else cx.bad(path, value, "a path or a mapping", mark)


def service_short(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return (
        Map([("service", value)], mark) if isinstance(value, str) else cx.bad(path, value, "a service name or a mapping", mark)
    )


def EXTERNAL(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """true, false, or the older `{name: other}`."""
    if isinstance(value, dict):
        name = value.get("name")
        if set(value) - {"name"} or not (name is None or isinstance(name, str)):
            return cx.bad(path, value, "true, false or a mapping with 'name'", mark)
        return Map([("name", name)], mark) if name else True
    parsed = scalars.parse_bool(value) if isinstance(value, str) else value
    return parsed if parsed is None or isinstance(parsed, bool) else cx.bad(path, value, "true or false", mark)


def OCTAL(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """A file mode -> text in octal; a number from the file was already read as octal where it began with 0."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o7777:
        return f"{value:04o}"
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{1,5}", value):
        return f"{int(value.removeprefix('0o'), 8):04o}"
    return cx.bad(path, value, "a file mode such as 0440", mark)


def ULIMIT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if isinstance(value, dict):
        result = Map(mark=mark)
        if set(value) != {"soft", "hard"}:
            return cx.bad(path, value, "a number or a mapping with 'soft' and 'hard'", mark)
        for key, item, at in items_of(value):
            result.put(key, _limit(cx, item, f"{path}.{key}", at), at)
        return result
    return _limit(cx, value, path, mark)


def _limit(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    parsed = scalars.parse_int(value) if isinstance(value, str) else value
    if isinstance(parsed, bool) or not isinstance(parsed, int) or parsed < -1:
        return cx.bad(path, value, "a whole number, or -1 for no limit", mark)
    return parsed


def GPUS(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if value == "all":
        return Seq([Map([("count", -1)], mark)], mark)
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    return None if value is None else cx.bad(path, value, "'all' or a list of mappings", mark)


def DEVICE_COUNT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return -1 if value == "all" else _limit(cx, value, path, mark) if value is not None else None
