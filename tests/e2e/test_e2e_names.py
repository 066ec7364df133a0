"""Services and replicas find each other by name, on every node, at once after a change, and again after a partition."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from tests.e2e.harness import LabUnderTest, addresses, eventually
from tests.e2e.resolver import asked

STACK = """
services:
  web:
    image: shoal/web:1.0
    networks: {default: {aliases: [front]}}
    deploy: {replicas: 6}
  asker:
    image: busybox
    init: true
    command: sleep 100000
    deploy: {mode: global}
  other:
    image: busybox
    init: true
    command: sleep 100000
    networks: [apart]
networks: {apart: {}}
"""


def looked_up(lab: LabUnderTest, replica: str, name: str) -> list[str]:
    """Addresses that busybox's nslookup gets inside a replica; empty when it gets none."""
    done = lab.call("exec", replica, "nslookup", "-type=a", name)
    assert "shoal: " not in done.err, done.err  # the question was not even asked
    rows = [line.split()[-1] for line in done.out.splitlines() if line.startswith("Address")]
    return sorted(rows[1:])


def test_names_on_every_node_follow_scaling_and_heal_after_a_partition(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "shop")
    askers = [f"shop_asker.{node}" for node in ("n1", "n2", "n3")]

    def web() -> list[str]:
        return sorted(addresses(row) for row in lab.running("shop_web"))

    for asker in askers:
        eventually(lambda asker=asker: looked_up(lab, asker, "tasks.web") == web(), f"tasks.web on {asker}")  # type: ignore[misc]
    vip = looked_up(lab, askers[0], "web")
    assert len(vip) == 1
    assert vip[0] not in web()
    for asker in askers:
        for name in ("web", "shop_web", "web.shop", "front"):
            assert looked_up(lab, asker, name) == vip, f"{name} on {asker}"
    (third,) = [row for row in lab.running("shop_web") if row["name"] == "shop_web.3"]
    assert looked_up(lab, askers[0], "web.3") == [addresses(third)]
    assert lab("exec", askers[1], "wget", "-qO-", "http://web.3:8080/").split()[0] == "shop_web.3"

    lab("service", "scale", "shop_web=3")
    for asker in askers:
        eventually(lambda asker=asker: looked_up(lab, asker, "tasks.web") == web(), f"three on {asker}", 5)  # type: ignore[misc]

    lab.lab("partition", "n3")
    eventually(lambda: lab.node_states()["n3"] == "down", "n3 down")
    eventually(lambda: len(lab.running("shop_web")) == 3, "three replicas elsewhere")
    lab.lab("heal")
    eventually(lambda: lab.node_states()["n3"] == "ready", "n3 ready")
    # The controller's connection to the agent of before the cut may still have to be found dead.
    eventually(lambda: lab.call("exec", "shop_asker.n3", "true").code == 0, "n3's agent answers the controller")
    for asker in askers:
        eventually(lambda asker=asker: looked_up(lab, asker, "tasks.web") == web(), f"healed on {asker}", 10)  # type: ignore[misc]
        assert looked_up(lab, asker, "web") == vip


def test_names_do_not_leave_their_network(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "shop")
    asker = lab.running("shop_asker")[0]["name"]
    eventually(lambda: looked_up(lab, asker, "web") != [], "web known on the default network")
    server = lab("exec", "shop_other.1", "cat", "/etc/resolv.conf").split()[1]
    assert server != lab("exec", asker, "cat", "/etc/resolv.conf").split()[1]
    lines = lab.call("exec", "shop_other.1", "timeout", "3", "nslookup", "-type=a", "tasks.other").out
    assert addresses(lab.running("shop_other")[0]) in lines
    assert (
        "10.64."
        not in lab.call("exec", "shop_other.1", "timeout", "3", "nslookup", "-type=a", "web")
        .out.split("Name:")[-1]
        .partition("Address")[2]
    )


KINDS = """
services:
  web: {image: "shoal/web:1.0", init: true, stop_grace_period: 1s, deploy: {replicas: 3}}
  each: {image: "shoal/web:1.0", init: true, stop_grace_period: 1s, deploy: {replicas: 3, endpoint_mode: dnsrr}}
  asker: {image: "shoal/web:1.0", entrypoint: [sleep, "100000"], init: true, stop_grace_period: 1s, deploy: {mode: global}}
"""
NXDOMAIN = 3


def test_every_kind_of_question_by_udp_and_tcp(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, KINDS, "dns")
    rows = {service: {row["name"]: addresses(row) for row in lab.running(f"dns_{service}")} for service in ("web", "each")}
    vip = next(iter(lab.json("service", "inspect", "dns_web")[0]["vips"].values()))
    assert lab.json("service", "inspect", "dns_each")[0]["vips"] == {}
    (name, address), *_ = rows["web"].items()
    expected = {
        "A web": [vip],
        "A tasks.web": sorted(rows["web"].values()),
        "A each": sorted(rows["each"].values()),
        "A tasks.each": sorted(rows["each"].values()),
        f"A {name.removeprefix('dns_')}": [address],
        f"PTR {ip_address(vip).reverse_pointer}": ["dns_web"],
        f"PTR {ip_address(address).reverse_pointer}": [name],
        "SRV _8080._tcp.web": sorted(f"0 1 8080 {replica}" for replica in rows["web"]),
        "SRV _53._udp.each": sorted(f"0 1 53 {replica}" for replica in rows["each"]),
        "AAAA web": [],
        "TXT web": [],
    }
    for asker in (f"dns_asker.{node}" for node in ("n1", "n2", "n3")):
        for way in ("udp", "tcp"):
            questions = [f"{way} {question}" for question in expected]
            found = asked(lab, asker, *questions, f"{way} SRV _http._tcp.web")
            assert dict(zip(expected, (answer.rows for answer in found), strict=False)) == expected
            assert {(answer.code, answer.cut) for answer in found[: len(expected)]} == {(0, False)}
            assert found[list(expected).index("SRV _8080._tcp.web")].more == sorted(rows["web"].values())
            assert found[-1].code == NXDOMAIN
