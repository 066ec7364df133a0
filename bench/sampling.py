"""What measuring costs: `python -m bench.sampling [--containers 200] [--samples 40]`. Needs root.

Measured: CPU of one sample of a node whose containers each have a cgroup with a process in it, a link, and an endpoint that the
load balancer counts for: reading, reckoning and encoding, with the real files and tables in a network namespace of its own;
while nothing happens, and while every process runs and every endpoint is called between any two samples. Then the same once a
second for half a minute, while a thousand real connections are open through a published port, of which a hundred end and others
begin every second: all CPU of a second, passes over the kernel's table of connections too, on average and in the worst ten
seconds. And the controller's side: CPU of one row taken, and of what the autoscaler reads of one service.

Rules: CPU seconds, not wall time. What is made in cgroups goes with this process, however that ends: a second one waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import resource
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, Final, cast

from agent.core.clock import RealClock
from agent.core.ports import Ports
from agent.core.runner import Runner
from agent.core.sampling import Sampler
from agent.network.balancer import KernelBalancer
from agent.network.nfnl import Conntrack
from agent.network.nft import Nft
from agent.plan.balance import INGRESS
from agent.plan.balance_book import COUNTERS, FLOWS
from agent.plan.balance_rules import TABLE
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import LinkPlan, veth_name
from agent.plan.records import Desired, Life, ReplicaId
from agent.plan.samples import Counters
from agent.runtime.cgroups import UsageFiles, cgroup_driver
from agent.runtime.machine import MachineFiles
from agent.wiring import COLLECT_AFTER
from bench import figures
from controller.samples.store import MemorySamples
from model.spec import ContainerSpec, Port, ServiceSpec
from protos import node_pb2 as pb

_CLONE_NEWNET: Final = 0x40000000
NET: Final = "shop_default"
PLAN: Final = LinkPlan(NET, "shb-1", "", "10.64.1.1/24", "shx-1", 1, subnet="10.64.0.0/12")
SPEC: Final = ServiceSpec("shop_web", ContainerSpec("web"))
SERVICES: Final = 20
STEP_S: Final = 0.1
TIMES: Final = 10
PUBLISHED: Final = 8080
OPEN: Final = 1000
TURNED: Final = 100
WINDOW: Final = 10
SECONDS: Final = 32
"""Long enough for a pass over the table of connections."""


class Runtime:
    """The part of a runtime that is measured: real files of real cgroups."""

    def __init__(self, parent: str, ids: Iterable[str]) -> None:
        driver = cgroup_driver()
        self._files: dict[str, UsageFiles] = {one: driver.open_usage(f"/{parent}/{one}") for one in ids}

    def sampled(self, container_ids: Iterable[str]) -> dict[str, Counters]:
        at_s = time.monotonic()
        found = {one: self._files[one].sample(at_s) for one in container_ids}
        return {one: counters for one, counters in found.items() if counters is not None}


@dataclass
class Core:
    lives: dict[ReplicaId, Life] = field(default_factory=dict)
    desired: Desired = field(default_factory=Desired)


@dataclass
class Node:
    core: Core
    ports: Ports


def cpu_s() -> float:
    return time.process_time()


def lives(count: int) -> dict[ReplicaId, Life]:
    ids = [ReplicaId(f"{number % SERVICES:016x}", number // SERVICES + 1, 1, 1) for number in range(count)]
    found = (Life(key, SPEC, f"shop_web.{key.slot}", stage="running", container_id=f"c{n}") for n, key in enumerate(ids))
    return {life.id: life for life in found}


def links(found: dict[ReplicaId, Life]) -> subprocess.Popen[bytes]:
    """A link for each, whose other end is where the process is that comes back."""
    own = os.readlink("/proc/self/ns/net")
    elsewhere = idle(["unshare", "--net", *idler(10.0)])
    while os.readlink(f"/proc/{elsewhere.pid}/ns/net") == own:
        time.sleep(0.01)
    batch = "".join(
        f"link add {veth_name(life.sandbox, 0)} type veth peer name {life.container_id} netns {elsewhere.pid}\n"
        for life in found.values()
    )
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    return elsewhere


def idle(command: list[str]) -> subprocess.Popen[bytes]:
    """It holds nothing open that whoever reads this one's figures waits for."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def idler(seconds: float) -> list[str]:
    """A process that runs for a moment every so often, as long as this one lives."""
    return ["tail", f"--pid={os.getpid()}", f"--sleep-interval={seconds}", "-f", "/dev/null"]


def address(service: int, slot: int) -> str:
    return f"10.64.{service}.{slot}"


