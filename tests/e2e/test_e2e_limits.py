"""Limits of replicas and of machines as the kernel has them, on cgroup v1 and v2 (tests/vm/run.sh), over an agent's death."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lab import cgroups, layout
from tests.e2e.harness import LabUnderTest, eventually, identity
from tests.e2e.leaks import on_node

MIB = 1 << 20
V1 = {"cpu": "cpu/{}/cpu.cfs_quota_us", "memory": "memory/{}/memory.limit_in_bytes", "pids": "pids/{}/pids.max"}
V2 = {"cpu": "{}/cpu.max", "memory": "{}/memory.max", "pids": "{}/pids.max"}
STACK = """
services:
  box:
    image: busybox
    init: true
    command: sleep 100000
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 20}}}
"""


def limits(path: str) -> dict[str, str]:
    """The first word of each limit of a cgroup."""
    files = V2 if cgroups.is_v2() else V1
    return {name: Path("/sys/fs/cgroup", file.format(path)).read_text().split()[0] for name, file in files.items()}


def test_the_kernel_holds_replicas_and_machines_to_their_limits_also_after_the_agent_died(
    lab: LabUnderTest, tmp_path: Path
) -> None:
    lab.apply(tmp_path, STACK, "held")
    (row,) = lab.running("held_box")
    node = row["node"]
    machine = f"{layout.CGROUP_ROOT}/{lab.name}/{node}"
    replica = f"{machine}/replicas/{row['container_id']}"
    wanted = {"cpu": "50000", "memory": str(64 * MIB), "pids": "20"}
    assert limits(replica) == wanted
    record = next(m for m in lab.json("lab", "status", "--name", lab.name)["nodes"] if m["name"] == node)
    own = limits(machine)
    assert (own["cpu"], own["memory"]) == (str(int(record["cpus"] * 100_000)), str(record["memory_bytes"]))

    before = identity(lab.running("held_box"))
    inside = set(cgroups.processes(replica))
    assert inside
    killed = lab.daemon_pids(node, "agent")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: set(lab.daemon_pids(node, "agent")) - set(killed), "another agent")
    eventually(lambda: lab.call("exec", "held_box", "true").code == 0, "the new agent reaches the container")
    assert identity(lab.running("held_box")) == before
    assert (limits(replica), inside & set(cgroups.processes(replica))) == (wanted, inside)
    lab("rm", "held")
    eventually(lambda: not on_node(lab, node), f"nothing left on {node}")
    assert not [root / replica for root in cgroups.hierarchies() if (root / replica).exists()]


def test_no_more_processes_than_the_limit(lab: LabUnderTest) -> None:
    forks = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i + 1)); done; wait"
    done = lab.call("run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", forks)
    assert "can't fork" in done.err, done


def test_the_memory_limit_kills_and_says_so(lab: LabUnderTest) -> None:
    done = lab.call("run", "--name", "greedy", "--memory", "32M", "busybox", "tail", "-c", "60m", "/dev/zero")
    assert done.code == 137, done
    (row,) = lab.replicas("greedy", every=True)
    assert "out of memory: killed at 32.0 MiB" in row["message"]
