"""Addresses that the kernel's NetworkDriver gives: IPv6, fixed ones, resting ones, the own bridge's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.network_kit import PREFIX6, Node, two_nodes

pytestmark = pytest.mark.root


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    with two_nodes(tmp_path) as found:
        yield found


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
