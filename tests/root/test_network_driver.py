"""The kernel's NetworkDriver between two nodes: who reaches whom, what comes and goes, what is left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.network import namespaces
from tests.root.network_kit import PREFIX6, SECOND, Node, two_nodes

pytestmark = pytest.mark.root


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    with two_nodes(tmp_path) as found:
        yield found


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


def test_containers_come_and_go_and_leave_no_entry(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply(slice="10.77.1.0/28", prefix6=PREFIX6)
    shown = ("ip neigh show nud permanent", "bridge fdb show br shb-4097", "ip route", "nft list ruleset")
    before = [n1.run(*command.split())[1].replace(" linkdown", "") for command in shown]
    for turn in range(40):
        n1("attach", id=f"{turn:02x}" * 32, networks=["shop_default"])
        if turn >= 12:
            n1("detach", id=f"{turn - 12:02x}" * 32)
    n1("detach_all", ids=[f"{turn:02x}" * 32 for turn in range(40)])
    assert before == [n1.run(*command.split())[1].replace(" linkdown", "") for command in shown]
    assert n1("repair") == []


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


def test_an_agent_killed_before_the_inside_was_ready_makes_it_ready(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    networks = [n1.network(), SECOND]
    n1("apply", networks=networks)
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n1("connect", id="a" * 64, network="back")
    n1.inside(a["netns_path"], "ip", "link", "set", "eth1", "down")
    n1.inside(a["netns_path"], "ip", "address", "flush", "dev", "eth1")
    assert not n1.ping(a["netns_path"], "10.78.1.2", "-I", "eth1")
    n1("connect", id="a" * 64, network="back")
    assert n1.ping(a["netns_path"], "10.78.1.1", "-I", "10.78.1.2")


def test_networks_that_a_waiting_order_brings_back_are_not_forgotten(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    both = [n1.network(), SECOND]
    n1("apply", networks=both)
    n1("apply", orders=[[SECOND], both])
    assert n1("told") == [["back", "shop_default"]]
    n1("apply", networks=[SECOND])
    assert n1("told") == [["back", "shop_default"], ["back"]]


def test_nobody_tells_a_container_another_way_than_its_routes(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1("apply", networks=[n1.network(prefix6=PREFIX6), SECOND])
    path = n1("attach", id="a" * 64, networks=["shop_default"])["netns_path"]
    n1("connect", id="a" * 64, network="back")
    names = [f"ipv4.conf.{of}.accept_redirects" for of in ("all", "eth0", "eth1")]
    names += [f"ipv6.conf.{link}.{name}" for link in ("eth0", "eth1") for name in ("accept_redirects", "accept_ra")]
    assert n1.inside(path, "sysctl", "-n", *(f"net.{name}" for name in names)).split() == ["0"] * len(names)


def test_guarded_addresses_hold_before_anybody_tells_them_again(nodes: dict[str, Node], tmp_path: Path) -> None:
    n1 = nodes["n1"]
    n1.apply()
    n1("guard", addresses=["192.0.2.2:7443"])
    n1.stop()
    n1.start()
    n1.apply()
    assert "192.0.2.2 . 7443" in n1.run("nft", "list", "set", "inet", "shoal", "guarded")[1]
    assert (tmp_path / "n1/network/guarded").exists()
    n1("close", remove=True)
    assert not (tmp_path / "n1/network/guarded").exists()
    n1.stop()
    n1.start()
    n1.apply()
    assert "192.0.2.2" not in n1.run("nft", "list", "set", "inet", "shoal", "guarded")[1]


def test_who_cannot_leave_keeps_nobody_else_from_it(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    ids = [letter * 64 for letter in "abc"]
    paths = [Path(n1("attach", id=container_id, networks=["shop_default"])["netns_path"]) for container_id in ids]
    assert n1.run("umount", str(paths[1]))[0] == 0
    paths[1].unlink()
    paths[1].mkdir()  # cannot be removed as a file
    left = n1("detach_all", ids=ids)
    assert [error.partition(":")[0] for error in left] == ["", "IsADirectoryError", ""]
    paths[1].rmdir()
    assert n1("detach_all", ids=ids) == [""] * 3
