"""What the network costs: `python -m bench.network [--seconds 3] [--rounds 3]`. Needs root.

On a lab of two nodes, in the same run: throughput and CPU per gigabyte of one TCP stream
  plain     between two network namespaces with one veth pair: what the kernel can do here
  nodes     between two nodes of the lab without any container: its wire (a bridge and two veth pairs)
  node      container to container on one node
  cross     container to container on two nodes (VXLAN)
  vip       the same through the service's address
and the time from a replica being ready (its own agent's word) to the last node sending it traffic.

Rules: ratios count, the machine's speed drifts; rounds are interleaved, medians quoted. The stream's two ends are the same
small program everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from agent.network import namespaces
from agent.network.rtnl import Netlink
from agent.plan import netlink
from bench import figures
from lab.cluster import Lab

SINK = """
import socket
s = socket.create_server(("", 5201))
while True:
    c, _ = s.accept()
    b = bytearray(1 << 20)
    while c.recv_into(b): pass
    c.close()
"""
SOURCE = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 5201))
b, n, end = bytes(1 << 18), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end: c.sendall(b); n += len(b)
print(n)
"""
STACK = """
services:
  sink: {image: "shoal/web:1.0", entrypoint: ["python3", "-c", %s], deploy: {mode: global}}
  source: {image: "shoal/web:1.0", entrypoint: [sleep, "100000"], init: true, deploy: {mode: global}}
"""


def cpu_s() -> float:
    """CPU seconds of the whole machine that were not idle: the kernel's network work counts to nobody's process."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(words) - words[3] - words[4]) / float(os.sysconf("SC_CLK_TCK"))


def streamed(command: list[str], seconds: float) -> tuple[float, float]:
    """(gigabytes a second, CPU seconds of the machine per gigabyte) of one run of the source."""
    before = cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    gigabytes = int(done.stdout) / 1e9
    return gigabytes / seconds, (cpu_s() - before) / gigabytes


def source(netns: str, target: str, seconds: float) -> list[str]:
    """The stream's sender in a network namespace: the same interpreter wherever it stands."""
    return ["nsenter", f"--net={netns}", sys.executable, "-c", SOURCE, target, str(seconds)]


class Plain:
    """Two namespaces and a veth pair: the measure of all things here."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / "a", folder / "b")
        fds = [namespaces.create(path, lambda: None)[0] for path in self._paths]
        self._fds = fds
        self._sink: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            name = f"shn{secrets.token_hex(3)}"
            peer = {"ifname": "eth0", "net_ns_fd": self._fds[1]}
            ipr.link("add", ifname=name, kind="veth", net_ns_fd=self._fds[0], peer=peer)

        def address(link: str, text: str) -> None:
            with Netlink() as nl:
                nl.send([netlink.set_up(1), netlink.set_up(nl.index(link)), netlink.add_address(nl.index(link), text)])

        namespaces.enter(str(self._paths[0]), lambda: address(name, "192.0.2.1/24"))
        namespaces.enter(str(self._paths[1]), lambda: address("eth0", "192.0.2.2/24"))
        self._sink = subprocess.Popen(["nsenter", f"--net={self._paths[1]}", sys.executable, "-c", SINK])

    def command(self, seconds: float) -> list[str]:
        return source(str(self._paths[0]), "192.0.2.2", seconds)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.kill()
            self._sink.wait()
        for fd, path in zip(self._fds, self._paths, strict=True):
            os.close(fd)
            namespaces.remove(path)


def shoal(*words: str, stdin: str | None = None) -> str:
    command = [sys.executable, "-m", "shoal", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inside(replica: str, program: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "shoal", "exec", replica, "python3", "-c", program, *words]


def throughput(lab: Lab, plain: Plain, seconds: float, rounds: int) -> None:
    rows = {row["name"]: row for row in json.loads(shoal("ps", "-o", "json"))}

    def address(replica: str) -> str:
        return str(rows[replica]["addresses"][0])

    shown = json.loads(shoal("inspect", "--type", "replica", "bench_source.n1", "-o", "json"))[0]["container"]
    here = f"/proc/{shown['State']['Pid']}/ns/net"
    service = json.loads(shoal("service", "inspect", "bench_sink", "-o", "json"))[0]
    record = lab.record()
    own = record.address(record.machine("n2"))
    targets = {
        "node": address("bench_sink.n1"),
        "cross": address("bench_sink.n2"),
        "vip": next(iter(service["vips"].values())),
    }
    ways = {"plain": plain.command(seconds), "nodes": lab.enter_command("n1", source("/proc/self/ns/net", own, seconds))}
    ways |= {name: lab.enter_command("n1", source(here, target, seconds)) for name, target in targets.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            found[name].append(streamed(command, seconds))
    best = statistics.median(rate for rate, _ in found["plain"])
    cost = statistics.median(cpu for _, cpu in found["plain"])
    for name, pairs in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        figures.add(f"{name}: throughput", rate, "GB/s")
        figures.add(f"{name}: throughput over plain", rate / best)
        figures.add(f"{name}: CPU per gigabyte over plain", cpu / cost)
        print(f"  {name:<6} {rate:6.2f} GB/s ({rate / best:4.2f} of plain)   {cpu:6.3f} CPU s/GB ({cpu / cost:4.2f} of plain)")


WATCH = """
import socket, sys, time
have = set()
while True:
    try:
        with socket.create_connection((sys.argv[1], 8080), 1) as s:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            text = b""
            while piece := s.recv(4096): text += piece
        name = text.partition(b"\\r\\n\\r\\n")[2].decode().split()[0]
        if name not in have:
            have.add(name)
            print(name, time.time(), flush=True)
    except (OSError, IndexError): pass
