"""Published ports as they are in force, and what was balanced to a service's replicas.

Rules: a port of mode ingress is every node's and stands in the service's plan; one of mode host is that of a replica's node,
which says what it gave out. Counts are the sum of what all nodes counted; a node that does not answer soon is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from controller.api import rows
from controller.api.context import Api, Call
from controller.api.port_rows import address_of, ingress_ports
from model.documents import ServiceDoc
from model.errors import NotFound, ShoalError
from protos import node_pb2 as pb

Row = dict[str, Any]
TRAFFIC_S: Final = 2.0
COUNTS: Final = ("connections", "packets_in", "bytes_in", "packets_out", "bytes_out")


async def service_ports(api: Api, call: Call) -> list[Row]:
    name = call.path["name"]
    document: ServiceDoc | None = api.snapshot().of("services").get(name)
    if document is None:
        raise NotFound(f"no service is called {name}: see `shoal service ls`")
    return [*_ingress_rows(api, document), *_host_rows(rows.replicas(api, service=name))]


async def replica_ports(api: Api, call: Call) -> list[Row]:
    row = rows.replica(api, call.path["name"])
    document: ServiceDoc | None = api.snapshot().of("services").get(row["service"])
    return [*(_ingress_rows(api, document) if document is not None else ()), *_host_rows([row])]


def _ingress_rows(api: Api, document: ServiceDoc) -> list[Row]:
    where = {False: "on every node", True: "on every node with a replica"}
    return [
        {
            "mode": "ingress", "target": port.target, "protocol": port.protocol, "published": port.published,
            "address": address_of(port), "replica": "", "node": "", "local": port.local,
            "text": f"{port.target}/{port.protocol} -> {address_of(port)} {where[port.local]}",
        }
        for port in ingress_ports(api.snapshot(), document)
    ]  # fmt: skip


def _host_rows(replicas: Iterable[Row]) -> list[Row]:
    found = []
    for replica in replicas:
        for target, published in replica["host_ports"]:
            number, _, protocol = target.partition("/")
            port = published.rpartition(":")[2]
            found.append({
                "mode": "host", "target": _number(number), "protocol": protocol, "published": _number(port),
                "address": published, "replica": replica["name"], "node": replica["node"], "local": True,
                "text": f"{target} -> {published} on {replica['node']}",
            })  # fmt: skip
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


async def traffic(api: Api, call: Call) -> Row:
    name = call.path["name"]
    document: ServiceDoc | None = api.snapshot().of("services").get(name)
    if document is None:
        raise NotFound(f"no service is called {name}: see `shoal service ls`")
    answers = await api.agents.everywhere(lambda node: _counted(api, node, document.id))
    sums: dict[str, Row] = {}
    for row in (row for answer in answers.values() if not isinstance(answer, ShoalError) for row in answer):
        kept = sums.setdefault(str(row["replica"]), {"replica": row["replica"], "address": row["address"], **_NOTHING})
        for count in COUNTS:
            kept[count] += int(row[count])
    answered = {node for node, answer in answers.items() if not isinstance(answer, ShoalError)}
    replicas = [sums[replica] for replica in sorted(sums)]
    return {
        "service": name,
        **{count: sum(row[count] for row in replicas) for count in COUNTS},
        "replicas": replicas,
        "missing": [node for node in sorted(api.snapshot().of("nodes")) if node not in answered],
    }


_NOTHING: Final = dict.fromkeys(COUNTS, 0)


async def _counted(api: Api, node: str, service_id: str) -> list[Row]:
    answer = await api.agents.call(node, "Traffic", pb.Empty(), TRAFFIC_S)
    return [row for row in json.loads(answer.json) if row["service_id"] == service_id]
