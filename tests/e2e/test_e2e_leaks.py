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
from typing import Any

import pytest

from cli.client import Client
from cli.compose_files import load_compose
from lab import cgroups
from lab.cluster import Lab
from lab.layout import LabPaths
from model.errors import Unavailable
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


def kinds(lab: LabUnderTest) -> set[str]:
    """Of everything there is; some of it is written a moment after the replicas run."""
    return {line.split()[0] for node in ("n1", "n2") for line in leaks.on_node(lab, node)}


@pytest.mark.timeout(400)
def test_fifty_cycles_with_random_kills_leave_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    file = tmp_path / "compose.yaml"
    file.write_text(STACK)
    project = load_compose([str(file)], project_name="come").project
    lab = LabUnderTest(tmp_path / "config", nodes=2)
    try:
        with Lab(lab.name).client() as client:  # in this process: a hundred commands are waited for
            client.put("/v1/stacks/come", project)
            eventually(lambda: running(client) == 3, "three replicas")
            eventually(lambda: kinds(lab) > COUNTED, "each kind: what is not counted while it is there cannot be missed")
            assert lab.lab("exec", "n1", "--", "nft", "list", "tables") == lab.on("n1", "nft", "list", "tables")
            for cycle in range(CYCLES):
                cycle_once(lab, client, project, chance, gone=cycle % 4 == 3)
            eventually(lambda: not client.get("/v1/replicas", all=True), "no replica left", 60)
        for node in ("n1", "n2"):
            assert leaks.left_on(lab, node) == [], node
    finally:
        lab.down()
    assert leaks.on_host(lab.name) == []


def cycle_once(lab: LabUnderTest, client: Client, project: Any, chance: random.Random, *, gone: bool) -> None:
    """The stack comes, as far as chance will have it, something is killed, and it goes. `gone`: its volumes too, and nothing is
    left when the next one comes; else that comes on top of what is still going."""
    client.put("/v1/stacks/come", project)
    far = chance.choice((0, 0, 1, 3))
    eventually(lambda: running(client) >= far, f"{far} of three replicas")
    for _ in range(chance.randint(0, 3)):
        kill_one(lab, chance)
    with contextlib.suppress(Unavailable):  # it says that a volume stays where the agent was killed a moment ago
        client.delete("/v1/stacks/come", volumes=gone)
    if gone:
        eventually(lambda: not client.get("/v1/replicas", all=True), "no replica left", 60)


def running(client: Client) -> int:
    return sum(row["state"] == "running" and row["service"] == "come_web" for row in client.get("/v1/replicas"))


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
