"""Ports of mode host: which, and under which numbers; and what docker inspect shows of them. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.images.records import ImageConfig
from agent.plan.inspect import inspected
from agent.plan.network import NetworkWanted
from agent.plan.publish import again, exposed, host_ports
from agent.plan.records import ImageFacts, Life, ReplicaId
from agent.plan.status import replica_status
from model.spec import Attachment, ContainerSpec, Port, ServiceSpec

NET = NetworkWanted("shop_default", 7, "10.0.0.0/16", "10.0.1.0/24", prefix6="fd00:1::/96")
HOST = Port(80, 8080, mode="host", host_ip="127.0.0.1")
SPEC = ContainerSpec("web:1", ports=(HOST, Port(443, 8443)), networks=(Attachment("shop_default", ("www",)),))


def life(spec: ContainerSpec = SPEC) -> Life:
    service = ServiceSpec("shop_web", spec)
    return Life(
        ReplicaId("s1", 1, 7, 1), service, "shop_web.1", stage="running", attached=True, netns="ns",
        addresses=(("shop_default", "10.0.1.5/16"),), ports=(("80/tcp", "127.0.0.1:8080"),), container_id="c" * 64,
        image=ImageFacts("sha", exposed_ports=("80", "53/udp", "9000-9001/tcp")),
    )  # fmt: skip


def test_only_ports_of_mode_host_are_the_nodes_own() -> None:
    assert host_ports(life()) == (HOST,)


def test_publish_all_takes_what_image_and_spec_expose() -> None:
    every = host_ports(life(replace(SPEC, publish_all=True, expose=("53/udp", "7"))))
    assert [(port.target, port.protocol, port.published, port.mode) for port in every] == [
        (80, "tcp", 8080, "host"), (53, "udp", 0, "host"), (9000, "tcp", 0, "host"), (9001, "tcp", 0, "host"),
        (7, "tcp", 0, "host"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "x", "80/icmp", "80-x", "70000", "0", "-5"])
def test_what_is_no_port_is_none(text: str) -> None:
    assert tuple(exposed(text)) == ()


def test_a_number_that_was_chosen_is_asked_for_again() -> None:
    chosen, ranged, fixed = Port(80, 0, mode="host"), Port(81, 9000, mode="host", published_end=9009), HOST
    had = (("80/tcp", "0.0.0.0:32768"), ("81/tcp", "0.0.0.0:9004"))
    assert again((chosen, ranged, fixed), had) == (
        replace(chosen, published=32768), replace(ranged, published=9004, published_end=0), fixed,
    )  # fmt: skip
    assert again((ranged,), (("81/tcp", "0.0.0.0:40000"),)) == (ranged,)
    assert [port.published for port in again((chosen, chosen), had)] == [32768, 0]


def test_ports_are_reported_while_the_replica_has_them() -> None:
    assert replica_status(life()).ports == (("80/tcp", "127.0.0.1:8080"),)
    assert replica_status(replace(life(), stage="none")).ports == ()


def test_inspect_shows_networks_and_ports_as_docker_does() -> None:
    spec = replace(SPEC, links=(("shop_db", "db"),))
    seen = inspected(life(spec), ImageConfig(exposed_ports=("80", "53/udp")), 7, (), (NET,))
    settings = seen["NetworkSettings"]
    assert settings["Ports"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "53/udp": None,
        "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8443"}],
    }
    assert settings["IPAddress"] == ""
    row = settings["Networks"]["shop_default"]
    assert (row["IPAddress"], row["IPPrefixLen"], row["Gateway"]) == ("10.0.1.5", 16, "10.0.1.1")
    assert (row["GlobalIPv6Address"], row["GlobalIPv6PrefixLen"], row["IPv6Gateway"]) == (
        "fd00:1::a00:105",
        112,
        "fd00:1::a00:101",
    )
    assert (row["MacAddress"], row["Aliases"], row["Links"]) == ("0a:07:0a:00:01:05", ["www"], ["shop_db:db"])
    host = seen["HostConfig"]
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "443/tcp": [{"HostIp": "", "HostPort": "8443"}],
    }
    assert (host["NetworkMode"], host["Links"]) == ("shop_default", ["/shop_db:/shop_web.1/db"])


def test_the_bridges_address_stands_at_the_top_too() -> None:
    bridged = replace(life(ContainerSpec("web:1")), addresses=(("bridge", "172.31.0.9/20"),), ports=())
    settings = inspected(bridged, ImageConfig(), 7, (), ())["NetworkSettings"]
    assert (settings["IPAddress"], settings["Gateway"]) == ("172.31.0.9", "172.31.0.1")
    assert settings["Networks"]["bridge"]["IPPrefixLen"] == 20
