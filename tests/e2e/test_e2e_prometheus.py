"""A real Prometheus on a lab: it finds everything by itself, and what it says is what is."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from tests.e2e.harness import LabUnderTest, eventually

STACK = """
services:
  web:
    image: shoal/web:1.0
    x-metrics: {port: 8080}
    deploy: {replicas: 3}
  quiet:
    image: shoal/web:1.0
    network_mode: none
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    lab = LabUnderTest(tmp_path_factory.mktemp("config"), 2, "--prometheus")
    yield lab
    lab.down()


def query(url: str, expression: str) -> dict[str, float]:
    """Value by the series' telling label."""
    with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}", timeout=10) as response:
        rows: list[dict[str, Any]] = json.load(response)["data"]["result"]
    names = ("replica", "node", "service", "controller")
    return {next((row["metric"][name] for name in names if name in row["metric"]), ""): float(row["value"][1]) for row in rows}


def test_it_finds_everything_and_tells_the_truth(watched: LabUnderTest, tmp_path: Path) -> None:
    url = Lab(watched.name).record().prometheus
    watched.apply(tmp_path, STACK, "shop")

    def says(expression: str, wanted: dict[str, float]) -> None:
        eventually(lambda: query(url, expression) == wanted, f"{expression} == {wanted}")

    says('up{job="shoal-controllers"}', {watched.name: 1})
    says('up{job="shoal-agents"}', {"n1": 1, "n2": 1})
    says("shoal_service_replicas_ready", {"shop_web": 3, "shop_quiet": 1})
    says('up{job="shoal-replicas"}', {"shop_web.1": 1, "shop_web.2": 1, "shop_web.3": 1})
    says("max by (service) (shoal_container_memory_bytes > 0) > bool 0", {"shop_web": 1, "shop_quiet": 1})
    says("service:shoal_replicas_missing:max", {"shop_web": 0, "shop_quiet": 0})
    watched("service", "scale", "shop_web=1")
    says("shoal_service_replicas_ready", {"shop_web": 1, "shop_quiet": 1})
    says('count by (service) (up{job="shoal-replicas"})', {"shop_web": 1})


def test_a_lost_node_is_told(watched: LabUnderTest) -> None:
    url = Lab(watched.name).record().prometheus
    watched.lab("kill", "n2")
    eventually(lambda: query(url, 'sum(shoal_nodes{state!="ready"})') == {"": 1}, "the node is missed")
    watched.lab("start", "n2")
    eventually(lambda: query(url, 'up{job="shoal-agents"}') == {"n1": 1, "n2": 1}, "it is back")
