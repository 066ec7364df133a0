"""What Docker's tutorials show of networks (their rows 63 to 81), with real containers on a cluster of three nodes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import LabUnderTest, eventually, remove_all


@pytest.fixture(autouse=True)
def no_networks_left(lab: LabUnderTest) -> Any:
    yield
    remove_all(lab)
    lab("network", "prune", "-f")


def run(lab: LabUnderTest, name: str, *options: str, image: str = "busybox", command: tuple[str, ...] = ()) -> None:
    """A detached container that stays up."""
    lab("run", "-d", "--name", name, "--init", "--stop-timeout", "2", *options, image, *(command or ("sleep", "100000")))


def web(lab: LabUnderTest, name: str, *options: str) -> None:
    """A detached container that serves its name on port 8080."""
    lab("run", "-d", "--name", name, "--hostname", name, "--stop-timeout", "2", *options, "shoal/web:1.0")


def networks_of(lab: LabUnderTest, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.container(name)["NetworkSettings"]["Networks"]
    return found


def address(lab: LabUnderTest, name: str, network: str = "bridge") -> str:
    return str(networks_of(lab, name)[network]["IPAddress"])


def can(lab: LabUnderTest, name: str, *command: str) -> bool:
    """Whether a command in the container ends well within three seconds."""
    return lab.call("exec", name, "timeout", "3", *command).code == 0


def pings(lab: LabUnderTest, name: str, target: str) -> bool:
    return can(lab, name, "ping", "-c", "1", "-W", "2", target)


def node_address(lab: LabUnderTest, name: str) -> str:
    rows = lab.json("lab", "status", "--name", lab.name)["nodes"]
    return str(next(row["address"] for row in rows if row["name"] == name))


def node_of(lab: LabUnderTest, name: str) -> str:
    return str(next(row["node"] for row in lab.replicas(name)))


def fetched(url: str) -> str:
    """The body of a page as the machine itself gets it; empty when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_63_exposed_is_not_published(lab: LabUnderTest) -> None:
    web(lab, "quiet")
    here = node_address(lab, node_of(lab, "quiet"))
    assert fetched(f"http://{here}:8080/") == ""
    web(lab, "loud", "-P")
    line = lab("port", "loud", "8080").strip()
    port = line.rpartition(":")[2]
    assert fetched(f"http://{node_address(lab, node_of(lab, 'loud'))}:{port}/").startswith("loud")


def test_63_published_answers_on_every_node_and_on_its_localhost(lab: LabUnderTest) -> None:
    web(lab, "site", "-p", "8881:8080")
    for node in ("n1", "n2", "n3"):
        here = node_address(lab, node)
        eventually(lambda here=here: fetched(f"http://{here}:8881/").startswith("site"), f"site on {node}", 5)  # type: ignore[misc]
        assert lab.on(node, "busybox", "wget", "-qO-", "http://127.0.0.1:8881/").startswith("site")
    assert "8881" in lab("port", "site")
    assert "8881->8080/tcp" in lab("ps", "-o", "wide")
    assert "8881" in lab("lab", "status", "--name", lab.name)


def test_64_three_default_networks(lab: LabUnderTest) -> None:
    rows = {row["name"]: row["driver"] for row in lab.json("network", "ls")}
    assert {name: rows[name] for name in ("bridge", "host", "none")} == {"bridge": "bridge", "host": "host", "none": "null"}


def test_65_a_container_in_several_networks(lab: LabUnderTest) -> None:
    lab("network", "create", "one")
    lab("network", "create", "two")
    run(lab, "both", "--network", "one")
    lab("network", "connect", "two", "both")
    found = networks_of(lab, "both")
    assert set(found) == {"one", "two"}
    assert all(row["IPAddress"] for row in found.values())
    shown = lab("exec", "both", "ip", "-4", "addr")
    assert all(row["IPAddress"] in shown for row in found.values())


def test_66_the_default_network_is_bridge(lab: LabUnderTest) -> None:
    run(lab, "plain")
    assert set(networks_of(lab, "plain")) == {"bridge"}


def test_67_and_69_by_address_on_the_bridge(lab: LabUnderTest) -> None:
    web(lab, "server", "--node", "n1")
    run(lab, "client", "--node", "n1")
    target = address(lab, "server")
    assert pings(lab, "client", target)
    eventually(lambda: can(lab, "client", "wget", "-qO-", f"http://{target}:8080/"), "the server answers", 5)


