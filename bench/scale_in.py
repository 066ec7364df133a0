"""Scale-in under load: `python -m bench.scale_in [--requests 100000] [--json]`. Needs root.

A lab with three nodes and a service whose policy wants few replicas, of which somebody orders many for a moment, again and
again: replicas come and go all the time, while clients outside ask the published port of every node without a pause. Counted:
requests, those without a right answer, ways down from many to few, containers that were stopped.

Rules: a request that was not answered with 200 is lost, whatever the reason. The lab is taken down whatever happens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench import figures
from bench.callers import Callers
from cli.client import Client
from cli.main import main as shoal
from lab.cluster import Lab

PORT: Final = 8094
FEW, MANY = 2, 8
FLOOR_S: Final = 2
STACK: Final = f"""
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["{PORT}:8080"]
    stop_grace_period: 10s
    x-autoscale:
      min: {FEW}
      max: {MANY}
      metrics: [connections: 1000000/s]
      scale_in: {{window: 2s, every: 1s, step: 50%}}
"""


@contextlib.contextmanager
def a_lab() -> Iterator[Lab]:
    lab = Lab(f"scale-in-{os.getpid()}", lambda text: None)
    lab.ready_s = 180.0
    try:
        lab.up(3)
        yield lab
    finally:
        lab.down()


def running(client: Client) -> set[str]:
    return {row["container_id"] for row in client.get("/v1/replicas", service="busy_web") if row["state"] == "running"}


def there_and_back(client: Client, wanted: Callable[[], bool] = lambda: True) -> tuple[bool, set[str]]:
    """Order many and wait until they are few, as long as it is `wanted`. Whether it came to that; the containers that ran."""
    client.post("/v1/services/busy_web/scale", {"replicas": MANY, "floor_s": FLOOR_S})
    seen, many = set[str](), False
    while wanted():
        now = running(client)
        seen |= now
        many = many or len(now) == MANY
        if many and len(now) == FEW:
            return True, seen
        time.sleep(0.1)
    return False, seen


def again_and_again(client: Client, callers: Callers) -> tuple[int, int]:
    """As long as the callers ask. Ways down that were gone to the end; containers that were stopped."""
    rounds, seen = 0, set[str]()
    while callers.busy():
        ended, ran = there_and_back(client, callers.busy)
        rounds, seen = rounds + ended, seen | ran
    return rounds, len(seen - running(client))


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m bench.scale_in")
    words.add_argument("--requests", type=int, default=100_000)
    count = words.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOAL_CONFIG_DIR"] = folder
        with a_lab() as lab, lab.client() as client:
            os.environ["SHOAL_CONTEXT"] = lab.name
            (Path(folder) / "compose.yaml").write_text(STACK)
            if shoal(["apply", "-f", str(Path(folder) / "compose.yaml"), "-p", "busy"]) != 0:
                raise SystemExit("shoal apply failed")
            addresses = [row["address"] for row in client.get("/v1/nodes")]
            there_and_back(client)  # the policy goes down only when it knows a minute's load
            with Callers(addresses, PORT, threads=8, pause_s=0.0, total=count) as callers:
                rounds, stopped = again_and_again(client, callers)
            took_s = time.monotonic() - callers.began
    print(f"{callers.asked} requests in {took_s:.0f} s, {len(callers.failed)} failed {callers.failed[:5] or ''}")
    print(f"{rounds} times from {MANY} replicas to {FEW}, {stopped} containers stopped")
    figures.add("scale-in: requests", callers.asked)
    figures.add("scale-in: requests failed", len(callers.failed))
    figures.add("scale-in: times from 8 replicas to 2", rounds)
    figures.add("scale-in: containers stopped", stopped)
    figures.add("scale-in: requests a second", callers.asked / took_s, "/s")


if __name__ == "__main__":
    figures.run(main)
