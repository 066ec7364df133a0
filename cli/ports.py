"""Published ports as words: the PORTS column as `docker ps` prints it, the lines of `shoal port`.

Rules: pure. Ports are rows of the API: of a service as it asks for them (with the number it got), of a replica as words, and
those in force (of mode host with their node).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.errors import BadInput, NotFound

Port = Mapping[str, Any]
_Key = tuple[str, str, bool]


def ports_column(ports: Iterable[Port]) -> list[str]:
    """`0.0.0.0:8080->80/tcp`, `0.0.0.0:8000-8002->80-82/tcp`, `53/udp` for what is not published (yet)."""
    runs: list[tuple[_Key, int, int, int]] = []  # key, first published, first target, length
    for port in sorted(ports, key=_order):
        key, published, target = _key(port), int(port.get("published") or 0), int(port["target"])
        if runs and runs[-1][0] == key and _follows(runs[-1], published, target):
            runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
        else:
            runs.append((key, published, target, 1))
    return [_run(*run) for run in runs]


def _key(port: Port) -> _Key:
    return (port.get("protocol") or "tcp", port.get("host_ip") or "", bool(port.get("published")))


def _order(port: Port) -> tuple[Any, ...]:
    return (*_key(port), int(port["target"]), int(port.get("published") or 0))


def _follows(run: tuple[_Key, int, int, int], published: int, target: int) -> bool:
    _, first, first_target, length = run
    return target == first_target + length and (not first or published == first + length)


def _run(key: _Key, published: int, target: int, length: int) -> str:
    protocol, host_ip, _ = key
    inner = f"{_range(target, length)}/{protocol}"
    return f"{place(host_ip, _range(published, length))}->{inner}" if published else inner


def _range(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"


def place(host_ip: str, published: object) -> str:
    """`0.0.0.0:8080`, `[fd00::1]:8080`."""
    return f"[{host_ip}]:{published}" if ":" in host_ip else f"{host_ip or '0.0.0.0'}:{published}"


def port_lines(ports: Sequence[Port], only: str, name: str) -> list[str]:
    """`80/tcp -> 0.0.0.0:8080`, of mode host with the node; with `only` (`80` or `80/tcp`) what is right of the arrow."""
    rows = [port for port in sorted(ports, key=_order) if port.get("published")]
    if not only:
        return [f"{port['target']}/{port.get('protocol') or 'tcp'} -> {_where(port)}" for port in rows]
    target, protocol = wanted_port(only)
    found = [_where(port) for port in rows if (port["target"], port.get("protocol") or "tcp") == (target, protocol)]
    if not found:
        raise NotFound(f"{name} has no published port {target}/{protocol}: see `shoal port {name}`")
    return found


def _where(port: Port) -> str:
    node = f"{port['node']} " if port.get("node") else ""
    return f"{node}{port['address']}"


def wanted_port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not number.isdecimal() or not 0 < int(number) < 65536 or protocol not in ("", "tcp", "udp", "sctp"):
        raise BadInput(f"port {text!r}: expected a port of the container such as 80 or 53/udp")
    return int(number), protocol or "tcp"


def parsed(word: str) -> dict[str, Any]:
    """One port of a replica's row, `0.0.0.0:8080->80/tcp`."""
    outer, _, inner = word.partition("->")
    host_ip, _, published = outer.rpartition(":")
    target, _, protocol = inner.partition("/")
    return {
        "target": int(target), "protocol": protocol or "tcp", "published": int(published),
        "host_ip": "" if host_ip == "0.0.0.0" else host_ip.strip("[]"),
    }  # fmt: skip
