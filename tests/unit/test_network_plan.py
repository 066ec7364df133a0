"""The pure side of the network: names, addresses, entries and rules as data."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from agent.plan import attachment, entries, ipam
from agent.plan.entries import Address, Forward, Neighbour, Route
from agent.plan.network import (
    LOCAL_SUBNETS,
    NetworkWanted,
    PeerWanted,
    free_subnet,
    link_plan,
    local_bridge,
    overlap,
    veth_name,
)

SHOP = NetworkWanted("shop_default", 4097, "10.77.0.0/16", "10.77.1.0/24", (PeerWanted("n2", "192.0.2.2", "10.77.2.0/24"),))


def test_one_route_neighbour_and_fdb_entry_for_each_peer() -> None:
    plan = link_plan(SHOP, 1500)
    assert (plan.bridge, plan.vxlan, plan.gateway, plan.vtep, plan.mtu) == (
        "shb-4097", "shx-4097", "10.77.1.1/24", "10.77.1.0", 1450,
    )  # fmt: skip
    (remote,) = plan.remotes
    assert (remote.slice, remote.vtep, remote.underlay) == ("10.77.2.0/24", "10.77.2.0", "192.0.2.2")
    peer = link_plan(NetworkWanted("shop_default", 4097, SHOP.subnet, "10.77.2.0/24"), 1500)
    assert remote.mac == peer.vtep_mac


def test_a_local_bridge_has_no_vxlan_device_and_the_whole_mtu() -> None:
    plan = link_plan(local_bridge(), 1500)
    assert (plan.bridge, plan.vxlan, plan.remotes, plan.mtu) == ("shb-0", "", (), 1500)


def test_link_names_fit_the_kernel() -> None:
    assert len(veth_name("f" * 64, 99)) <= 15
    assert len(link_plan(NetworkWanted("n", 2**24 - 1, "10.0.0.0/16", "10.0.1.0/24"), 1500).vxlan) <= 15


def test_overlapping_networks_are_named() -> None:
    one, two = link_plan(SHOP, 1500), link_plan(NetworkWanted("other", 4098, "10.77.0.0/17", "10.77.3.0/24"), 1500)
    assert overlap([one, two]) == ("shop_default", "other")
    assert overlap([one]) is None


@given(st.integers(24, 29), st.integers(0, 40))
def test_addresses_are_used_again_as_late_as_possible(prefix: int, count: int) -> None:
    net = ipaddress.ip_network(f"10.1.2.0/{prefix}")
    size = net.num_addresses - 3
    given_out: list[str] = []
    last = ""
    for _ in range(count):
        last = ipam.next_address(str(net), (), last) or ""
        given_out.append(last)
    assert all(ipaddress.ip_address(address) in net for address in given_out)
    recent = given_out[-size:]
    assert len(set(recent)) == len(recent)
    assert not {str(net[0]), str(net[1]), str(net[-1])} & set(given_out)


def test_a_full_slice_gives_none() -> None:
    taken = {f"10.1.2.{n}" for n in range(2, 7)}
    assert ipam.next_address("10.1.2.0/29", taken, "") is None
    assert ipam.next_address("10.1.2.0/29", taken - {"10.1.2.4"}, "10.1.2.6") == "10.1.2.4"


def test_an_address_the_spec_asks_for_must_be_the_nodes_own_and_free() -> None:
    pool = ipam.Pool("10.1.2.0/29", taken=("10.1.2.2", "10.9.9.8"), fixed=("10.9.9.8", "10.9.9.9"), elsewhere=("10.1.2.5",))
    assert ipam.choose(pool, "10.1.2.6", "") == ("10.1.2.6", "")
    assert ipam.choose(pool, "10.9.9.9", "") == ("10.9.9.9", "")
    for address in ("10.1.2.2", "10.9.9.8"):
        assert "another container on this node" in ipam.refusal(pool, address)
    assert "on another node" in ipam.refusal(pool, "10.1.2.5")
    for address in ("10.1.2.0", "10.1.2.1", "10.1.2.7", "10.1.3.2"):
        assert "not one of this node's addresses" in ipam.refusal(pool, address)
    assert ipam.refusal(pool, "web") == "it is no IPv4 address"


def test_a_full_slice_says_what_rests() -> None:
    pool = ipam.Pool("10.1.2.0/29", taken={f"10.1.2.{n}" for n in (2, 3, 4)}, resting={"10.1.2.5", "10.1.2.6", "10.1.2.2"})
    assert ipam.choose(pool, "", "") == (
        "", "every address of this node's slice 10.1.2.0/29 is taken; 2 of them rest until every node forgot them",
    )  # fmt: skip


def test_everything_of_a_network_as_entries() -> None:
    peer = PeerWanted("n2", "192.0.2.2", "10.77.2.0/24", ("10.77.1.9",))
    wanted = NetworkWanted("n", 4097, "10.77.0.0/16", "10.77.1.0/24", (peer,), prefix6="fd00::/96", addresses=("10.77.8.8",))
    mac = "0a:01:0a:4d:02:00"
    assert set(entries.wanted(link_plan(wanted, 1500))) == {
        Address("shb-4097", "10.77.1.1/24"), Route("10.77.1.0/24", "", "shb-4097"), Route("10.77.0.0/16"),
        Address("shb-4097", "fd00::a4d:101/120"), Route("fd00::a4d:100/120", "", "shb-4097"), Route("fd00::a4d:0/112"),
        Address("shx-4097", "10.77.1.0/32"), Address("shx-4097", "fd00::a4d:100/128"),
        Route("10.77.8.8/32", "", "shb-4097"), Route("fd00::a4d:808/128", "", "shb-4097"),
        Neighbour("shx-4097", "10.77.2.0", mac), Forward("shx-4097", mac, "192.0.2.2"),
        Neighbour("shx-4097", "fd00::a4d:200", mac),
        Route("10.77.2.0/24", "10.77.2.0", "shx-4097"), Route("fd00::a4d:200/120", "fd00::a4d:200", "shx-4097"),
        Route("10.77.1.9/32", "10.77.2.0", "shx-4097"), Route("fd00::a4d:109/128", "fd00::a4d:200", "shx-4097"),
    }  # fmt: skip


def test_a_route_to_nowhere_and_one_to_somewhere_stand_beside_each_other() -> None:
    rows = (Route("10.1.0.0/24", "", "shb-1"), Route("10.1.0.0/24", "10.1.0.0", "shx-1"), Route("10.1.0.0/24"))
    here, there, nowhere = map(entries.key, rows)
    assert here == there != nowhere


def test_every_link_of_a_container_may_send_from_every_of_its_addresses() -> None:
    back = link_plan(NetworkWanted("back", 4098, "10.78.0.0/16", "10.78.1.0/24", internal=True), 1500)
    one = attachment.interface("c" * 64, 0, back, "10.78.1.5")
    two = attachment.interface("c" * 64, attachment.next_number([one]), link_plan(SHOP, 1500), "10.77.1.2")
    assert (one.link, two.link) == ("shv-ccccccccc00", "shv-ccccccccc01")
    rows = {(row.link, row.mac, row.address) for row in attachment.rows([one, two])}
    assert rows == {(by.link, by.mac, owner.address) for by in (one, two) for owner in (one, two)}
    plans = {"back": back, "shop_default": link_plan(SHOP, 1500)}
    assert attachment.ways_out(plans, [one, two]) == (two, None)
    assert attachment.next_number([two]) == 0


def test_the_nodes_own_bridge_goes_out_of_the_way() -> None:
    assert free_subnet(LOCAL_SUBNETS, ()) == "172.30.0.0/20"
    assert free_subnet(LOCAL_SUBNETS, ("172.16.0.0/12",)) == "10.213.0.0/20"
    assert free_subnet(LOCAL_SUBNETS, ("172.30.1.0/24", "172.29.3.4/32")) == "172.28.0.0/20"
    assert free_subnet(LOCAL_SUBNETS, ("172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16")) is None
