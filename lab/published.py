"""Where a lab's published ports answer from this machine, as data and as lines.

Rules: pure. Rows are those of the API: services, replicas and nodes. Ports of mode ingress answer on every node that is ready
(with `x-ingress: local` on those with a running replica), ports of mode host on the replica's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.ports import place

Row = Mapping[str, Any]
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Published:
    """One published port: `target` as `80/tcp`, and every place (`10.213.0.11:8080`) it answers at."""

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


def published(ports: Mapping[str, Sequence[Row]], replicas: Iterable[Row], nodes: Mapping[str, str]) -> list[Published]:
    """Of every service its ports; `ports`: service -> rows, `nodes`: name -> address of those that are ready."""
    where: dict[str, dict[str, None]] = {}
    for row in replicas:
        if row["state"] == "running":
            where.setdefault(row["service"], {})[row["node"]] = None
    found = []
    for service in sorted(ports):
        for port in ports[service]:
            if port.get("published"):
                target = f"{port['target']}/{port.get('protocol') or 'tcp'}"
                names = _answering(port, nodes, where.get(service, {}))
                places = tuple(place(nodes[name], port["published"]) for name in names if name in nodes)
                found.append(Published(service, target, places))
    return found


def _answering(port: Row, nodes: Mapping[str, str], replicas_on: Iterable[str]) -> list[str]:
    """Names of the nodes a port answers on at their address; a port bound to one address answers there only."""
    bound = port.get("host_ip") or ""
    if port.get("node"):
        names = [port["node"]]
    else:
        names = sorted(replicas_on) if port.get("local") or port.get("mode") == "host" else list(nodes)
    return [name for name in names if bound in ("", "0.0.0.0", "::", nodes.get(name))]


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