"""
FRESH = """
services:
  web: {image: "shoal/web:1.0", init: true, stop_grace_period: 1s, deploy: {replicas: 1}}
  watch: {image: "shoal/web:1.0", entrypoint: [sleep, "100000"], init: true, deploy: {mode: global}}
"""


def ready_to_traffic(rounds: int) -> None:
    """From the moment a new replica is running to the first answer from it that each node's client got through the VIP."""
    shoal("apply", "-f", "-", "-p", "fresh", stdin=FRESH)
    nodes = [row["name"] for row in json.loads(shoal("node", "ls", "-o", "json"))]
    took = []
    for number in range(2, 2 + rounds):
        watchers = [
            subprocess.Popen(inside(f"fresh_watch.{node}", WATCH, "web"), stdout=subprocess.PIPE, text=True) for node in nodes
        ]
        try:
            for watcher in watchers:
                read(watcher, "fresh_web.1")
            shoal("service", "scale", f"fresh_web={number}")
            last = max(read(watcher, f"fresh_web.{number}") for watcher in watchers)
        finally:
            for watcher in watchers:
                watcher.kill()
                watcher.wait()
        rows: list[Any] = json.loads(shoal("ps", "fresh_web", "-o", "json"))
        since = next(row["since"] for row in rows if row["name"] == f"fresh_web.{number}")
        took.append(last - moment(since))
    figures.add("ready to traffic on the last node", statistics.median(took) * 1000, "ms")
    print(f"  ready to traffic on the last of {len(nodes)} nodes: median {statistics.median(took) * 1000:.0f} ms,"
          f" max {max(took) * 1000:.0f} ms (the watchers ask in turn: a few ms and one in n answers are theirs)")  # fmt: skip


def read(watcher: subprocess.Popen[str], name: str) -> float:
    assert watcher.stdout is not None
    for line in watcher.stdout:
        if line.split()[0] == name:
            return float(line.split()[1])
    raise AssertionError(f"the watcher ended before {name} answered")


def moment(text: str) -> float:
    import datetime as dt

    return dt.datetime.fromisoformat(text).timestamp()


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--seconds", type=float, default=3.0)
    words.add_argument("--rounds", type=int, default=3)
    options = words.parse_args()
    lab = Lab(f"bench-{secrets.token_hex(3)}")
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        os.environ["SHOAL_CONFIG_DIR"], os.environ["SHOAL_CONTEXT"] = folder, lab.name
        plain = Plain(Path(folder))
        try:
            plain.open()
            lab.up(2)
            shoal("apply", "-f", "-", "-p", "bench", stdin=STACK % json.dumps(SINK))
            sink = subprocess.Popen(lab.enter_command("n2", [sys.executable, "-c", SINK]))
            try:
                throughput(lab, plain, options.seconds, options.rounds)
            finally:
                sink.kill()
                sink.wait()
            shoal("rm", "bench")
            ready_to_traffic(options.rounds)
        finally:
            lab.down()
            plain.close()
    print(f"  this program itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")


if __name__ == "__main__":
    figures.run(main)
