"""Services and replicas find each other by name, on every node, at once after a change, and again after a partition."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import LabUnderTest, addresses, eventually

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
    lines = lab.call("exec", replica, "nslookup", "-type=a", name).out.splitlines()
    rows = [line.split()[-1] for line in lines if line.startswith("Address")]
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
