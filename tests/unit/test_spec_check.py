"""What a service's record must hold, whoever sends it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from model import codec
from model.spec import ContainerSpec, Mount, Placement, Resources, ServiceSpec
from model.spec_check import service_problems

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
