"""A service that sleeps: no replica while nobody calls, and nobody who calls is turned away."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

from tests.e2e.harness import LabUnderTest, eventually
from tests.e2e.test_e2e_balance import ask
from tests.e2e.test_e2e_networks import node_address
from tests.patience import PATIENCE

ROUNDS = 3
ASLEEP_S = 30.0
STACK = """
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["8094:8080"]
    x-autoscale:
      min: 0
      max: 2
      metrics: [{connections: 50/s}]
      scale_in: {window: 1s, every: 1s, to_zero_after: 1s}
  client:
    image: shoal/web:1.0
    entrypoint: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
"""


def answered_s(address: str) -> float:
    """Seconds until one request from outside of the cluster was served; it must be."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, 8094, timeout=20 * PATIENCE)
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200
    return time.monotonic() - began


def test_to_zero_and_back_without_a_failed_request(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "nap")
    nodes = [node_address(lab, name) for name in ("n1", "n2", "n3")]
    took: list[float] = []
    for number in range(ROUNDS):
        eventually(lambda: not lab.replicas("nap_web"), "asleep", ASLEEP_S)
        took.append(answered_s(nodes[number % len(nodes)]))
    eventually(lambda: not lab.replicas("nap_web"), "asleep", ASLEEP_S)
    found = ask(lab, "nap_client.1", 4, "web")
    assert found["failed"] == [], "held inside of the network, too"
    print(f"from the first packet to the answer: {', '.join(f'{seconds:.1f}' for seconds in took)} s")
    assert max(took) < 6 * PATIENCE
