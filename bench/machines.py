"""Machines that come and go under load: `python -m bench.machines [--rounds 10] [--json]`. Needs root.

A lab with one node and a node group of up to five more. A volume's replica stands on the group's first machine, so there are
always two. Each round scales a service until it needs all six nodes and back, while clients ask two nodes' published port
without a pause. Counted: requests, those without a right answer, machines added and removed, how long each way took, and
whether the holder of the volume was ever touched.

Rules: what counts as lost is any request without its 200; a machine may be added or removed only after the load changed, else
it flaps. The lab is taken down whatever happens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import figures
from bench.callers import Callers
from cli.client import Client
from cli.main import main as shoal
from lab.cluster import Lab

PORT: Final = 8093
FEW, MANY = 3, 11
GROUP: Final = """
name: burst
max: 5
template: {cpus: 1, memory: 512M}
provider: {lab: {}}
idle: 3s
after_add: 3s
provision: 180s
back_off: 5s
"""
STACK: Final = f"""
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["{PORT}:8080"]
    stop_grace_period: 10s
    healthcheck:
      test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/healthz"]
      interval: 1s
      timeout: 20s
      start_period: 60s
      start_interval: 200ms
    deploy:
      replicas: {FEW}
      resources: {{reservations: {{cpus: "0.45"}}}}
  db:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 1s
    volumes: ["data:/data"]
    deploy:
      placement: {{constraints: ["node.labels.shoal.group == burst"]}}
      resources: {{reservations: {{cpus: "0.1"}}}}
volumes: {{data: {{}}}}
"""
WAIT_S: Final = 240.0


def until(true: Callable[[], bool], what: str) -> float:
    """Seconds until it is true."""
    begin = time.monotonic()
    while not true():
        if time.monotonic() - begin > WAIT_S:
            raise SystemExit(f"not within {WAIT_S:g} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - begin


def group(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/nodegroups/burst")
    return found


def running(client: Client) -> int:
    rows = client.get("/v1/replicas", service="many_web")
    return sum(row["state"] == "running" and row["health"] == "healthy" for row in rows)


@contextlib.contextmanager
def a_lab() -> Iterator[Lab]:
    lab = Lab(f"machines-{os.getpid()}", lambda text: print(text))
    lab.ready_s = 180.0
    try:
        lab.up(1, cpus=1.0, memory_bytes=512 << 20, node_timeout_s=15.0)
        yield lab
    finally:
        lab.down()


def call(*words: str) -> None:
    if shoal(list(words)) != 0:
        raise SystemExit(f"shoal {' '.join(words)} failed")


def deploy(folder: Path, client: Client) -> str:
    """Everything runs; the node with the volume."""
    (folder / "group.yaml").write_text(GROUP)
    (folder / "compose.yaml").write_text(STACK)
    call("nodegroup", "apply", "-f", str(folder / "group.yaml"))
    call("apply", "-f", str(folder / "compose.yaml"), "-p", "many", "--no-wait")
    until(lambda: running(client) == FEW, "the service runs")
    until(lambda: any(row["state"] == "running" for row in client.get("/v1/replicas", service="many_db")), "the volume's runs")
    return str(client.get("/v1/replicas", service="many_db")[0]["node"])


def rounds(client: Client, count: int, keeper: str) -> tuple[list[float], list[float], int, int]:
    """Seconds out and in of each round; machines added in all, and how many more than one for each place that was needed."""
    out_s, in_s = [], []
    first = newest = _number(client)
    for number in range(1, count + 1):
        before = newest
        client.post("/v1/services/many_web/scale", {"replicas": MANY})
        out_s.append(until(lambda: running(client) == MANY and group(client)["ready"] == 5, "all six nodes"))
        newest = _number(client)
        client.post("/v1/services/many_web/scale", {"replicas": FEW})
        in_s.append(until(lambda: group(client)["machines"] == 1 and running(client) == FEW, "two nodes again"))
        (left,) = [row["node"] for row in group(client)["members"]]
        if left != keeper:
            raise SystemExit(f"{keeper}, which holds the volume, was removed")
        print(f"round {number}: out {out_s[-1]:.1f} s, in {in_s[-1]:.1f} s, {newest - before} machines added")
    return out_s, in_s, newest - first, newest - first - 4 * count


def _number(client: Client) -> int:
    """Of the newest machine ever made."""
    return max(int(row["node"].rpartition("-")[2]) for row in group(client)["members"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.machines")
    parser.add_argument("--rounds", type=int, default=10)
    count = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOAL_CONFIG_DIR"] = folder
        with a_lab() as lab, lab.client() as client:
            os.environ["SHOAL_CONTEXT"] = lab.name
            keeper = deploy(Path(folder), client)
            addresses = [row["address"] for row in client.get("/v1/nodes") if row["name"] in ("n1", keeper)]
            with Callers(addresses, PORT) as clients:
                out_s, in_s, added, surplus = rounds(client, count, keeper)
                flaps = _rests(client)
    print(f"{count} rounds: {clients.asked} requests, {len(clients.failed)} lost {clients.failed[:5] or ''}")
    print(f"machines added {added}, more than needed {surplus}, while the load rested {flaps}")
    figures.add("machines: requests", clients.asked)
    figures.add("machines: requests lost", len(clients.failed))
    figures.add("machines: added in all", added)
    figures.add("machines: added more than needed", surplus)
    figures.add("machines: changes while the load rested", flaps)
    figures.add("machines: from 2 to 6 nodes, all replicas healthy", statistics.median(out_s), "s")
    figures.add("machines: from 6 to 2 nodes", statistics.median(in_s), "s")


def _rests(client: Client) -> int:
    """Decisions while nothing changes, for five times as long as a machine must be idle."""
    before = len(group(client)["history"]), group(client)["decision"]
    end = time.monotonic() + 15.0
    while time.monotonic() < end:
        time.sleep(0.5)
    after = len(group(client)["history"]), group(client)["decision"]
    return int(before != after)


if __name__ == "__main__":
    figures.run(main)
    sys.exit(0)
