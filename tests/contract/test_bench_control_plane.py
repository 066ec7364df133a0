"""The bench of the control plane at its smallest: real etcd, controllers and light agents; its numbers are what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.control_plane_kit.wire import Told, replica_bytes, status_bytes
from protos import node_pb2 as pb
from tests.contract.controller_harness import ROOT

pytestmark = [pytest.mark.contract, pytest.mark.timeout(90)]
STEPS = ("deploy", "scale", "update", "lost")
COSTS = ("s", "cpu_s", "peak_mb", "txns", "etcd_bytes", "bytes")


def test_a_small_run_ends_with_every_replica_acknowledged_and_leaves_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "bench.control_plane", "--json", "--nodes", "20", "--replicas", "400", "--services", "4",
        "--node-timeout", "1", "--processes", "1", "--only", "deploy,report,scale,update,lose",
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    assert (figures["nodes"], figures["replicas"], figures["services"]) == (20, 400, 4)
    assert all(figures[f"{step}_{cost}"] >= 0 for step in STEPS for cost in COSTS)
    assert [figures[f"{step}_acked"] for step in STEPS] == [400, 401, 401, 401]
    assert [figures[f"{step}_running"] for step in ("report", *STEPS[1:])] == [400, 401, 401, 401]
    assert figures["report_acked"] == 400
    assert figures["report_s"] > 0.05, "containers take time"
    assert (figures["scale_added"], figures["update_added"], figures["update_removed"]) == (1, 100, 100)
    assert figures["lost_nodes"] == 2
    assert figures["lost_added"] in (40, 41), "what was on the two nodes, and nothing else"
    assert figures["lost_s"] > 0.8, "nobody is down before the timeout, less the time since its last heartbeat"
    assert figures["deploy_txns"] >= 1
    assert figures["deploy_new_leads"] == 0
    assert figures["deploy_etcd_bytes"] > figures["scale_etcd_bytes"]
    assert not [*tmp_path.glob("shoal-bench-cp-*")]


def test_status_by_hand_is_what_protobuf_says() -> None:
    slots = [(1, 1, 1_700_000_000_000), (300, 2, 1_700_000_000_001)]
    known = [_slot(*slot) for slot in slots]
    message = pb.FromNode.FromString(status_bytes(True, replica_bytes("0123456789abcdef", known), [("gone", _slot(5, 1, 7))]))
    assert message.status.whole
    assert [(row.service_id, row.slot, row.created_ms) for row in message.status.gone] == [("gone", 5, 7)]
    rows = message.status.replicas
    assert [(row.key.slot, row.version, row.key.created_ms) for row in rows] == slots
    assert {(row.key.service_id, row.state) for row in rows} == {("0123456789abcdef", "running")}
    assert all(len(row.container_id) == 64 and row.addresses[0].network == "bridge" for row in rows)
    assert len({row.container_id for row in rows} | {row.addresses[0].address for row in rows}) == 4


def test_what_a_node_must_run_is_read_as_protobuf_says() -> None:
    service = pb.Service(
        service_id="id1", name="web", specs=[pb.Spec(version=2, json=b"{}")], slots=[pb.Slot(slot=3, version=2)]
    )
    desired = pb.Desired(generation=7, whole=True, services=[service], removed_services=["id0"])
    found = Told.FromString(pb.ToNode(desired=desired).SerializeToString()).desired
    assert (found.generation, found.whole, list(found.removed_services)) == (7, True, ["id0"])
    assert [(row.service_id, row.specs[0].version) for row in found.services] == [("id1", 2)]
    assert [pb.Slot.FromString(slot) for slot in found.services[0].slots] == list(service.slots)


def _slot(slot: int, version: int, created_ms: int) -> bytes:
    return pb.Slot(slot=slot, version=version, created_ms=created_ms).SerializeToString()
