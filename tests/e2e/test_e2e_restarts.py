"""Names, addresses, services' addresses and published ports survive the death of every daemon, and answer meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.harness import LabUnderTest, addresses, eventually
from tests.e2e.test_e2e_balance import ask
from tests.e2e.test_e2e_networks import fetched, node_address

STACK = """
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["8094:8080"]
    stop_grace_period: 2s
    deploy: {replicas: 3}
  client:
    image: shoal/web:1.0
    entrypoint: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
    deploy: {mode: global}
"""


def plan(lab: LabUnderTest) -> Any:
    """Everything that must stay: address of each replica, of the service, and its published port."""
    service = lab.json("service", "inspect", "up_web")[0]
    return {row["name"]: addresses(row) for row in lab.running("up_web")}, service["vips"], service["ports"]


def test_all_daemons_die_and_nothing_of_the_networks_changes(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "up")
    nodes = {name: node_address(lab, name) for name in ("n1", "n2", "n3")}
    clients = [f"up_client.{name}" for name in nodes]

    def all_reach() -> bool:
        inside = [ask(lab, client, 6, name, threads=1) for client in clients for name in ("web", "web.1")]
        outside = [fetched(f"http://{address}:8094/") for address in nodes.values()]
        return all(not found["failed"] for found in inside) and all(outside)

    eventually(all_reach, "names and published ports on all nodes", 10)
    before = plan(lab)
    for pid in [pid for name in nodes for pid in lab.daemon_pids(name, "agent")] + lab.daemon_pids("controller", "etcd"):
        os.kill(pid, signal.SIGKILL)
    for address in nodes.values():  # the kernel balances without any daemon
        assert fetched(f"http://{address}:8094/")
    for pid in lab.daemon_pids("controller", "controller"):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: lab.call("ps").code == 0, "the controller is back", 20)
    eventually(lambda: set(lab.node_states().values()) == {"ready"}, "all nodes ready", 20)
    eventually(all_reach, "names and published ports after it", 10)
    assert plan(lab) == before
    lab("service", "scale", "up_web=5")
    eventually(lambda: len({addresses(row) for row in lab.running("up_web")}) == 5, "five different addresses", 10)
    eventually(lambda: len(ask(lab, clients[0], 200, "web")["seen"]) == 5, "the new ones get traffic", 10)
