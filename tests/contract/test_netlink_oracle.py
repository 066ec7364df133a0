"""Our route netlink encoding against pyroute2, the oracle: what we ask for is what pyroute2 reads, and the other way round."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from agent.plan import netlink, netlink_read
from agent.plan.netlink import Request

pytestmark = pytest.mark.contract


def decoded(kind: Any, request: Request) -> Any:
    message = kind(netlink.seal(request, 7))
    message.decode()
    assert message["header"]["type"] == request.type
    assert message["header"]["sequence_number"] == 7
    return message


def test_vxlan_device() -> None:
    message = decoded(ifinfmsg, netlink.add_vxlan("shx-4097", "0a:01:0a:4d:01:00", 1450, 4097, "192.0.2.1", 4789))
    assert message.get_attr("IFLA_IFNAME") == "shx-4097"
    assert message.get_attr("IFLA_ADDRESS") == "0a:01:0a:4d:01:00"
    assert message.get_attr("IFLA_MTU") == 1450
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA")
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    assert data.get_attr("IFLA_VXLAN_ID") == 4097
    assert data.get_attr("IFLA_VXLAN_LOCAL") == "192.0.2.1"
    assert data.get_attr("IFLA_VXLAN_PORT") == 4789
    assert data.get_attr("IFLA_VXLAN_LEARNING") == 0


def test_veth_pair_with_its_other_end_in_a_namespace() -> None:
    message = decoded(ifinfmsg, netlink.add_veth("shv-abc00", 5, 1450, "eth0", 2, "0a:01:0a:4d:01:02", 9))
    assert message.get_attr("IFLA_MASTER") == 5
    peer = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer["index"], peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_NET_NS_FD")) == (2, "eth0", 9)


def test_addresses_routes_and_neighbours() -> None:
    address = decoded(ifaddrmsg, netlink.add_address(3, "10.77.1.1/24"))
    assert (address["index"], address["prefixlen"], address.get_attr("IFA_LOCAL")) == (3, 24, "10.77.1.1")
    route = decoded(rtmsg, netlink.put_route("10.77.2.0/24", "10.77.2.0", 4, onlink=True))
    assert (route["dst_len"], route["flags"]) == (24, netlink.RTNH_F_ONLINK)
    assert route.get_attr("RTA_DST") == "10.77.2.0"
    assert route.get_attr("RTA_GATEWAY") == "10.77.2.0"
    assert route.get_attr("RTA_OIF") == 4
    fdb = decoded(ndmsg, netlink.put_fdb("0a:01:0a:4d:02:00", "192.0.2.2", 4))
    assert (fdb["family"], fdb["ifindex"], fdb["flags"]) == (netlink.AF_BRIDGE, 4, netlink.NTF_SELF)
    assert fdb.get_attr("NDA_LLADDR") == "0a:01:0a:4d:02:00"
    assert fdb.get_attr("NDA_DST") == "192.0.2.2"


def test_a_containers_port_and_the_settings_of_links() -> None:
    message = decoded(ifinfmsg, netlink.set_port("shv-abc00", ipv6=True))
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    assert info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    flags = ("ISOLATED", "LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD", "BCAST_FLOOD")
    assert [data.get_attr(f"IFLA_BRPORT_{flag}") for flag in flags] == [1, 0, 0, 0, 0]
    settings, up = netlink.set_link("shb-4097", "0a:01:0a:4d:01:01", 1450, ipv6=True)
    message = decoded(ifinfmsg, settings)
    assert (message["change"], decoded(ifinfmsg, up)["flags"]) == (0, netlink.IFF_UP)
    conf = message.get_attr("IFLA_AF_SPEC").get_attr("AF_INET")
    assert message.get_attr("IFLA_AF_SPEC").get_attr("AF_INET6").get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1
    assert conf is not None


def test_ipv6_and_what_goes_nowhere() -> None:
    address = decoded(ifaddrmsg, netlink.add_address(3, "fd00::a4d:101/112", prefix_route=False))
    assert (address["family"], address["prefixlen"]) == (netlink.AF_INET6, 112)
    assert address.get_attr("IFA_FLAGS") == netlink.IFA_F_NODAD | netlink.IFA_F_NOPREFIXROUTE
    nowhere = decoded(rtmsg, netlink.put_route("10.77.0.0/16", "", 0))
    assert (nowhere["type"], nowhere.get_attr("RTA_PRIORITY")) == (netlink.RTN_UNREACHABLE, netlink.METRIC_LAST)
    direct = decoded(rtmsg, netlink.put_route("10.77.1.1/32", "", 4))
    assert (direct["scope"], direct["type"], direct.get_attr("RTA_OIF")) == (netlink.RT_SCOPE_LINK, netlink.RTN_UNICAST, 4)
    by_six = decoded(rtmsg, netlink.put_route("fd00::/112", "fd00::1", 4))
    assert (by_six["family"], by_six.get_attr("RTA_GATEWAY")) == (netlink.AF_INET6, "fd00::1")
    port = decoded(ndmsg, netlink.put_fdb("0a:01:0a:4d:01:02", "", 7))
    assert (port["state"], port["flags"]) == (netlink.NUD_NOARP, netlink.NTF_MASTER)


def test_we_read_what_pyroute2_writes() -> None:
    message = ifinfmsg()
    message["index"], message["flags"], message["change"] = 12, 1, 1
    message["attrs"] = [
        ("IFLA_IFNAME", "shb-4097"),
        ("IFLA_MTU", 1450),
        ("IFLA_ADDRESS", "0a:01:0a:4d:01:01"),
        ("IFLA_MASTER", 3),
    ]
    message["header"]["type"] = netlink.RTM_NEWLINK
    message.encode()
    ((kind, _, payload),) = netlink_read.messages(bytes(message.data))
    assert kind == netlink.RTM_NEWLINK
    assert netlink_read.parse_link(payload) == netlink_read.Link(12, "shb-4097", 1450, True, "0a:01:0a:4d:01:01", 3)
