"""Fifty times a stack comes and goes while containers and daemons are killed at random; nothing at all is left."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cgroups
from lab.layout import LabPaths
from tests.e2e import leaks
from tests.e2e.harness import ROOT, LabUnderTest, Watchdog, eventually

CYCLES = 50
COUNTED = {"link", "route", "neighbour", "forwarding", "element", "socket", "address", "names", "mount", "cgroup", "process"}
STACK = """
services:
  web:
    image: busybox
    command: sleep 100000
    stop_grace_period: 200ms
    volumes: ["/scratch", "data:/data"]
    tmpfs: [/tmp]
    networks: [default, second]
    ports: ["8097:80", "8097:80/udp"]
    deploy: {replicas: 3}
  job:
    image: busybox
    command: "false"
networks: {second: {enable_ipv6: true}}
volumes: {data: {}}
"""


def kill_one(lab: LabUnderTest, chance: random.Random) -> None:
    """SIGKILL to one process of a random node: a container's, a conmon, or the agent."""
    node = f"n{chance.randint(1, 2)}"
    pids = cgroups.processes(f"shoal-labs/{lab.name}/{node}/replicas") + lab.daemon_pids(node, "agent")
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)


@pytest.mark.timeout(400)
def test_fifty_cycles_with_random_kills_leave_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    file = tmp_path / "compose.yaml"
    file.write_text(STACK)
    lab = LabUnderTest(tmp_path / "config", nodes=2)
    try:
        lab("apply", "-f", str(file), "-p", "come", "--no-wait")
        eventually(lambda: len(lab.running("come_web")) == 3, "three replicas")
        counted = {line.split()[0] for node in ("n1", "n2") for line in leaks.on_node(lab, node)}
        assert counted > COUNTED, "what is not counted while it is there cannot be missed"
        for cycle in range(CYCLES):
            lab("apply", "-f", str(file), "-p", "come", "--no-wait")
            for _ in range(chance.randint(0, 3)):
                kill_one(lab, chance)
            lab.call("rm", "-v", "come", *(["--no-wait"] if cycle % 2 else []))
        eventually(lambda: lab.replicas(every=True) == [], "no replica left", 60)
        for node in ("n1", "n2"):
            eventually(lambda node=node: leaks.on_node(lab, node) == [], f"{node} empty: {leaks.on_node(lab, node)}", 40)  # type: ignore[misc]
    finally:
        lab.down()
    assert leaks.on_host(lab.name) == []


@pytest.mark.parametrize("marker", ["lab.json", "controller/admin.json", "n1"])
def test_a_lab_up_that_is_killed_half_way_is_taken_down_whole(tmp_path: Path, marker: str) -> None:
    name = f"e2e-{secrets.token_hex(4)}"
    environment = {**os.environ, "SHOAL_CONFIG_DIR": str(tmp_path)}
    watchdog = Watchdog(name, environment)
    command = [sys.executable, "-m", "shoal", "lab", "up", "--name", name, "--nodes", "2"]
    up = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=ROOT)
    path = LabPaths(name).state / marker
    eventually(lambda: path.exists() or up.poll() is not None, f"{path} made")
    up.kill()
    up.wait()
    watchdog.end()
    assert leaks.on_host(name) == []
