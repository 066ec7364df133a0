"""A service that scales itself, under real load through its published port: out within seconds, back to its minimum afterwards,
and no caller notices.

The windows are short ones of the policy; the rule averages over a minute, so coming down takes about that long.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.callers import Callers
from tests.e2e.harness import LabUnderTest, eventually
from tests.e2e.test_e2e_networks import fetched, node_address
from tests.patience import PATIENCE

PORT = 8096
FIRST_S = 6.0
"""Twice what it takes on a machine that does nothing else; two labs and the simulation share two cores here."""
STACK = f"""
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["{PORT}:8080"]
    stop_grace_period: 10s
    x-autoscale:
      min: 3 # one on each node, so that the image is there
      max: 8
      metrics: [connections: 5/s]
      scale_out: {{at_least: 4, every: 5s}}
      scale_in: {{window: 3s, every: 2s, step: 50%}}
"""


def row(lab: LabUnderTest) -> dict[str, Any]:
    (found,) = lab.json("autoscale", "ls")
    return dict(found)


@pytest.mark.timeout(400 * PATIENCE)
def test_load_raises_the_replicas_and_its_end_brings_them_back(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "auto")
    nodes = [node_address(lab, name) for name in ("n1", "n2", "n3")]
    for node in nodes:
        eventually(lambda node=node: fetched(f"http://{node}:{PORT}/") != "", f"published on {node}", 10)  # type: ignore[misc]
    assert len(lab.running("auto_web")) == 3
    eventually(lambda: not row(lab)["metrics"][0]["problem"], "nodes tell their traffic", 20)

    began_ms = time.time() * 1000
    with Callers(nodes, PORT, threads=8, pause_s=8 / 120) as load:
        eventually(lambda: len(load.first_seen) > 3, "a fourth replica answers", 20)
        first_s = sorted(load.first_seen.values())[3]
        eventually(lambda: len(lab.running("auto_web")) >= 6, "as many as the load needs", 30)
        out = row(lab)
    decided_s = (lab.json("autoscale", "history", "auto_web")[0]["at_ms"] - began_ms) / 1000
    print(f"\nfrom the step in load: decided after {decided_s:.2f} s, first new replica's answer after {first_s:.2f} s")
    assert load.failed == []
    assert first_s < FIRST_S * PATIENCE
    assert "connections" in out["last"]["sentence"]
    assert len(lab.json("autoscale", "history", "auto_web")) >= 1
    assert "scales itself from 3 to 8 replicas by connections (5/s a replica)" in lab("autoscale", "explain", "auto_web")

    ended = time.monotonic()
    with Callers(nodes, PORT, threads=4, pause_s=4 / 6) as rest:  # a little goes on: is nobody's request lost on the way down?
        eventually(lambda: row(lab)["now"] == 3, "the minimum again", 150)
        eventually(lambda: len(lab.running("auto_web")) == 3, "three replicas that run", 30)
    print(f"back at the minimum {time.monotonic() - ended:.0f} s after the load; {rest.asked} requests meanwhile")
    assert rest.failed == []
    events = lab("events")
    assert "autoscaling: 3 -> " in events

    lab("scale", "auto_web=4")
    assert row(lab)["floor"] == 4
    lab.apply(tmp_path, STACK, "auto")
    assert len(lab.running("auto_web")) == 4
    lab("rm", "auto")
