"""What a service's record must hold, whoever sends it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from model import codec
from model.spec import Attachment, ContainerSpec, Mount, NetworkSpec, Placement, Port, Resources, ServiceSpec
from model.spec_check import network_problems, service_problems

GOOD = ServiceSpec(
    "web",
    ContainerSpec("busybox", mounts=(Mount("volume", "/data", "data"), Mount("tmpfs", "/tmp"))),
    placement=Placement(("node.role==worker",), ("node.labels.zone",)),
)


def test_a_good_service_has_no_problem() -> None:
    assert service_problems(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "../x"}, "service name '../x': use 1 to 128"),
        ({"name": ""}, "service name ''"),
        ({"replicas": -1}, "service web: replicas -1: expected a number from 0"),
        ({"replicas": 10**7}, "replicas 10000000: expected"),
        ({"single": True, "replicas": 2}, "single container"),
        ({"single": True, "mode": "global"}, "single container"),
        ({"priority": 1001}, "priority 1001: expected a number from -1,000 to 1,000"),
        ({"placement": Placement(("node.rol==x",))}, "unknown key 'node.rol'"),
        ({"placement": Placement((), ("zone",))}, "spread preference 'zone'"),
        ({"placement": Placement(max_replicas_per_node=-1)}, "max_replicas_per_node -1"),
        ({"reservations": Resources(cpus=math.nan)}, "reservations.cpus nan"),
        ({"reservations": Resources(memory_bytes=-5)}, "reservations.memory -5"),
    ],
)
def test_what_is_wrong_with_a_service_is_said(changes: dict[str, Any], expected: str) -> None:
    (problem,) = service_problems(replace(GOOD, **changes))
    assert expected in problem


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": ""}, "it has no image"),
        ({"image": "Busy Box"}, "image reference 'Busy Box'"),
        ({"env": (("A=B", "c"),)}, "environment variable 'A=B'"),
        ({"stop_grace_period_s": -1.0}, "stop_grace_period -1.0"),
        ({"mounts": (Mount("volume", "data", "data"),)}, "mount target 'data'"),
        ({"mounts": (Mount("tmpfs", "/"),)}, "mount target '/'"),
        ({"mounts": (Mount("tmpfs", "/a"), Mount("tmpfs", "/a"))}, "two mounts"),
        ({"mounts": (Mount("bind", "/a", "relative"),)}, "no absolute path"),
        ({"mounts": (Mount("volume", "/a", "../../etc"),)}, "volume name '../../etc'"),
    ],
)
def test_what_is_wrong_with_its_container_is_said(changes: dict[str, Any], expected: str) -> None:
    (problem,) = service_problems(replace(GOOD, container=replace(GOOD.container, **changes)))
    assert expected in problem


def test_unknown_keys_are_found_at_any_depth() -> None:
    plain = codec.to_plain(GOOD)
    assert codec.unknown_keys(ServiceSpec, plain) == []
    plain["replicass"] = 2
    plain["container"]["img"] = "x"
    plain["container"]["mounts"][1]["readonly"] = True
    plain["container"]["healthcheck"] = {"tests": []}
    assert codec.unknown_keys(ServiceSpec, plain) == [
        "container.mounts[1].readonly", "container.img", "container.healthcheck.tests", "replicass",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ports": (Port(0),)}, "port 0: expected a number from 1 to 65535"),
        ({"ports": (Port(80, 70_000),)}, "published port 70000: expected 1 to 65535"),
        ({"ports": (Port(80, 90, published_end=80),)}, "published port 90-80: expected 1 to 65535"),
        ({"ports": (Port(80, protocol="icmp"),)}, "port 80: protocol 'icmp': expected tcp, udp or sctp"),
        ({"ports": (Port(80, host_ip="web"),)}, "port 80: host address 'web' is no address"),
        ({"ports": (Port(80, host_ip="fe80::1%} x"),)}, "port 80: host address 'fe80::1%} x': an address of one link only"),
        ({"ports": (Port(80, 8080), Port(81, 8080))}, "port 8080/tcp is published twice"),
        ({"networks": (Attachment("a"), Attachment("a"))}, "network a is named twice"),
        ({"networks": (Attachment("a"), Attachment("host"))}, "network host cannot be combined with other networks"),
        ({"networks": (Attachment("a", ipv6_address="fd00::9"),)}, "network a: an IPv6 address cannot be chosen"),
        ({"networks": (Attachment("a", ipv4_address="10.0.0"),)}, "network a: '10.0.0' is no address"),
        ({"networks": (Attachment("bridge", ipv4_address="10.0.0.9"),)}, "on networks of your own only"),
    ],
)
def test_what_is_wrong_with_ports_and_networks_is_said(changes: dict[str, Any], expected: str) -> None:
    (problem,) = service_problems(replace(GOOD, container=replace(GOOD.container, **changes)))
    assert expected in problem


def test_a_fixed_address_is_for_one_replica() -> None:
    container = replace(GOOD.container, networks=(Attachment("shop_a", ipv4_address="10.0.0.9"),))
    assert service_problems(replace(GOOD, container=container)) == []
    assert service_problems(replace(GOOD, container=container, replicas=2)) == [
        "service web: network shop_a: address 10.0.0.9 is for one container, and this service has 2 replicas"
    ]
    (problem,) = service_problems(replace(GOOD, container=container, mode="global"))
    assert problem.endswith("this service runs on every node")


def test_ports_of_one_number_and_two_addresses_or_protocols_are_two() -> None:
    ports = (Port(80, 8080, host_ip="10.0.0.1"), Port(80, 8080, host_ip="10.0.0.2"), Port(80, 8080, "udp"), Port(81), Port(82))
    assert service_problems(replace(GOOD, container=replace(GOOD.container, ports=ports))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "a b"}, "network name 'a b': use 1 to 128"),
        ({"name": "ingress"}, "network ingress: this name is shoal's own, as are bridge, host, none, ingress: choose another"),
        ({"driver": "macvlan"}, "network back: there is no driver 'macvlan', only bridge and overlay"),
        ({"driver": "host"}, "network back: there is no driver 'host'"),
        ({"options": (("encrypted", ""),)}, "overlay encryption is not available"),
        ({"subnet": "10.0.0.0/33"}, "network back: subnet '10.0.0.0/33': expected an IPv4 network"),
        ({"subnet": "fd00::/64"}, "expected an IPv4 network; one of IPv6 is named beside it"),
        ({"subnet": "10.0.0.0/31"}, "expected a prefix length from 8 to 30"),
        ({"subnet": "127.0.0.0/16"}, "it is kept for other purposes"),
        ({"subnet6": "fd00::/112"}, "expected an IPv6 network of /96 or larger"),
        ({"subnet6": "fe80::/64"}, "choose one of fd00::/8"),
    ],
)
def test_what_is_wrong_with_a_network_is_said(changes: dict[str, Any], expected: str) -> None:
    (problem,) = network_problems(replace(NetworkSpec("back", "shop"), **changes))
    assert expected in problem


def test_a_good_network_has_no_problem() -> None:
    good = NetworkSpec("back", driver="bridge", subnet="10.9.0.0/16", subnet6="fd00:9::/64", options=(("encrypted", "false"),))
    assert network_problems(good) == []
    assert network_problems(NetworkSpec("host", driver="host", external=True)) == []
