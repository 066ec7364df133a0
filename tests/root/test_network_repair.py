"""What others change of the node's networks is put right and said, and what is not ours stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.network_kit import PREFIX6, SECOND, SLICES, Node, two_nodes

pytestmark = pytest.mark.root


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    with two_nodes(tmp_path) as found:
        yield found


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


def test_that_no_network_is_left_is_told_too_when_the_agent_was_killed_on_the_way(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply("n2")
    n1.stop()
    n1.start()
    assert n1("told") == [], "they may be yet to come"
    n1("apply", networks=[])
    assert n1("told") == [[]]
    assert n1("repair") == []
    assert n1("told") == [[]]
    assert [row for row in n1.run("ip", "-br", "link")[1].splitlines() if row.startswith("sh")] == []
    assert "4097" not in n1.run("nft", "list", "ruleset")[1]


def test_one_network_that_cannot_be_made_leaves_nobody_without_rules(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply("n2")
    assert (
        n1.run("sh", "-ec", "ip link del shx-4097; ip link add other0 type vxlan id 4097 dstport 4789 local 192.0.2.1")[0] == 0
    )
    assert n1.run("nft", "delete", "table", "inet", "shoal")[0] == 0
    assert any("inet shoal" in sentence for sentence in n1("repair"))
    with pytest.raises(RuntimeError, match="shx-4097"):
        n1("apply", networks=[n1.network(), SECOND])
    assert "shb-4098" in n1.run("nft", "list", "table", "inet", "shoal")[1]
    assert n1.run("ip", "link", "del", "other0")[0] == 0
    assert any("shx-4097" in sentence for sentence in n1("repair"))
    assert n1("repair") == []


def test_a_link_into_no_container_is_removed(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply("n2")
    n1("attach", id="a" * 64, networks=["shop_default"])
    assert n1.run("ip", "link", "add", "shv-stray00", "type", "veth", "peer", "name", "other0")[0] == 0
    n1("repair")
    links = n1.run("ip", "-br", "link")[1]
    assert ("shv-stray00" in links, LINK in links) == (False, True)
