"""Where a lab's published ports answer from this machine, as data and as lines.

Rules: pure. Rows are those of the API: services, replicas and nodes. Ports of mode ingress answer on every node that is ready
(with `x-ingress: local` on those with a running replica), ports of mode host on the replica's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.ports import place
from model import codec
from model.spec import Port

Row = Mapping[str, Any]
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Published:
    """One published port: `target` as `80/tcp`, and every place (`10.213.0.11:8080`) it answers at.

    `service`: of mode host the replica.
    """

    service: str
    target: str
    places: tuple[str, ...]

    @property
    def url(self) -> str:
        """One place to try: a page for TCP, else the protocol's name before it."""
        if not self.places:
            return ""
        scheme = "http" if self.target.endswith("/tcp") else self.target.partition("/")[2]
        return f"{scheme}://{self.places[0]}"

    def plain(self) -> dict[str, Any]:
        return {"service": self.service, "port": self.target, "url": self.url, "places": list(self.places)}


def published(services: Iterable[Row], replicas: Sequence[Row], nodes: Mapping[str, str]) -> list[Published]:
    """Of every service its ports; `nodes`: name -> address of those that are ready."""
    running = [row for row in replicas if row["state"] == "running"]
    found = []
    for service in services:
        for port in map(_port, service["ports"]):
            if port.mode == "ingress" and port.published:
                places = _places(port, service["name"], running, nodes)
                found.append(Published(service["name"], f"{port.target}/{port.protocol}", places))
    for row in running:
        for target, outer in row["host_ports"]:
            host_ip, _, number = outer.rpartition(":")
            if number != "0":
                found.append(Published(row["name"], target, _at(host_ip, number, [row["node"]], nodes)))
    return sorted(found, key=lambda row: (row.service, row.target))


def _port(row: Row) -> Port:
    """A row names only what is not as usual."""
    return codec.from_plain(Port, row)


def _places(port: Port, service: str, running: Sequence[Row], nodes: Mapping[str, str]) -> tuple[str, ...]:
    with_replica = {row["node"] for row in running if row["service"] == service}
    names = [name for name in nodes if not port.local or name in with_replica]
    return _at(port.host_ip, port.published, names, nodes)


def _at(host_ip: str, number: object, names: Iterable[str], nodes: Mapping[str, str]) -> tuple[str, ...]:
    """Where a port answers on these nodes; one that is bound to an address answers there only."""
    anywhere = host_ip in ("", "0.0.0.0", "::", "[::]")
    found = [nodes[name] for name in names if name in nodes and (anywhere or host_ip == nodes[name])]
    return tuple(place(address, number) for address in found)


def lines(rows: Sequence[Published]) -> list[str]:
    """`shop_web 80/tcp  http://10.213.0.11:8080 (or 10.213.0.12, 10.213.0.13)`."""
    left = [f"{row.service} {row.target}" for row in rows]
    width = max(map(len, left), default=0)
    return [f"{name:<{width}}  {row.url or '-'}{_others(row)}" for name, row in zip(left, rows, strict=True)]


def _others(row: Published) -> str:
    if not row.places:
        return " (answers on no node's address)"
    others = [text.rpartition(":")[0] for text in row.places[1:]]
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return f" (or {', '.join(others[:_SHOWN])}{more})" if others else ""
