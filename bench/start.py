"""From `apply` to all running: `python -m bench.start [--counts 1,10,50] [--nodes 5] [--rounds 3]`. Needs root.

Measured on a lab of its own: wall time until the API shows every replica running, containers per second, CPU of ALL processes
of the lab (controller, etcd, agents, conmon, crun, containers; from the lab's cgroup), by role; memory of each daemon and
per container (proportional set size of everything on the nodes, less what it was when they were empty).

Rules: medians of rounds are quoted, with minimum and maximum; the image is on every node before the clock starts.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import figures
from cli.client import Client
from lab import cgroups
from lab.cluster import Lab
from lab.layout import CGROUP_ROOT, LabPaths


def project(count: int) -> dict[str, Any]:
    """The resolved model of a stack of `count` sleepers."""
    from model.compose import load_project

    text = f"services: {{web: {{image: busybox, command: sleep 100000, deploy: {{replicas: {count}}}}}}}"

    class One:
        def read(self, path: str) -> bytes:
            return text.encode()

        def exists(self, path: str) -> bool:
            return path == "/bench/compose.yaml"

    return load_project(One(), ["/bench/compose.yaml"], {}, project_name="bench").project


def cpu_s(path: str) -> float:
    """CPU seconds used by everything that ever ran in a cgroup."""
    if cgroups.is_v2():
        text = Path(f"/sys/fs/cgroup/{path}/cpu.stat").read_text()
        return int(text.split()[1]) / 1e6
    return int(Path(f"/sys/fs/cgroup/cpuacct/{path}/cpuacct.usage").read_text()) / 1e9


def pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def running(client: Client, count: int) -> bool:
    rows = client.get("/v1/replicas", stack="bench", index=client.index or None, wait=1)
    return bool(sum(row["state"] == "running" for row in rows) == count)


def measure(lab: Lab, client: Client, count: int) -> dict[str, float]:
    """One round: apply, wait, read; then remove and wait until nothing is left."""
    root = f"{CGROUP_ROOT}/{lab.name}"
    machines = [machine.name for machine in lab.record().machines]
    before = {name: cpu_s(f"{root}/{name}") for name in machines}
    body = project(count)
    begin = time.monotonic()
    client.put("/v1/stacks/bench", body)
    client.index = 0
    while not running(client, count):
        assert time.monotonic() - begin < 120, "not running after two minutes"
    wall = time.monotonic() - begin
    used = {name: cpu_s(f"{root}/{name}") - before[name] for name in machines}
    nodes = sum(value for name, value in used.items() if name.startswith("n"))
    found = {
        "wall_s": wall,
        "per_s": count / wall,
        "cpu_ms_per_container": 1000 * sum(used.values()) / count,
        "of_nodes_ms": 1000 * nodes / count,
        "of_controller_ms": 1000 * used["controller"] / count,
    }
    client.delete("/v1/stacks/bench")
    end = time.monotonic() + 60
    while client.get("/v1/replicas", stack="bench", all=True):
        assert time.monotonic() < end, "replicas are left after a minute"
        time.sleep(0.05)
    return found


def memory(lab: Lab, client: Client, count: int) -> dict[str, float]:
    """Megabytes: daemons with `count` containers running, and what each container costs besides its own process."""
    paths = LabPaths(lab.name)
    nodes = [machine.name for machine in lab.record().nodes()]

    def of_nodes() -> int:
        return sum(pss_bytes(pid) for node in nodes for pid in cgroups.processes(f"{paths.cgroup}/{node}"))

    empty = of_nodes()
    client.put("/v1/stacks/bench", project(count))
    client.index = 0
    while not running(client, count):
        pass
    own = sum(pss_bytes(pid) for node in nodes for pid in cgroups.processes(f"{paths.cgroup}/{node}/replicas"))
    full = of_nodes()
    agents = [max(map(rss_bytes, cgroups.processes(f"{paths.cgroup}/{node}/daemons"))) for node in nodes]
    controller = sorted(map(rss_bytes, cgroups.processes(f"{paths.cgroup}/controller/daemons")))
    client.delete("/v1/stacks/bench")
    return {
        "agent_rss_mb": statistics.median(agents) / 2**20,
        "controller_rss_mb": controller[-1] / 2**20,
        "etcd_rss_mb": controller[-2] / 2**20,
        "mb_per_container_besides_its_own": (full - empty - own) / count / 2**20,
    }


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--counts", default="1,10,50")
    words.add_argument("--nodes", type=int, default=5)
    words.add_argument("--rounds", type=int, default=3)
    options = words.parse_args()
    lab = Lab(f"bench-{secrets.token_hex(3)}")
    with tempfile.TemporaryDirectory(prefix=f"{lab.name}-") as folder:
        os.environ["SHOAL_CONFIG_DIR"] = folder
        try:
            _measured(lab, options.nodes, [int(count) for count in options.counts.split(",")], options.rounds)
        finally:
            lab.down()


def _measured(lab: Lab, nodes: int, counts: Sequence[int], rounds: int) -> None:
    lab.up(nodes)
    with lab.client() as client:
        list(client.lines("/v1/images/pull", method="POST", body={"reference": "busybox"}))
        measure(lab, client, nodes)
        for count in counts:
            report(count, [measure(lab, client, count) for _ in range(rounds)])
        for name, value in memory(lab, client, max(counts)).items():
            figures.add(name.replace("_", " "), value)
            print(f"  {name:<34} {value:8.2f}")


def report(count: int, rounds: list[dict[str, float]]) -> None:
    print(f"{count} replicas (median, min to max of {len(rounds)}):")
    for name in rounds[0]:
        values = [row[name] for row in rounds]
        figures.add(f"{count} replicas: {name.replace('_', ' ')}", statistics.median(values))
        print(f"  {name:<34} {statistics.median(values):8.2f}   {min(values):.2f} to {max(values):.2f}", flush=True)


if __name__ == "__main__":
    figures.run(main)
