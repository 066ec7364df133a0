"""Counts what networks could leave on a node: links, routes, neighbours, forwarding entries, rules, held ports, files.

Rules: what the node itself needs stays and is told apart by name: its own bridge `shb-0`, the tables' empty skeleton, the
addresses of the cluster's daemons (guarded). Counts of a replica that went stay until somebody has read them; the agent bounds
their number.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.plan.balance_book import COUNTERS
from tests.e2e.harness import LabUnderTest

OWN_BRIDGE = "shb-0"
PROTOCOL = "77"
"""The routing protocol number our routes carry."""
TABLES = {("inet", "shoal"), ("inet", "shoal-lb"), ("bridge", "shoal"), ("arp", "shoal")}
STAYS = {"guarded", "guarded6", "guarded_ports"}
COUNTS = {f"{name}{family}" for name in COUNTERS for family in ("", "6")}
_PARTS = (
    "ip -j link", "ip -j -4 route show table all", "ip -j -6 route show table all", "ip -j neigh show nud permanent",
    "bridge -j fdb", "nft -j list ruleset",
)  # fmt: skip
_SEPARATOR = "=====next====="


def in_kernel(lab: LabUnderTest, node: str) -> list[str]:
    """Of containers and their networks, in the node's network namespace."""
    texts = lab.on(node, "sh", "-c", f"; echo {_SEPARATOR}; ".join(_PARTS)).split(_SEPARATOR)
    links, routes4, routes6, neighbours, fdb, ruleset = (json.loads(text) if text.strip() else [] for text in texts)
    found = [f"link {row['ifname']}" for row in links if row["ifname"].startswith("sh") and row["ifname"] != OWN_BRIDGE]
    own = {row["dst"] for row in routes4 if row.get("dev") == OWN_BRIDGE and row.get("type", "unicast") == "unicast"}
    found += [f"route {row}" for row in (*routes4, *routes6) if _is_our_route(row, own)]
    found += [f"neighbour {row}" for row in neighbours if row.get("dev", "").startswith("sh")]
    found += [f"forwarding entry {row}" for row in fdb if _is_our_entry(row)]
    return found + [f"element {text}" for text in _elements(ruleset["nftables"])] + _held_ports(lab, node)


def _is_our_route(row: dict[str, Any], own: set[str]) -> bool:
    ours = str(row.get("protocol")) == PROTOCOL or row.get("dev", "").startswith("sh")
    return ours and row["dst"] not in ("default", *own) and row.get("dev") != OWN_BRIDGE


def _is_our_entry(row: dict[str, Any]) -> bool:
    """The bridge's own addresses and multicast groups are the kernel's."""
    link = row.get("ifname", "")
    return "dst" in row or (link.startswith("sh") and link != OWN_BRIDGE)


def _elements(ruleset: list[dict[str, Any]]) -> Iterator[str]:
    for item in ruleset:
        row = item.get("set") or item.get("map")
        if row is None or (row["family"], row["table"]) not in TABLES or row["name"] in STAYS | COUNTS:
            continue
        for element in row.get("elem", ()):
            if OWN_BRIDGE not in json.dumps(element) and not _is_own_subnet(row["name"], ruleset, element):
                yield f"{row['family']} {row['table']} {row['name']}: {json.dumps(element)}"


def _is_own_subnet(name: str, ruleset: list[dict[str, Any]], element: Any) -> bool:
    """The own bridge's subnet among those of networks: the one that `inside` names with the bridge."""
    rows = [item["set"] for item in ruleset if "set" in item and item["set"]["name"] == "inside"]
    return name == "subnets" and any(
        OWN_BRIDGE in json.dumps(pair) and json.dumps(element) in json.dumps(pair)
        for row in rows for pair in row.get("elem", ())
    )  # fmt: skip


def _held_ports(lab: LabUnderTest, node: str) -> list[str]:
    """Sockets that the agent has bound without listening: the kernel's tables list all others."""
    found = []
    for pid in lab.daemon_pids(node, "agent"):
        known = {
            word
            for table in Path(f"/proc/{pid}/net").glob("*")
            if table.name in ("tcp", "tcp6", "udp", "udp6", "unix", "netlink", "packet", "raw", "raw6")
            for line in table.read_text().splitlines()
            for word in line.split()
        }
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] not in known:
                found.append(f"socket {descriptor.name} of the agent: bound, and nobody listens")
    return found


def files(run: Path) -> list[str]:
    """Records of containers' addresses and names that are still answered; what rests and is guarded is the node's."""
    found = [f"address file {path.name}" for path in (run / "network").glob("*") if path.suffix in (".json", ".part")]
    try:
        names = json.loads((run / "names.json").read_text())
    except FileNotFoundError:
        names = {}
    return found + [f"names of network {name}" for name in names]


def on_host() -> list[str]:
    """Tables of ours in the machine's own namespace, where no agent of a lab ever writes."""
    done = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=True)
    rows = [item["table"] for item in json.loads(done.stdout)["nftables"] if "table" in item]
    return [f"table {row['family']} {row['name']}" for row in rows if (row["family"], row["name"]) in TABLES]
