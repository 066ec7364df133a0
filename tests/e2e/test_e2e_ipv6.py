"""Networks with `enable_ipv6`: addresses, names, services' addresses, published ports and isolation, all over IPv6."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.addresses import embedded
from tests.e2e.harness import LabUnderTest, addresses, eventually
from tests.e2e.resolver import asked

STACK = """
services:
  web:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 1s
    networks: [six]
    ports: ["8095:8080"]
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
  client:
    image: shoal/web:1.0
    user: root
    entrypoint: [sleep, "100000"]
    init: true
    stop_grace_period: 1s
    networks: [six]
    deploy: {mode: global}
  strange:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 1s
    networks: [apart]
    deploy: {mode: global}
networks: {six: {enable_ipv6: true}, apart: {enable_ipv6: true}}
"""
ASK = """
import json, socket, sys
def ask(target):
    host, _, port = target.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), socket.AF_INET6, socket.SOCK_STREAM)
        with socket.create_connection(found[0][4][:2], 1.5) as s:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            text = b""
            while piece := s.recv(4096): text += piece
        return text.partition(b"\\r\\n\\r\\n")[2].decode().split()[0]
    except (OSError, IndexError) as error:
        return f"!{type(error).__name__}"
print(json.dumps([ask(target) for target in sys.argv[1:]]))
"""


def answers(lab: LabUnderTest, replica: str, *targets: str) -> list[str]:
    """Who answered at each HOST:PORT over IPv6, as the replica sees it; `!Reason` where nobody did."""
    found: list[str] = json.loads(lab("exec", replica, "python3", "-c", ASK, *targets))
    return found


@pytest.fixture
def nodes6(lab: LabUnderTest) -> Iterator[dict[str, str]]:
    """An IPv6 address for every node on the underlay, as an administrator gives it: node -> address."""
    given = {f"n{number}": f"fd5e:a:b:c::{number}" for number in (1, 2, 3)}
    for node, address in given.items():
        lab.on(node, "ip", "-6", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
    yield given
    for node, address in given.items():
        lab.on(node, "ip", "-6", "address", "del", f"{address}/64", "dev", "eth0")


def network6(lab: LabUnderTest, name: str) -> Any:
    """What `network inspect` tells of a network, and its IPv6 prefix."""
    told = lab.json("network", "inspect", name)[0]
    assert told["EnableIPv6"] is True
    return told, next(row["Subnet"] for row in told["IPAM"]["Config"] if ":" in row["Subnet"])


def test_ipv6_networks_have_addresses_names_services_and_ports(
    lab: LabUnderTest, tmp_path: Path, nodes6: dict[str, str]
) -> None:
    lab.apply(tmp_path, STACK, "v6")
    told, subnet = network6(lab, "v6_six")
    prefix = ipaddress.IPv6Network(subnet)
    vip6 = told["Services"]["v6_web"]["VIP6"]
    replicas = {row["name"]: embedded(str(prefix), addresses(row)) for row in lab.running("v6_web")}
    assert len(replicas) == 3
    assert prefix.prefixlen == 96
    assert all(ipaddress.ip_address(address) in prefix for address in (vip6, *replicas.values()))
    listed = {row["Name"]: row["IPv6Address"].split("/")[0] for row in told["Containers"].values()}
    assert {name: listed[name] for name in replicas} == replicas
    for name, address in replicas.items():
        assert f" {address}/" in lab("exec", name, "ip", "-6", "address", "show", "dev", "eth0")

    _, strange = network6(lab, "v6_apart")
    other = next(row for row in lab.running("v6_strange") if row["node"] == "n1")
    other6 = embedded(strange, addresses(other))
    for node in nodes6:
        client = f"v6_client.{node}"
        check_names(lab, client, replicas, vip6)
        by_name = [f"{name.removeprefix('v6_')}:8080" for name in replicas]
        targets = [*by_name, *(f"[{address}]:8080" for address in replicas.values()), *["web:8080", f"[{vip6}]:8080"] * 12]
        seen = answers(lab, client, *targets, f"[{other6}]:8080")
        assert seen[:6] == [*replicas, *replicas]
        assert set(seen[6:-1]) <= set(replicas)
        assert len(set(seen[6:-1])) > 1
        assert seen[-1].startswith("!")
        assert pinged(lab, client, *(name.removeprefix("v6_") for name in replicas), *replicas.values(), other6) == 6
    check_apart(lab, other["name"], [*replicas.values(), vip6, embedded(str(prefix), told["Gateways"]["n1"])])
    check_published(lab, nodes6, set(replicas))


def pinged(lab: LabUnderTest, client: str, *targets: str) -> int:
    """How many targets, the names by their IPv6 addresses, answer a ping."""
    loop = "for target; do ping -6 -c 1 -W 1 $target | grep '1 packets received'; done; true"
    return lab("exec", client, "sh", "-c", loop, "sh", *targets).count("\n")


def check_names(lab: LabUnderTest, client: str, replicas: dict[str, str], vip6: str) -> None:
    """AAAA of service, tasks and replicas, and all of it backwards."""
    back = [ipaddress.ip_address(address).reverse_pointer for address in (*replicas.values(), vip6)]
    names = [f"udp AAAA {name.removeprefix('v6_')}" for name in replicas]
    questions = ("udp AAAA web", "tcp AAAA v6_web", "udp AAAA tasks.web", *names, *(f"udp PTR {name}" for name in back))
    found = [answer.rows for answer in asked(lab, client, *questions)]
    assert found[:2] == [[vip6]] * 2
    assert found[2] == sorted(replicas.values())
    assert found[3:] == [*([address] for address in replicas.values()), *([name] for name in replicas), ["v6_web"]]
    (service,) = asked(lab, client, "udp SRV _8080._tcp.web")
    assert set(replicas.values()) < set(service.more)


def check_apart(lab: LabUnderTest, stranger: str, forbidden: list[str]) -> None:
    """A container of another IPv6 network reaches itself, and nothing of this one."""
    seen = answers(lab, stranger, "strange:8080", *(f"[{address}]:{port}" for address in forbidden for port in (8080, 53)))
    assert seen[0].startswith("v6_strange.")
    assert [answer for answer in seen[1:] if not answer.startswith("!")] == []


def check_published(lab: LabUnderTest, nodes6: dict[str, str], replicas: set[str]) -> None:
    """The published port answers at every node's IPv6 address, for other nodes and for the node itself."""
    targets = [f"[{address}]:8095" for address in nodes6.values()]

    def all_answer(asker: str) -> bool:
        return set(json.loads(lab.on(asker, sys.executable, "-c", ASK, *targets))) <= replicas

    for asker in ("n1", "n2"):
        eventually(lambda asker=asker: all_answer(asker), f"every node answers to {asker}", 5)  # type: ignore[misc]
