"""The control plane at scale: `python -m bench.control_plane [--json] [--nodes 5000] [--replicas 1000000] [--services 100]`.

A real etcd, a real controller and a standby, and as many light agents as nodes in other processes (bench/control_plane_kit).
One stack is applied over HTTPS; then the agents report what runs; one service is scaled by 1, one is updated, a tenth of the
nodes is lost at once, and the leader is killed.

Rules: seconds of the monotonic clock, from before the request until the last agent concerned has acknowledged (`report`: has
told the last replica, as real agents do over the minutes in which containers start; until then none is told). Light agents
share the processors with what is measured. `--json` prints one object: `NAME_s`, and of each step `NAME_cpu_s`, `NAME_peak_mb`
(the leader's, resident), `NAME_txns`, `NAME_etcd_bytes`, `NAME_bytes` (on all streams, both ways), `NAME_new_leads`
(reigns that began in it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.control_plane_kit.cluster import (
    Agents,
    Controller,
    Etcd,
    Process,
    certificates,
    cluster_pki,
    folder,
    register,
    until,
)
from controller.dispatch.status_writer import PAUSE_S_MAX
from controller.store.etcd import EtcdStore
from model import codec
from model.documents import AssignmentDoc, LeaderDoc, key, prefix

STACK: Final = "/v1/stacks/bench"
LAST_WORDS: Final = 4_000
MANY_NODES: Final = 100
SUMMED: Final = (
    "sessions", "settled", "replicas", "running", "added", "removed", "opened", "bytes_in", "bytes_out", "messages_in",
    "messages_out", "cpu_s",
)  # fmt: skip
Answer = dict[str, Any]
P = TypeVar("P", bound=Process)


@dataclass(frozen=True, slots=True)
class Size:
    nodes: int
    replicas: int
    services: int
    processes: int
    timeout_s: float

    @property
    def each(self) -> int:
        return self.replicas // self.services

    @property
    def quiet_s(self) -> float:
        """So long the leader has to have next to nothing to do before the next step."""
        return 1.0 if self.nodes >= MANY_NODES else 0.1


class Bench:
    """Everything that runs, and the steps. `figures`: what was measured so far."""

    def __init__(self, size: Size, path: Path, say: Callable[[str], None], profile: Path | None) -> None:
        self.size, self.path, self._say, self._profile = size, path, say, profile
        self.figures: Answer = {
            "nodes": size.nodes, "replicas": size.each * size.services, "services": size.services, "processors": os.cpu_count(),
        }  # fmt: skip
        self.pki = cluster_pki(path / "pki")
        self.etcd = Etcd(path / "etcd", self.pki)
        self.controllers: list[Controller] = []
        self.agents: list[Agents] = []
        self.images = ["bench:1"] * size.services
        self.scales = [size.each] * size.services

    # ---- setting up

    async def start(self, stack: ExitStack) -> None:
        began = time.monotonic()
        await self.etcd.process.start()
        store = EtcdStore(self.etcd.process.target)
        rows, documents = certificates(self.pki.authority, self.size.nodes)
        await register(store, documents)
        for number in (1, 2):
            self._controller(stack, f"c{number}")
        leader = await store.get(key("leader"))
        await store.close()
        assert leader is not None, "the first controller has had the time to take the lead"
        ca, where = self.pki.authority.pem.decode(), [codec.decode(LeaderDoc, leader.value).dispatch]
        for number in range(self.size.processes):
            mine = rows[number :: self.size.processes]
            self.agents.append(_bound(stack, Agents(self.path / f"agents{number}", mine, ca, where, number)))
        until(lambda: self.stats()["sessions"] == self.size.nodes, "all sessions", 0.2)
        until(lambda: self._ready() == self.size.nodes, "all nodes ready", 0.3)
        self._say(f"set up in {time.monotonic() - began:.1f} s: {self.size.nodes:,} nodes ready")

    def _controller(self, stack: ExitStack, name: str) -> None:
        flags = (*self.etcd.flags, "--node-timeout", f"{self.size.timeout_s:g}s")
        controller = _bound(stack, Controller(self.path / name, self.pki, name, flags, self._profile))
        self.controllers.append(controller)
        until(controller.up, f"{name} answers")

    def _ready(self) -> int:
        return sum(row["state"] == "ready" for row in self.controllers[-1].ok("GET", "/v1/nodes"))

    # ---- watching

    def stats(self, command: str = "stats") -> Answer:
        """The agents' counters, summed; `last_*` the latest, `epochs` merged."""
        for process in self.agents:
            process.ask(command)
        rows = [process.answer() for process in self.agents]
        found: Answer = {name: sum(row[name] for row in rows) for name in SUMMED}
        found |= {name: max(row[name] for row in rows) for name in ("last_ack", "last_running", "last_settled")}
        epochs: dict[str, int] = {}
        for row in rows:
            for epoch, count in row["epochs"].items():
                epochs[epoch] = epochs.get(epoch, 0) + count
        return found | {"epochs": epochs}

    def step(self, name: str, act: Callable[[], object], done: Callable[[Answer], bool], last: str = "last_ack") -> Answer:
        """Do it, wait until the agents are `done`, remember what it cost."""
        epoch = self._leader_first()
        leader = self.controllers[0]
        agents_cpu_s, etcd_cpu_s = self.stats("reset")["cpu_s"], self.etcd.cpu_s()
        leader.forget_peak()
        before, cpu = self.etcd.counters(), {controller: controller.cpu_s() for controller in self.controllers}
        self._turn_profile(leader)
        began = time.monotonic()
        act()
        asked = time.monotonic() - began
        if self.controllers[0] is not leader:
            leader = self.controllers[0]
            self._turn_profile(leader)

        def probe() -> Answer | None:
            leader.check()
            found = self.stats()
            return found if done(found) else None

        try:
            found: Answer = until(probe, name)
        except TimeoutError:
            self._turn_profile(leader, name)
            raise
        after = self.etcd.counters()
        row = {
            "s": found[last] - began, "asked_s": asked, "cpu_s": leader.cpu_s() - cpu[leader],
            "peak_mb": leader.rss_mb(peak=True), "txns": after["txns"] - before["txns"],
            "etcd_bytes": after["bytes"] - before["bytes"], "bytes": found["bytes_in"] + found["bytes_out"],
            "to_agents_bytes": found["bytes_in"], "acked": found["replicas"], "added": found["added"],
            "removed": found["removed"], "agents_cpu_s": found["cpu_s"] - agents_cpu_s,
            "etcd_cpu_s": self.etcd.cpu_s() - etcd_cpu_s, "new_leads": self._leader_first() - epoch,
        }  # fmt: skip
        self.figures |= {f"{name}_{what}": round(value, 3) for what, value in row.items()}
        self._say(
            f"{name:<9} {row['s']:8.2f} s   controller {row['cpu_s']:7.2f} CPU s {row['peak_mb']:6.0f} MB   "
            f"etcd {row['txns']:5.0f} txns {row['etcd_bytes'] / 1e6:7.2f} MB {row['etcd_cpu_s']:6.2f} CPU s   "
            f"streams {row['bytes'] / 1e6:8.2f} MB   agents {row['agents_cpu_s']:6.2f} CPU s"
        )
        self._turn_profile(leader, name)
        return found

    def _leader_first(self) -> int:
        """The lead may have changed hands since the step before. The epoch."""
        found = until(lambda: (row := self.controllers[0].ok("GET", "/v1/version"))["leader"] and row, "a leader")
        self.controllers.sort(key=lambda controller: controller.log.parent.name != found["leader"])
        return int(found["epoch"])

    def _turn_profile(self, leader: Controller, name: str = "") -> None:
        """On; with a `name` off, and what was found to FILE.NAME."""
        if self._profile is None:
            return
        leader.child.send_signal(signal.SIGUSR2)
        if name:
            until(self._profile.exists, "the profile")
            time.sleep(0.5)
            self._profile.rename(f"{self._profile}.{name}")

    def settle(self, name: str) -> None:
        """Until every replica is reported as running, and the leader has nothing left to do."""
        total, leader, began = sum(self.scales), self.controllers[0], time.monotonic()
        found = until(lambda: (row := self.stats())["running"] == row["replicas"] == total and row, f"{name}: running", 0.2)
        busy = leader.cpu_s()

        def idle() -> bool:
            nonlocal busy
            before, busy = busy, leader.cpu_s()
            return busy - before < (0.35 + self.size.nodes / 8000) * self.size.quiet_s

        time.sleep(self.size.quiet_s)
        until(idle, f"{name}: idle", self.size.quiet_s)
        self._all_written()
        self.figures[f"{name}_running"] = found["running"]
        told_s = max(0.0, found["last_running"] - began)
        self.figures[f"{name}_running_s"] = round(told_s, 3)
        self.figures[f"{name}_settled_mb"] = round(leader.rss_mb(), 1)
        self.figures[f"{name}_settled_peak_mb"] = round(leader.rss_mb(peak=True), 1)
        self._say(
            f"  all told as running after {told_s:.1f} s more, leader idle after "
            f"{time.monotonic() - began:.1f} s; {leader.rss_mb():.0f} MB now, {leader.rss_mb(peak=True):.0f} MB at most"
        )

    def _all_written(self) -> None:
        """Statuses of many nodes are written with pauses: until there was none for as long as the longest of them."""
        if self.size.nodes < MANY_NODES:
            return
        txns, since = -1.0, time.monotonic()

        def quiet() -> bool:
            nonlocal txns, since
            before, txns = txns, self.etcd.counters()["txns"]
            if txns != before:
                since = time.monotonic()
            return time.monotonic() - since > PAUSE_S_MAX

        until(quiet, "statuses written", self.size.quiet_s)

    def _apply(self) -> None:
        update = {"parallelism": 0, "order": "stop-first"}
        services = {
            f"s{number:04}": {
                "image": image, "network_mode": "bridge",
                "deploy": {"replicas": scale, "update_config": update, "resources": {"reservations": {"cpus": "0.01"}}},
            }
            for number, (image, scale) in enumerate(zip(self.images, self.scales, strict=True))
        }  # fmt: skip
        self.controllers[0].ok("PUT", STACK, {"name": "bench", "services": services})

    # ---- the steps

    def deploy(self) -> None:
        total = sum(self.scales)
        self.step("deploy", self._apply, lambda row: row["replicas"] == total)

    def report(self) -> None:
        """What runs is told, each replica once."""
        total = sum(self.scales)
        self.step("report", lambda: self.stats("report"), lambda row: row["running"] == total, "last_running")
        self.settle("report")

    def idle(self) -> None:
        """What doing nothing costs the leader: heartbeats."""
        leader = self.controllers[0]
        cpu, began = leader.cpu_s(), time.monotonic()
        time.sleep(2 * self.size.quiet_s)
        self.figures["idle_cpu_s_per_s"] = round((leader.cpu_s() - cpu) / (time.monotonic() - began), 3)
        self.figures["idle_mb"] = round(leader.rss_mb(), 1)
        self._say(f"idle: {self.figures['idle_cpu_s_per_s']:.2f} CPU s per s, {self.figures['idle_mb']:.0f} MB")

    def scale(self) -> None:
        self.scales[0] += 1
        self.step(
            "scale",
            lambda: self.controllers[0].ok("POST", "/v1/services/bench_s0000/scale", {"replicas": self.scales[0]}),
            lambda row: row["added"] == 1,
        )
        self.settle("scale")

    def update(self) -> None:
        self.images[1] = "bench:2"
        each = self.scales[1]
        self.step("update", self._apply, lambda row: row["added"] == each and row["removed"] == each)
        self.settle("update")

    def lose(self) -> None:
        """A tenth of the nodes: the streams are cut and stay away."""
        count = self.size.nodes // 10
        total = sum(self.scales)
        each = -(-count // len(self.agents))
        self.step("lost", lambda: self.stats(f"lose {each}"), lambda row: row["replicas"] == total)
        self.figures["lost_nodes"] = each * len(self.agents)
        self.figures["lost_beyond_timeout_s"] = round(self.figures["lost_s"] - self.size.timeout_s, 3)
        self._say(f"  {self.figures['lost_beyond_timeout_s']:.2f} s after the node timeout of {self.size.timeout_s:g} s")
        self.settle("lost")

    async def failover(self) -> None:
        """kill -9: until all sessions are with the other one and have heard from it what to run."""
        sessions = self.stats()["sessions"]
        before = await self._assigned()

        def kill() -> None:
            self.controllers.pop(0).stop(signal.SIGKILL)

        def done(row: Answer) -> bool:
            return list(row["epochs"].values()) == [sessions] and row["settled"] == sessions

        opened = self.stats()["opened"]
        row = self.step("failover", kill, done, "last_settled")
        if "report_s" in self.figures:
            self.settle("failover")
        row = self.stats()
        self.figures["failover_moved"] = row["added"] + row["removed"] + (await self._assigned() != before)
        self.figures["failover_attempts"] = row["opened"] - opened
        self._say(f"  {self.figures['failover_moved']} moved, {self.figures['failover_attempts']:,} sessions tried")

    def last_words(self) -> None:
        """Of agents and controllers, when a step does not end."""
        self._say(f"the agents' counters: {self.stats()}")
        for controller in self.controllers:
            self._say(f"{controller.log.parent.name} said last:\n{controller.log.read_text()[-LAST_WORDS:]}")

    async def _assigned(self) -> dict[str, object]:
        """What the store says every node has to run."""
        store = EtcdStore(self.etcd.process.target)
        try:
            entries = (await store.list(prefix("assignments"))).entries
        finally:
            await store.close()
        return {entry.key: codec.decode(AssignmentDoc, entry.value).services for entry in entries}


def _bound(stack: ExitStack, process: P) -> P:
    stack.callback(lambda: process.child.poll() is None and process.stop(signal.SIGKILL))
    return process


async def run(size: Size, say: Callable[[str], None], profile: Path | None = None, only: Sequence[str] = ()) -> Answer:
    """The figures."""
    with folder() as path:
        bench = Bench(size, path, say, profile)
        try:
            with ExitStack() as stack:
                try:
                    await bench.start(stack)
                    bench.idle()
                    for name in ("deploy", "report", "scale", "update", "lose"):
                        if not only or name in only:
                            getattr(bench, name)()
                    if not only or "failover" in only:
                        await bench.failover()
                except TimeoutError:
                    bench.last_words()
                    raise
        finally:
            await bench.etcd.process.stop()
        return bench.figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.control_plane")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--replicas", type=int, default=1_000_000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2, help="of light agents")
    parser.add_argument("--node-timeout", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--profile", type=Path, help="where the leader was: FILE.STEP")
    parser.add_argument("--only", default="", metavar="STEP,...", help="deploy, report, scale, update, lose, failover")
    flags = parser.parse_args(arguments)
    size = Size(flags.nodes, flags.replicas, flags.services, flags.processes, flags.node_timeout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down in order
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if flags.json else (lambda text: print(text, flush=True))
    only = [name for name in flags.only.split(",") if name]
    figures = asyncio.run(run(size, say, flags.profile, only))
    if flags.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