def test_68_and_69_links_give_names(lab: LabUnderTest) -> None:
    run(lab, "container1")
    run(lab, "container2", "--link", "container1", "--link", "container1:one")
    assert node_of(lab, "container1") == node_of(lab, "container2")
    assert pings(lab, "container2", "container1")
    assert pings(lab, "container2", "one")
    done = lab.call("run", "--rm", "--link", "nobody", "busybox", "true")
    assert (done.code, "nobody" in done.err) == (1, True)


def test_70_without_a_link_no_names_on_the_bridge(lab: LabUnderTest) -> None:
    run(lab, "container1", "--node", "n1")
    run(lab, "container2", "--node", "n1")
    assert not can(lab, "container2", "nslookup", "container1")
    assert not pings(lab, "container2", "container1")
    assert pings(lab, "container2", address(lab, "container1"))


def test_71_busybox_has_what_it_takes(lab: LabUnderTest) -> None:
    words = lab("run", "--rm", "busybox", "busybox", "--list").split()
    assert {"ping", "wget", "nslookup", "ip", "nc"} <= set(words)


def test_72_host_network_is_the_nodes_own(lab: LabUnderTest) -> None:
    web(lab, "on-host", "--network", "host")
    node = node_of(lab, "on-host")
    inside = lab("exec", "on-host", "ip", "-4", "-o", "addr", "show", "eth0").split()[3]
    assert inside.split("/")[0] == node_address(lab, node)
    eventually(lambda: fetched(f"http://{node_address(lab, node)}:8080/") != "", "port 8080 of the node", 5)


def test_73_none_has_only_loopback(lab: LabUnderTest) -> None:
    run(lab, "alone", "--network", "none")
    assert lab("exec", "alone", "ls", "/sys/class/net").split() == ["lo"] or lab(
        "exec", "alone", "ip", "-o", "link"
    ).count("\n") == 1
    assert not pings(lab, "alone", node_address(lab, node_of(lab, "alone")))
    assert pings(lab, "alone", "127.0.0.1")


def test_74_to_77_a_network_of_ones_own(lab: LabUnderTest) -> None:
    created = lab("network", "create", "-d", "bridge", "minha-rede").strip()
    assert len(created) >= 12
    assert " " not in created
    lab("run", "-itd", "--network", "minha-rede", "--name", "meu-container", "busybox")
    state = lab.container("meu-container")
    assert state["State"]["Running"] is True
    assert (state["Config"]["Tty"], state["Config"]["OpenStdin"]) == (True, True)
    rows = {row["name"]: row["driver"] for row in lab.json("network", "ls")}
    assert rows["minha-rede"] == "bridge"
    for node in ("n1", "n2", "n3"):  # by name, from every node
        assert lab("run", "--rm", "--node", node, "--network", "minha-rede", "busybox", "ping", "-c", "1", "meu-container")
    refused = lab.call("network", "rm", "minha-rede")
    assert (refused.code, "meu-container" in refused.err) == (1, True)


def test_78_and_79_connect_and_disconnect_a_running_container(lab: LabUnderTest) -> None:
    lab("network", "create", "-d", "bridge", "minha-rede")
    run(lab, "meu-container")
    run(lab, "other", "--network", "minha-rede")
    before = lab.container("meu-container")["Id"]
    lab("network", "connect", "--alias", "meu", "minha-rede", "meu-container")
    assert "eth1" in lab("exec", "meu-container", "ip", "-o", "link")
    assert pings(lab, "meu-container", "other")
    for name in ("meu-container", "meu"):
        eventually(lambda name=name: pings(lab, "other", name), f"{name} known to the other", 3)  # type: ignore[misc]
    lab("network", "disconnect", "minha-rede", "meu-container")
    assert "eth1" not in lab("exec", "meu-container", "ip", "-o", "link")
    assert set(networks_of(lab, "meu-container")) == {"bridge"}
    eventually(lambda: not can(lab, "other", "nslookup", "meu-container"), "the name is gone", 3)
    after = lab.container("meu-container")
    assert (after["Id"], after["RestartCount"]) == (before, 0)


def test_80_and_81_networks_do_not_mix_and_have_their_drivers(lab: LabUnderTest) -> None:
    lab("network", "create", "-d", "bridge", "minha-rede")
    run(lab, "inside", "--network", "minha-rede", "--node", "n1")
    run(lab, "outside", "--node", "n1")
    assert not pings(lab, "outside", address(lab, "inside", "minha-rede"))
    assert not pings(lab, "inside", address(lab, "outside"))
    drivers = [json.loads(lab("network", "inspect", name))[0]["Driver"] for name in ("bridge", "minha-rede", "host", "none")]
    assert drivers == ["bridge", "bridge", "host", "null"]


