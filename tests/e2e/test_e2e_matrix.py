"""Thirty replicas on five nodes and three networks: everybody reaches everybody of the own network, nobody anybody else's; and
five hundred comings and goings leave no stale name, entry or address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cli.wait import until_running
from lab.cluster import Lab
from tests.e2e import leaks
from tests.e2e.harness import LabUnderTest, addresses, eventually
from tests.patience import PATIENCE

NETWORKS = ("red", "green", "blue")
REPLICAS = 10
ROUNDS = 25
"""So often one service is scaled from all to none and back: five hundred starts and stops."""

SERVICE = """
  {name}:
    image: shoal/web:1.0
    entrypoint: [sh, -c, "echo $$SHOAL_REPLICA > /tmp/index.html && exec httpd -f -p 8080 -h /tmp"] # starts sooner than Python
    init: true
    stop_grace_period: 1s
    networks: [{name}]
    deploy: {{replicas: {replicas}, placement: {{max_replicas_per_node: 2}}}}
"""
ASK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(word):
    target, _, seconds = word.partition("@")
    try:
        with socket.create_connection((target, 8080), float(seconds)) as s:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            text = b""
            while piece := s.recv(4096): text += piece
        return text.partition(b"\\r\\n\\r\\n")[2].decode().split()[0]
    except (OSError, IndexError) as error:
        return f"!{type(error).__name__}"
with ThreadPoolExecutor(48) as pool:
    print(json.dumps([*pool.map(ask, sys.argv[1:])]))
"""


@pytest.fixture
def five(tmp_path: Path) -> Iterator[LabUnderTest]:
    lab = LabUnderTest(tmp_path / "config", nodes=5)
    yield lab
    lab.down()
    assert leaks.on_host(lab.name) == []


def answers(lab: LabUnderTest, replica: str, targets: Mapping[str, float]) -> dict[str, str]:
    """Who answered on port 8080 of each target, as the replica sees it; `!Reason` where nobody did in so many seconds."""
    words = [f"{target}@{seconds}" for target, seconds in targets.items()]
    return dict(zip(targets, json.loads(lab("exec", replica, "python3", "-c", ASK, *words)), strict=True))


def vip(lab: LabUnderTest, service: str) -> str:
    return str(next(iter(lab.json("service", "inspect", service)[0]["vips"].values())))


@pytest.mark.timeout(400)
def test_all_pairs_on_three_networks_and_five_hundred_comings_and_goings(five: LabUnderTest, tmp_path: Path) -> None:
    services = "".join(SERVICE.format(name=name, replicas=REPLICAS) for name in NETWORKS)
    own = "".join(f"  {name}: {{}}\n" for name in NETWORKS)
    five.apply(tmp_path, f"services:{services}networks:\n{own}", "all")
    rows = {name: five.running(f"all_{name}") for name in NETWORKS}
    assert [len(rows[name]) for name in NETWORKS] == [REPLICAS] * 3
    vips = {name: vip(five, f"all_{name}") for name in NETWORKS}
    check_pairs(five, rows, vips)
    with Lab(five.name).client() as client:  # in this process: fifty commands are waited for
        for _ in range(ROUNDS):
            for number in (0, REPLICAS):
                client.post("/v1/services/all_red/scale", {"replicas": number})
                until_running(client, ["all_red"], timeout_s=60 * PATIENCE, quiet=True)
    rows["red"] = five.running("all_red")
    assert vip(five, "all_red") == vips["red"]
    check_pairs(five, rows, vips, asking=("red",))
    check_entries(five, rows)
    five("rm", "all")
    for node in five.node_states():
        assert leaks.left_on(five, node) == [], node


def check_pairs(
    lab: LabUnderTest, rows: dict[str, list[dict[str, Any]]], vips: dict[str, str], asking: tuple[str, ...] = NETWORKS
) -> None:
    """Every replica asks every replica of its network by name, the service by name and by address; and all the others."""

    def check(network: str, row: dict[str, Any]) -> None:
        mine = [other["name"] for other in rows[network]]
        strange = [addresses(other) for name in NETWORKS if name != network for other in rows[name]]
        strange += [vips[name] for name in NETWORKS if name != network]

        if row is rows[network][0]:  # one asker a network: strange names are looked up outside, which takes a while here
            strange += [name for name in NETWORKS if name != network]
        own = dict.fromkeys([*mine, network, vips[network]], 5.0)

        def well(seen: dict[str, str]) -> bool:
            return [seen[name] for name in mine] == mine and seen[network] in mine and seen[vips[network]] in mine

        seen = answers(lab, row["name"], own | dict.fromkeys(strange, 1.0))  # at once: a command costs more than its questions
        crossed = {target: seen[target] for target in strange if seen[target][0] != "!"}
        assert crossed == {}, f"{row['name']} of {network} reached others"
        if not well(seen):
            eventually(lambda: well(answers(lab, row["name"], own)), f"{row['name']} reaches all of {network}", 15)

    with ThreadPoolExecutor(4) as pool:  # most of it is waiting for answers that must not come
        list(pool.map(lambda pair: check(*pair), [(network, row) for network in asking for row in rows[network]]))


def check_entries(lab: LabUnderTest, rows: dict[str, list[dict[str, Any]]]) -> None:
    """No node knows an address, a neighbour or a backend of a replica that is gone."""
    living = {addresses(row) for name in NETWORKS for row in rows[name]}
    for node in lab.node_states():
        here = {addresses(row) for name in NETWORKS for row in rows[name] if row["node"] == node}
        text = lab.on(node, "ip", "-4", "neigh", "show", "nud", "permanent")
        local = {line.split()[0] for line in text.splitlines() if " dev shb-" in line}
        assert local == here
        listed = json.loads(lab.on(node, "nft", "-j", "list", "map", "inet", "shoal-lb", "backends"))["nftables"]
        found = {pair[1] for item in listed if "map" in item for pair in item["map"].get("elem", ())}
        assert found <= living
