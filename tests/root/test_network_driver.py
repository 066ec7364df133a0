"""The kernel's NetworkDriver between two nodes, each a network namespace on a bridge in a third one: nothing of the host's."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.network import namespaces

pytestmark = pytest.mark.root

NET = "10.77.0.0/16"
PREFIX6 = "fd00:77::/96"
SLICES = {"n1": "10.77.1.0/24", "n2": "10.77.2.0/24"}
UNDERLAY = {"n1": "192.0.2.1", "n2": "192.0.2.2"}


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Node:
    """A driver process in namespace `netns`, spoken to by lines of JSON."""

    def __init__(self, netns: str, name: str, run_dir: Path) -> None:
        self.name = name
        self._argv = ["nsenter", f"--net=/run/netns/{netns}", "setpriv", "--pdeathsig", "KILL"]
        self._argv += [sys.executable, "-m", "tests.root.network_node", str(run_dir), UNDERLAY[name]]
        self.start()

    def run_as_nobody(self, *argv: str) -> None:
        """In the node's namespace, also while there is no driver."""
        sh(*self._argv[:2], *argv)

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{}\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __call__(self, do: str, **rest: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def run(self, *argv: str) -> tuple[int, str]:
        answer = self("run", argv=list(argv))
        return answer["code"], answer["out"]

    def network(self, *others: str, fixed: dict[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
        """`shop_default` with these nodes; `fixed`: addresses of each node's containers outside its slice."""
        told = fixed or {}
        peers = [{"node": o, "underlay": UNDERLAY[o], "slice": SLICES[o], "addresses": told.get(o, [])} for o in others]
        row = {"name": "shop_default", "vni": 4097, "subnet": NET, "slice": SLICES[self.name], "peers": peers}
        return {**row, "addresses": told.get(self.name, []), **more}

    def apply(self, *others: str, fixed: dict[str, list[str]] | None = None, **more: Any) -> None:
        self("apply", networks=[self.network(*others, fixed=fixed, **more)])

    def inside(self, path: str, *argv: str) -> str:
        code, out = self.run("nsenter", f"--net={path}", *argv)
        assert code == 0, out
        return out

    def ping(self, inside: str, address: str, *options: str) -> bool:
        """One answer is enough: a link that came up this moment loses what is sent through it."""
        path = f"--net={inside}"
        return self.run("nsenter", path, "ping", "-c", "1", "-w", "2", "-i", "0.2", *options, address)[0] == 0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    tag = secrets.token_hex(3)
    spaces = {name: f"shtest-{tag}-{name}" for name in ("sw", *SLICES)}
    made: dict[str, Node] = {}
    with contextlib.ExitStack() as stack:
        for space in spaces.values():
            sh("ip", "netns", "add", space)
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
        sh("ip", "-n", spaces["sw"], "link", "add", "br0", "up", "type", "bridge")
        for name, address in UNDERLAY.items():
            sh("ip", "-n", spaces["sw"], "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", spaces[name])
            sh("ip", "-n", spaces["sw"], "link", "set", name, "up", "master", "br0")
            sh("ip", "-n", spaces[name], "address", "add", f"{address}/24", "dev", "up0")
            sh("ip", "-n", spaces[name], "link", "set", "up0", "up")
            made[name] = Node(spaces[name], name, tmp_path / name)
            stack.callback(made[name].stop)
        yield made
        for node in made.values():
            node("close", remove=True)
            assert not list((tmp_path / node.name / "netns").iterdir())
            left = [row for row in node.run("ip", "-br", "link")[1].splitlines() if row.startswith("sh")]
            assert left == []
            assert "shoal" not in node.run("nft", "list", "tables")[1]


def test_containers_on_different_nodes_reach_each_other_with_whole_datagrams(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    b = n2("attach", id="b" * 64, networks=["shop_default"])
    assert a["addresses"] == [["shop_default", "10.77.1.2/16"]]
    assert b["addresses"] == [["shop_default", "10.77.2.2/16"]]
    assert n1.ping(a["netns_path"], "10.77.2.2")
    assert n1.ping(a["netns_path"], "10.77.2.2", "-s", "4000")
    assert n1.ping(a["netns_path"], "10.77.1.1")


def test_detached_containers_leave_nothing_and_addresses_go_round(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    first = n1("attach", id="a" * 64, networks=["shop_default"])["addresses"]
    n1("detach", id="a" * 64)
    n1("detach", id="a" * 64)
    second = n1("attach", id="b" * 64, networks=["shop_default"])["addresses"]
    assert first != second
    n1("detach", id="b" * 64)
    assert "shv-" not in n1.run("ip", "-br", "link")[1]


def test_many_leave_together_and_nobody_else_with_them(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    ids = [f"{number:02x}" * 32 for number in range(12)]
    paths = [n1("attach", id=container_id, networks=["shop_default"])["netns_path"] for container_id in ids]
    n1("detach_all", ids=[*ids[1:], "never-attached"])
    links = [row for row in n1.run("ip", "-br", "link")[1].splitlines() if row.startswith("shv-")]
    assert len(links) == 1
    assert n1.ping(paths[0], "10.77.1.1")
    assert [path for path in paths if Path(path).exists()] == paths[:1]
    n1("detach_all", ids=ids)
    assert "shv-" not in n1.run("ip", "-br", "link")[1]


def test_a_killed_agent_finds_its_attachments_again_and_frees_the_others(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    kept = n1("attach", id="a" * 64, networks=["shop_default"])
    n1("attach", id="b" * 64, networks=["shop_default"])
    n1.stop()
    n1.start()
    n1.apply()
    n1("recover", ids=["a" * 64])
    assert n1.ping(kept["netns_path"], "10.77.1.1")
    assert n1.run("ip", "-br", "link")[1].count("shv-") == 1
    assert n1("attach", id="c" * 64, networks=["shop_default"])["addresses"] != kept["addresses"]


def test_what_somebody_deletes_is_back_after_repair(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n2("attach", id="b" * 64, networks=["shop_default"])
    n1.run("ip", "route", "del", SLICES["n2"])
    assert any("route" in sentence for sentence in n1("repair"))
    n1.run("ip", "link", "del", "shb-4097")
    n1.run("nft", "delete", "table", "inet", "shoal")
    sentences = n1("repair")
    assert any("shb-4097" in sentence for sentence in sentences)
    assert any("inet shoal" in sentence for sentence in sentences)
    assert n1("repair") == []
    assert n1.ping(a["netns_path"], "10.77.2.2")


def test_frames_from_others_than_peers_are_dropped(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n2("attach", id="b" * 64, networks=["shop_default"])
    assert n1.ping(a["netns_path"], "10.77.2.2")
    n2.apply()
    assert not n1.ping(a["netns_path"], "10.77.2.2")


def test_two_networks_of_a_node_do_not_reach_each_other(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    rows = [("one", 4097, "10.77.0.0/16", "10.77.1.0/24"), ("two", 4098, "10.78.0.0/16", "10.78.1.0/24")]
    n1("apply", networks=[{"name": n, "vni": v, "subnet": s, "slice": c} for n, v, s, c in rows])
    a = n1("attach", id="a" * 64, networks=["one"])
    both = n1("attach", id="b" * 64, networks=["one", "two"])
    n1("attach", id="c" * 64, networks=["two"])
    assert n1.ping(both["netns_path"], "10.78.1.3")
    assert not n1.ping(a["netns_path"], "10.78.1.3")


def test_the_nodes_own_bridge_needs_no_user_network(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    a = n1("attach", id="a" * 64, networks=["bridge"])
    b = n1("attach", id="b" * 64, networks=["bridge"])
    assert n1.ping(a["netns_path"], b["addresses"][0][1].split("/")[0])
    assert n1("attach", id="c" * 64, networks=["none"])["addresses"] == []
    assert n1("attach", id="d" * 64, networks=["host"])["netns_path"] == ""


def test_unknown_and_overlapping_networks_say_so(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    with pytest.raises(RuntimeError, match="network shop_other is not on this node yet"):
        n1("attach", id="a" * 64, networks=["shop_other"])
    rows = [("one", 4097, "10.77.0.0/16", "10.77.1.0/24"), ("two", 4098, "10.77.0.0/17", "10.77.2.0/24")]
    with pytest.raises(RuntimeError, match="overlap"):
        n1("apply", networks=[{"name": n, "vni": v, "subnet": s, "slice": c} for n, v, s, c in rows])


SECOND = {"name": "back", "vni": 4098, "subnet": "10.78.0.0/16", "slice": "10.78.1.0/24"}


def test_neighbours_on_one_node_talk_by_way_of_it_and_nobody_is_redirected(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    a, b = (n1("attach", id=letter * 64, networks=["shop_default"]) for letter in "ab")
    assert a["gateway"] == "10.77.1.1"
    assert "via 10.77.1.1" in n1.inside(a["netns_path"], "ip", "route", "get", "10.77.1.3")
    answer = n1.inside(a["netns_path"], "ping", "-v", "-c", "3", "-i", "0.2", "-W", "1", "10.77.1.3")
    assert "ttl=63" in answer
    assert "edirect" not in answer
    assert n1.ping(b["netns_path"], "10.77.1.2", "-s", "4000")
    assert n1.run("ip", "neigh", "show", "10.77.1.3")[1].split()[-1] == "PERMANENT"


def test_an_address_nobody_has_is_refused_by_the_node_and_sent_nowhere(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply("n2", prefix6=PREFIX6)
    n1.run("ip", "route", "add", "default", "via", "192.0.2.2")
    for address in ("10.77.200.5", "fd00:77::a4d:c805"):
        code, out = n1.run("ip", "route", "get", address)
        assert code != 0, out
        assert "unreachable" in out.lower() or "no route" in out.lower()
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    assert "Unreachable" in n1.run("nsenter", f"--net={a['netns_path']}", "ping", "-c", "1", "-W", "2", "10.77.200.5")[1]
    n1("apply", networks=[])
    assert "unreachable" not in n1.run("ip", "route")[1] + n1.run("ip", "-6", "route")[1]


def test_large_datagrams_of_udp_cross_whole(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    b = n2("attach", id="b" * 64, networks=["shop_default"])

    def receiver() -> socket.socket:
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        found.bind(("10.77.2.2", 5000))
        found.settimeout(5)
        return found

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(9000), ("10.77.2.2", 5000))

    assert n1.ping(a["netns_path"], "10.77.2.2")
    with namespaces.enter(b["netns_path"], receiver) as waiting:
        namespaces.enter(a["netns_path"], send)
        assert len(waiting.recv(65_536)) == 9000


def test_ipv6_follows_from_ipv4_on_one_node_and_across(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.run("sysctl", "-w", "net.ipv6.conf.up0.accept_ra=1")
    n1.apply("n2", prefix6=PREFIX6)
    n2.apply("n1", prefix6=PREFIX6)
    a, c = (n1("attach", id=letter * 64, networks=["shop_default"]) for letter in "ac")
    n2("attach", id="b" * 64, networks=["shop_default"])
    assert a["addresses6"] == [["shop_default", "fd00:77::a4d:102/112"]]
    for address in ("fd00:77::a4d:101", "fd00:77::a4d:103", "fd00:77::a4d:202"):
        assert n1.ping(a["netns_path"], address, "-6"), address
    assert n1.ping(a["netns_path"], "fd00:77::a4d:202", "-6", "-s", "4000")
    assert n1.run("ping", "-6", "-c", "1", "-w", "2", "fd00:77::a4d:202")[0] == 0  # from the node itself
    assert n1.run("sysctl", "-n", "net.ipv6.conf.up0.accept_ra")[1] == "2\n"
    assert "inet6" not in n1.run("ip", "-6", "address", "show", "scope", "link", "dev", "shb-4097")[1]
    assert "default via fd00:77::a4d:101" in n1.inside(c["netns_path"], "ip", "-6", "route")
    assert n1("repair") == []


def test_without_ipv6_there_is_none(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    assert a["addresses6"] == []
    assert "inet6" not in n1.inside(a["netns_path"], "ip", "address", "show", "eth0")
    assert n1.run("sysctl", "-n", "net.ipv6.conf.all.forwarding")[1] == "0\n"


def test_a_fixed_address_may_lie_in_another_nodes_slice(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    fixed = {"n2": ["10.77.1.2", "10.77.200.5"]}
    n1.apply("n2", fixed=fixed, prefix6=PREFIX6)
    n2.apply("n1", fixed=fixed, prefix6=PREFIX6)
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    assert a["addresses"] == [["shop_default", "10.77.1.3/16"]]
    with pytest.raises(RuntimeError, match=r"address 10\.77\.1\.2 cannot be given: a container on another node has it"):
        n1("attach", id="c" * 64, networks=["shop_default=10.77.1.2"])
    for letter, address in (("b", "10.77.1.2"), ("d", "10.77.200.5")):
        got = n2("attach", id=letter * 64, networks=[f"shop_default={address}"])
        assert got["addresses"] == [["shop_default", f"{address}/16"]]
        assert n1.ping(a["netns_path"], address)
        assert n2.ping(got["netns_path"], "10.77.1.3")
    assert n1.ping(a["netns_path"], "fd00:77::a4d:c805", "-6")
    assert n1("repair") == n2("repair") == []
    n1.apply("n2")
    assert "10.77.200.5" not in n1.run("ip", "route")[1]


def test_networks_come_and_go_while_a_container_runs(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1("apply", networks=[n1.network(internal=True), SECOND])
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    b = n1("attach", id="b" * 64, networks=["back"])
    assert a["gateway"] == ""
    assert "default" not in n1.inside(a["netns_path"], "ip", "route")
    both = n1("connect", id="a" * 64, network="back")
    assert both == n1("connect", id="a" * 64, network="back")
    assert (both["addresses"][1], both["gateway"]) == (["back", "10.78.1.3/16"], "10.78.1.1")
    assert n1.inside(a["netns_path"], "ip", "route", "show", "default").startswith("default via 10.78.1.1 dev eth1")
    assert n1.ping(b["netns_path"], "10.78.1.3")
    assert n1.ping(b["netns_path"], "10.78.1.3", "-s", "4000")
    left = n1("disconnect", id="a" * 64, network="shop_default")
    assert left == n1("disconnect", id="a" * 64, network="shop_default")
    assert left["addresses"] == [["back", "10.78.1.3/16"]]
    again = n1("connect", id="a" * 64, network="shop_default=10.77.1.77")
    assert again["addresses"][1] == ["shop_default", "10.77.1.77/16"]
    assert "10.77.1.77/16" in n1.inside(a["netns_path"], "ip", "address", "show", "eth0")
    assert n1.ping(a["netns_path"], "10.77.1.1")
    none = [n1("disconnect", id="a" * 64, network=network) for network in ("back", "shop_default")][-1]
    assert (none["addresses"], none["gateway"]) == ([], "")
    with pytest.raises(RuntimeError, match="no network namespace of its own"):
        n1("connect", id="never", network="back")


def test_the_way_out_moves_to_the_next_network(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1("apply", networks=[n1.network(), SECOND])
    a = n1("attach", id="a" * 64, networks=["shop_default", "back"])
    assert n1.inside(a["netns_path"], "ip", "route", "show", "default").startswith("default via 10.77.1.1 dev eth0")
    assert n1("disconnect", id="a" * 64, network="shop_default")["gateway"] == "10.78.1.1"
    assert n1.inside(a["netns_path"], "ip", "route", "show", "default").startswith("default via 10.78.1.1 dev eth1")
    assert n1.ping(a["netns_path"], "192.0.2.1")


def test_an_agent_killed_in_the_middle_of_connecting_ends_what_it_began(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    networks = [n1.network(), SECOND]
    n1("apply", networks=networks)
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n1("connect", id="a" * 64, network="back")
    n1.stop()
    n1.run_as_nobody("ip", "link", "del", f"shv-{'a' * 9}01")  # as if only the record had been written
    n1.start()
    n1("recover", ids=["a" * 64])
    n1("apply", networks=networks)
    both = n1("connect", id="a" * 64, network="back")
    assert [network for network, _ in both["addresses"]] == ["shop_default", "back"]
    assert n1.ping(a["netns_path"], "10.78.1.1")
    assert n1("repair") == []


def test_a_released_address_rests_until_every_node_forgot_it(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    small = "10.77.1.0/29"
    n1.apply(slice=small)
    ids = [letter * 64 for letter in "abcde"]
    first = [n1("attach", id=container_id, networks=["shop_default"])["addresses"][0][1] for container_id in ids]
    assert len(set(first)) == 5
    n1("remember", places=[["shop_default", address.split("/")[0]] for address in first])
    n1("detach", id=ids[1])
    n1("disconnect", id=ids[2], network="shop_default")
    n1.stop()
    n1.start()
    n1("remember", places=[["shop_default", address.split("/")[0]] for address in first])
    n1("recover", ids=[*ids[:1], *ids[2:]])
    n1.apply(slice=small)
    with pytest.raises(RuntimeError, match="is taken; 2 of them rest until every node forgot them"):
        n1("attach", id="f" * 64, networks=["shop_default"])
    n1("remember", places=[["shop_default", first[1].split("/")[0]]])
    assert n1("attach", id="f" * 64, networks=["shop_default"])["addresses"] == [["shop_default", first[2]]]


LINK = f"shv-{'a' * 9}00"
DAMAGE = {
    "link shb-4097 was gone": "ip link del shb-4097",
    "link shx-4097 was gone": "ip link del shx-4097",
    "link shb-4097 was down": "ip link set shb-4097 down",
    "link shx-4097 had other settings": "ip link set shx-4097 mtu 1300",
    "link shx-4097 was another network's": (
        "ip link del shx-4097; ip link add shx-4097 type vxlan id 5 local 192.0.2.1 dstport 4789;"
        " ip link set shx-4097 address 0a:01:0a:4d:01:00 mtu 1450 up; sysctl -q net.ipv4.conf.shx-4097.rp_filter=2"
        " net.ipv4.conf.shx-4097.send_redirects=0"
    ),
    f"link {LINK} was not in its bridge": f"ip link set {LINK} nomaster",
    f"link {LINK} was down": f"ip link set {LINK} down",
    f"link {LINK} was not isolated": f"bridge link set dev {LINK} isolated off",
    f"link {LINK} was gone": f"ip link del {LINK}",
    "address 10.77.1.1/24": "ip address del 10.77.1.1/24 dev shb-4097",
    "address fd00:77::a4d:101/120": "ip address del fd00:77::a4d:101/120 dev shb-4097",
    "unreachable route 10.77.0.0/16": "ip route del unreachable 10.77.0.0/16 metric 65535",
    "route 10.77.1.0/24": "ip route del 10.77.1.0/24",
    "route 10.77.2.0/24": "ip route del 10.77.2.0/24",
    "route 10.77.200.5/32": "ip route del 10.77.200.5",
    "route fd00:77::a4d:200/120": "ip -6 route del fd00:77::a4d:200/120",
    "neighbour 10.77.2.0": "ip neigh del 10.77.2.0 dev shx-4097",
    "neighbour 10.77.1.2": "ip neigh replace 10.77.1.2 lladdr 0a:00:00:00:00:01 nud permanent dev shb-4097",
    "neighbour fd00:77::a4d:102": "ip -6 neigh del fd00:77::a4d:102 dev shb-4097",
    "fdb entry 0a:01:0a:4d:02:00": "bridge fdb del 0a:01:0a:4d:02:00 dev shx-4097 dst 192.0.2.2",
    "fdb entry 0a:01:0a:4d:01:02": f"bridge fdb del 0a:01:0a:4d:01:02 dev {LINK} master",
    "setting net.ipv4.ip_forward": "sysctl -qw net.ipv4.ip_forward=0",
    "setting net.ipv6.conf.all.forwarding": "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "route 10.77.9.0/24 on shx-4097 was nobody's": "ip route add 10.77.9.0/24 dev shx-4097 proto 77",
    "fdb entry 0a:01:0a:4d:09:00 on shx-4097 was nobody's": "bridge fdb append 0a:01:0a:4d:09:00 dev shx-4097 dst 192.0.2.9",
}


def test_whatever_somebody_changes_is_put_right_and_said(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    fixed = {"n2": ["10.77.200.5"]}
    n1.apply("n2", fixed=fixed, prefix6=PREFIX6)
    n2.apply("n1", fixed=fixed, prefix6=PREFIX6)
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n2("attach", id="b" * 64, networks=["shop_default"])
    assert n1("repair") == []
    for sentence, damage in DAMAGE.items():
        code, out = n1.run("sh", "-ec", damage)
        assert code == 0, (damage, out)
        said = n1("repair")
        assert any(sentence in found for found in said), (damage, said)
        if "link" in sentence:
            assert len(said) == 1, (damage, said)
        assert n1("repair") == [], damage
        assert n1.ping(a["netns_path"], "10.77.2.2"), damage
        assert n1.ping(a["netns_path"], "fd00:77::a4d:202", "-6"), damage


def test_what_others_made_stays(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply("n2")
    for command in (
        "ip link add other0 up type bridge; ip address add 198.51.100.1/24 dev other0",
        "ip route add 203.0.113.0/24 via 198.51.100.9 proto 77; ip neigh add 198.51.100.9 lladdr 0a:00:00:00:00:09 dev other0",
    ):
        assert n1.run("sh", "-ec", command)[0] == 0
    before = [n1.run("ip", word, "show", "dev", "other0")[1] for word in ("address", "route", "neigh")]
    assert n1("repair") == []
    n1("apply", networks=[])
    assert n1("repair") == []
    assert before == [n1.run("ip", word, "show", "dev", "other0")[1] for word in ("address", "route", "neigh")]
    assert n1("own_routes") == ["192.0.2.0/24", "198.51.100.0/24"]


def test_the_nodes_own_bridge_takes_a_free_subnet_and_goes_out_behind_the_node(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.run("ip", "route", "add", "172.30.0.0/16", "via", "192.0.2.2")
    n1("apply", networks=[n1.network()])
    a = n1("attach", id="a" * 64, networks=["bridge"])
    assert a["addresses"] == [["bridge", "172.29.0.2/20"]]
    assert n1.ping(a["netns_path"], "192.0.2.2")
    b = n1("attach", id="b" * 64, networks=["bridge"])
    assert n1.ping(a["netns_path"], b["addresses"][0][1].split("/")[0])
    n1.run("ip", "route", "del", "172.30.0.0/16")
    n1.stop()
    n1.start()
    n1("recover", ids=["a" * 64])
    n1("apply", networks=[n1.network()])
    assert n1.ping(a["netns_path"], "172.29.0.1")
    assert n1("repair") == []
    n1("detach", id="a" * 64)
    assert n1("attach", id="a" * 64, networks=["bridge"])["addresses"][0][1].startswith("172.29.0.")


def test_what_is_left_of_networks_that_are_gone_is_removed_at_the_start(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1("apply", networks=[n1.network("n2"), SECOND])
    n1("attach", id="a" * 64, networks=["shop_default"])
    n1.stop()
    n1.start()
    n1("recover", ids=[])
    n1("apply", networks=[SECOND])
    links = n1.run("ip", "-br", "link")[1]
    assert ("4097" in links, "shv-" in links, "4098" in links) == (False, False, True)
    assert "10.77." not in n1.run("ip", "route")[1]