async def balancer(nft: Nft, count: int) -> KernelBalancer:
    made = KernelBalancer(nft, "n1", Conntrack(), RealClock(), lambda *_: None)
    await made.open()
    made.networks({NET: PLAN})
    services = []
    for number in range(SERVICES):
        rows = [
            EndpointName(f"shop_s{number}.{slot}", address(number, slot), "n1", network=NET)
            for slot in range(1, count // SERVICES + 1)
        ]
        ports = (Port(80, PUBLISHED),) if number == 0 else ()
        services.append(
            ServiceNames(str(number), f"shop_s{number}", endpoints=tuple(rows), vip=f"10.79.0.{number + 1}", ports=ports)
        )
    made.take(EndpointsMessage(NET, True, tuple(services), number=1))
    made.take(EndpointsMessage(INGRESS, True, tuple(services[:1]), number=2))
    await made.applied(1)
    return made


def called(nft: Nft, count: int, names: Iterable[str], times: int) -> None:
    """As if each endpoint had been called so often."""
    addresses = [address(number, slot) for number in range(SERVICES) for slot in range(1, count // SERVICES + 1)]
    elements = ", ".join(f"{one} counter packets {times} bytes {1000 * times}" for one in addresses)
    for name in names:
        nft.run(f"flush set {TABLE} {name}; add element {TABLE} {name} {{ {elements} }}")


class Callers:
    """Real connections to the replicas of the published service, which all are this process."""

    def __init__(self, count: int) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        local = "".join(f"address add {address(0, slot)}/32 dev lo\n" for slot in range(1, count // SERVICES + 1))
        subprocess.run(["ip", "-batch", "-"], input=f"link set lo up\n{local}", text=True, check=True)
        self._listener = socket.create_server(("0.0.0.0", 80), backlog=OPEN)
        self._open: deque[tuple[socket.socket, socket.socket]] = deque()
        self.turn(OPEN)

    def turn(self, more: int) -> None:
        """So many begin, and as many end as there are too many: the replica says first that it is done."""
        for _ in range(more):
            caller = socket.create_connection(("127.0.0.1", PUBLISHED))
            self._open.append((caller, self._listener.accept()[0]))
        while len(self._open) > OPEN:
            for end in reversed(self._open.popleft()):
                end.close()

    def close(self) -> None:
        for pair in self._open:
            for end in pair:
                end.close()
        self._listener.close()


async def measure(parent: str, pids: list[int], samples: int) -> None:
    count = len(pids)
    found = lives(count)
    runtime = Runtime(parent, [life.container_id for life in found.values()])
    machine = MachineFiles(Path("/"), "", cgroup_driver())
    nft = Nft()
    balance = await balancer(nft, count)
    nothing: Any = None
    ports = Ports(cast(Any, runtime), nothing, nothing, nothing, Path("/"), balance=balance, machine=machine)
    sampler = Sampler(cast(Runner, Node(Core(found), ports)), RealClock())
    gc.collect()
    gc.freeze()  # as the agent does
    gc.set_threshold(*COLLECT_AFTER)
    for how, signal_number in (("idle", SIGSTOP), ("working", SIGCONT)):
        for pid in pids:
            os.kill(pid, signal_number)
        works = signal_number == SIGCONT
        costs, size = await cost_s(sampler, count, samples, partial(called, nft, count, COUNTERS) if works else lambda _: None)
        costs.sort()
        figures.add(f"a sample of {count} {how} containers, CPU", 1000 * costs[len(costs) // 2], "ms")
        figures.add(f"a sample of {count} {how} containers on the wire", size / 1000, "kB")
        middle, least, most = (1000 * costs[place] for place in (len(costs) // 2, 0, -1))
        print(f"a sample, {how}: {middle:.2f} ms CPU ({least:.2f} to {most:.2f}), {size} bytes")
    await moving(sampler, nft, count, samples)
    await parts(runtime, machine, balance, [life.container_id for life in found.values()])
    await balance.close(remove=True)
    machine.close()


async def moving(sampler: Sampler, nft: Nft, count: int, before: int) -> None:
    """All of what a second costs while connections come and go."""
    callers = Callers(count)

    def between(second: int) -> None:
        called(nft, count, FLOWS, 1000 * (before + second))  # never back
        callers.turn(TURNED)

    costs, _ = await cost_s(sampler, count, SECONDS, between, step_s=1.0)
    callers.close()
    mean, worst = sum(costs) / len(costs), max(sum(costs[at : at + WINDOW]) for at in range(len(costs) - WINDOW + 1)) / WINDOW
    figures.add(f"a second of {count} working containers, connections moving, CPU", 1000 * mean, "ms")
    figures.add(f"the same in the worst {WINDOW} s", 1000 * worst, "ms")
    print(f"a second, connections moving: {1000 * mean:.2f} ms CPU, in the worst {WINDOW} s {1000 * worst:.2f} ms")
    print("  each second: " + " ".join(f"{1000 * cost:.1f}" for cost in costs))


async def cost_s(
    sampler: Sampler, count: int, samples: int, between: Callable[[int], None], step_s: float = STEP_S
) -> tuple[list[float], int]:
    """CPU of each sample and the bytes of one; `between` samples something happens."""
    costs: list[float] = []
    size, before = 0, 0.0
    async for message in sampler.every(step_s):
        size = len(pb.FromNode(samples=message).SerializeToString())
        assert len(message.replicas) == count, f"{len(message.replicas)} of {count} replicas were measured"
        costs.append(cpu_s() - before)
        if len(costs) > samples:
            break
        between(len(costs))
        before = cpu_s()
    return costs[1:], size


async def parts(runtime: Runtime, machine: MachineFiles, balance: KernelBalancer, ids: list[str]) -> None:
    """Of a sample while all work, each part by itself."""
    table = Conntrack()
    found = {
        "of it: cgroups": spent(lambda: runtime.sampled(ids), rest_s=STEP_S),
        "of it: machine and links": spent(machine.read, rest_s=STEP_S),
        "a pass over the table of connections": spent(lambda: table.balanced(six=True), rest_s=STEP_S),
    }
    table.close()
    costs = []
    for _ in range(TIMES):
        await asyncio.sleep(STEP_S)
        before = cpu_s()
        await balance.load()
        costs.append(cpu_s() - before)
    found["of it: load balancer"] = sum(costs) / TIMES
    for name, cost in found.items():
        figures.add(f"{name}, CPU", 1000 * cost, "ms")
        print(f"  {name}: {1000 * cost:.2f} ms")


def spent(work: Callable[[], object], times: int = TIMES, rest_s: float = 0.0) -> float:
    """CPU seconds of one time, on average; what comes after a rest finds caches less warm, as it does in life."""
    total = 0.0
    for _ in range(times):
        time.sleep(rest_s)
        before = cpu_s()
        work()
        total += cpu_s() - before
    return total / times


def store(nodes: int = 200, replicas: int = 50, seconds: int = 60) -> None:
    """A minute of samples as the leader takes them."""
    clock = RealClock()
    samples = MemorySamples(clock)
    begin_ms = int(clock.now() * 1000) - seconds * 1000
    messages = [
        pb.Samples(
            interval_ms=1000,
            node=pb.NodeSample(cpu_cores=1.0, memory_bytes=1 << 30),
            replicas=[
                pb.ReplicaSample(
                    key=pb.ReplicaKey(service_id=f"s{slot % 20}", slot=node * replicas + slot + 1), cpu_cores=0.5,
                    memory_bytes=1 << 26,
                )
                for slot in range(replicas)
            ],
            traffic=[
                pb.TrafficSample(service_id=f"s{slot % 20}", replica=f"web.{node * replicas + slot + 1}", connections_per_s=3.0)
                for slot in range(replicas)
            ],
        )
        for node in range(nodes)
    ]  # fmt: skip
    begin = cpu_s()
    for second in range(1, seconds + 1):
        for node, message in enumerate(messages):
            message.at_ms = begin_ms + second * 1000
            samples.take(f"n{node}", message)
    row_us = 1e6 * (cpu_s() - begin) / (nodes * seconds * (2 * replicas + 1))
    figures.add("a row taken by the controller, CPU", row_us, "us")
    series_ms = 1000 * spent(lambda: samples.series("s1", "cpu", 1.0), 20)
    figures.add("a sensor of one service as the autoscaler reads it, CPU", series_ms, "ms")
    print(f"controller: {row_us:.2f} us a row; a sensor of one service: {series_ms:.3f} ms")


def make_cgroups(parent: str, count: int) -> list[int]:
    """Process ids, one in each."""
    driver = cgroup_driver()
    driver.prepare(parent)
    top = Path("/sys/fs/cgroup")
    roots = [top] if driver.version == 2 else [tree for tree in top.iterdir() if (tree / parent).is_dir()]
    pids = []
    for number in range(count):
        folders = [root / parent / f"c{number}" for root in roots]
        for folder in folders:
            folder.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if driver.version == 1 and (folder / name).exists():
                    (folder / name).write_text((folder.parent / name).read_text())
        pids.append(idle(idler(STEP_S / 2)).pid)
        for folder in folders:
            (folder / "cgroup.procs").write_text(str(pids[-1]))
    return pids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--clean", default="", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.clean:
        sys.stdin.buffer.read()  # until the one that measures is gone
        cgroup_driver().remove(f"/{words.clean}")
        return
    parent = f"shoal-bench-{os.getpid()}"
    cleaner = subprocess.Popen(
        [sys.executable, "-m", "bench.sampling", "--clean", parent], stdin=subprocess.PIPE, start_new_session=True
    )
    elsewhere: subprocess.Popen[bytes] | None = None
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
            sys.exit("a network namespace of its own is needed: run it as root")
        pids = make_cgroups(parent, words.containers)
        elsewhere = links(lives(words.containers))
        asyncio.run(measure(parent, pids, words.samples))
        store()
    finally:
        if elsewhere is not None:
            elsewhere.kill()
            elsewhere.wait()
        assert cleaner.stdin is not None
        cleaner.stdin.close()
        cleaner.wait(60)


if __name__ == "__main__":
    figures.run(main)