def test_fixed_address_and_internal_network(lab: LabUnderTest) -> None:
    lab("network", "create", "--subnet", "10.99.7.0/24", "--internal", "shut")
    run(lab, "fixed", "--network", "shut", "--ip", "10.99.7.77", "--network-alias", "seven", "--node", "n1")
    run(lab, "near", "--network", "shut", "--node", "n1")
    run(lab, "far", "--network", "shut", "--node", "n2")
    assert address(lab, "fixed", "shut") == "10.99.7.77"
    for name in ("near", "far"):
        assert pings(lab, name, "10.99.7.77")
        assert pings(lab, name, "seven")
        assert not pings(lab, name, node_address(lab, "n3"))
    overlap = lab.call("network", "create", "--subnet", "10.99.7.128/25", "again")
    assert (overlap.code, "shut" in overlap.err) == (1, True)


def test_external_network_of_a_compose_file(lab: LabUnderTest, tmp_path: Path) -> None:
    text = """
services:
  web: {image: "shoal/web:1.0", networks: [front]}
networks: {front: {external: true, name: shared-front}}
"""
    missing = lab.call("apply", "-f", "-", "-p", "ext", stdin=text)
    assert (missing.code, "shared-front" in missing.err, "network create" in missing.err) == (1, True, True)
    lab("network", "create", "shared-front")
    lab.apply(tmp_path, text, "ext")
    out = lab("run", "--rm", "--network", "shared-front", "busybox", "wget", "-qO-", "http://web:8080/")
    assert out.startswith("ext_web.1")
    lab("rm", "ext")
    assert "shared-front" in {row["name"] for row in lab.json("network", "ls")}


def test_encrypted_is_refused(lab: LabUnderTest) -> None:
    done = lab.call("network", "create", "--opt", "encrypted", "secret")
    assert (done.code, done.err.count("\n"), "encrypted" in done.err) == (1, 1, True)


def test_a_port_taken_twice_names_both_owners(lab: LabUnderTest, tmp_path: Path) -> None:
    web(lab, "first", "-p", "8088:8080")
    text = 'services: {web: {image: "shoal/web:1.0", ports: ["8088:8080"]}}'
    file = tmp_path / "second.yaml"
    file.write_text(text)
    done = lab.call("apply", "-f", str(file), "-p", "second")
    assert done.code == 1
    assert "8088" in done.err
    assert "first" in done.err
    assert "second_web" in done.err


@pytest.mark.parametrize("gone", ["entries", "bridge", "rules", "tables"])
def test_what_somebody_deletes_comes_back_and_is_told(lab: LabUnderTest, gone: str) -> None:
    lab("network", "create", "mended")
    web(lab, "there", "--network", "mended", "--node", "n1", "-p", "8890:8080")
    run(lab, "here", "--network", "mended", "--node", "n2")
    eventually(lambda: can(lab, "here", "wget", "-qO-", "http://there:8080/"), "there answers", 5)
    vni = next(row["vni"] for row in lab.json("network", "ls") if row["name"] == "mended")
    peer, vxlan = node_address(lab, "n1"), f"shx-{vni}"
    commands = {
        "entries": (
            f"ip route flush dev {vxlan}",
            f"for m in $(bridge fdb show dev {vxlan} | cut -d' ' -f1); do bridge fdb del $m dev {vxlan} dst {peer}; done; true",
            f"ip neigh flush dev {vxlan} nud permanent",
        ),
        "bridge": (f"ip link del shb-{vni}",),
        "rules": ("nft flush chain inet shoal forward", "nft flush map inet shoal-lb ports"),
        "tables": tuple(
            f"nft delete table {table}" for table in ("inet shoal", "inet shoal-lb", "bridge shoal", "arp shoal")
        ),
    }
    told = len(repairs(lab, "n2"))
    for command in commands[gone]:
        lab.on("n2", "sh", "-c", command)
    eventually(lambda: len(repairs(lab, "n2")) >= told + len(commands[gone]), f"{gone}: every one is told", 30)
    eventually(lambda: can(lab, "here", "wget", "-qO-", "http://there:8080/"), "there answers again", 5)
    here = node_address(lab, "n2")
    eventually(lambda: fetched(f"http://{here}:8890/").startswith("there"), "the published port of n2", 5)


def repairs(lab: LabUnderTest, node: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in lab("events", "-o", "json").splitlines()]
    return [row for row in rows if row["kind"] == "repaired" and row["node"] == node]
