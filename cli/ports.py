"""Published ports as words: the PORTS column as `docker ps` prints it, the lines of `shoal port`.

Rules: pure. A port is a mapping with target, protocol, published (0: not chosen yet), host_ip and mode; one on a node
only has its node too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.errors import BadInput, NotFound

Port = Mapping[str, Any]
_Key = tuple[str, str, str, bool]


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
    return (port.get("protocol") or "tcp", port.get("host_ip") or "", port.get("node") or "", bool(port.get("published")))


def _order(port: Port) -> tuple[Any, ...]:
    return (*_key(port), int(port["target"]), int(port.get("published") or 0))


def _follows(run: tuple[_Key, int, int, int], published: int, target: int) -> bool:
    _, first, first_target, length = run
    return target == first_target + length and (not first or published == first + length)


def _run(key: _Key, published: int, target: int, length: int) -> str:
    protocol, host_ip, _, _ = key
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
    return node + place(port.get("host_ip") or "", port["published"])


def wanted_port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not number.isdecimal() or not 0 < int(number) < 65536 or protocol not in ("", "tcp", "udp", "sctp"):
        raise BadInput(f"port {text!r}: expected a port of the container such as 80 or 53/udp")
    return int(number), protocol or "tcp"


def of_status(pairs: Iterable[Sequence[str]], node: str) -> list[dict[str, Any]]:
    """Ports of mode host as an agent reports them: (`80/tcp`, `0.0.0.0:32768`)."""
    found = []
    for inner, outer in pairs:
        target, _, protocol = inner.partition("/")
        host_ip, _, published = outer.rpartition(":")
        found.append(
            {"target": int(target), "protocol": protocol or "tcp", "published": int(published), "mode": "host",
             "host_ip": "" if host_ip == "0.0.0.0" else host_ip.strip("[]"), "node": node}
        )  # fmt: skip
    return found
