"""The load balancer's figures: `python -m bench.balance [--few 10] [--many 10000] [--rounds 30]`. Needs root.

Measured on a balancer of its own in a network namespace of its own: from handing over the news until the kernel follows them,
with all that belongs to it (reckoning, one nftables transaction, UDP entries). A service has three replicas and one published
port. Further: one replica of a thousand more and less, everything told at once, one reading of all counts, the comparison that
`repair` makes after somebody else has changed rules, and taking over the table after a restart.

Rules: medians of rounds are quoted, with minimum and maximum; nothing outside the namespace is touched.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import statistics
import time
from collections.abc import Awaitable, Callable

from agent.core.clock import RealClock
from agent.network.balancer import KernelBalancer
from agent.network.nfnl import Conntrack
from agent.network.nft import Nft
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import LinkPlan
from bench import figures
from model.spec import Port

NET = "shop_default"
PLAN = LinkPlan(NET, "shb-1", "", "10.64.1.1/24", "shx-1", 1, subnet="10.64.0.0/12")
_CLONE_NEWNET = 0x40000000


def address(base: int, number: int) -> str:
    return f"10.{base + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def service(number: int, replicas: int = 3, first: int = 0) -> ServiceNames:
    rows = [
        EndpointName(f"shop_s{number}.{slot}", address(64, 4 * number + slot), f"n{slot % 3}", network=NET)
        for slot in range(first, first + replicas)
    ]
    return ServiceNames(str(number), f"shop_s{number}", endpoints=tuple(rows), vip=address(76, number))


class Bench:
    """One balancer; `told` gives the milliseconds until the kernel follows."""

    def __init__(self) -> None:
        self.number = 0

    async def open(self) -> float:
        begin = time.perf_counter()
        self.balancer = KernelBalancer(Nft(), "n1", Conntrack(), RealClock(), lambda *_: None)
        await self.balancer.open()
        taken_ms = 1000 * (time.perf_counter() - begin)
        self.balancer.networks({NET: PLAN})
        return taken_ms

    async def told(self, *services: ServiceNames, network: str = NET, whole: bool = False, removed: str = "") -> float:
        self.number += 1
        message = EndpointsMessage(network, whole, services, (removed,) if removed else (), self.number)
        begin = time.perf_counter()
        self.balancer.take(message)
        await self.balancer.applied(self.number - 1)
        return 1000 * (time.perf_counter() - begin)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - begin)


async def beside(bench: Bench, others: int, rounds: int) -> None:
    """One service more, one replica of it replaced, and away again, beside `others`."""
    whole = await bench.told(*(service(number) for number in range(others)), whole=True)
    print(f"beside {others} services (all told at once: {whole:.1f} ms):")
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        number = others + turn
        published = ServiceNames(str(number), "", endpoints=service(number).endpoints, ports=(Port(80, 40000 + turn),))
        found.setdefault("one service more", []).append(await bench.told(service(number)))
        found.setdefault("one published port more", []).append(await bench.told(published, network="ingress"))
        found.setdefault("one replica replaced", []).append(await bench.told(service(number, first=1)))
        found.setdefault("one service less", []).append(await bench.told(removed=str(number)))
        await bench.told(network="ingress", removed=str(number))
    report(found, f", beside {others} services")


async def thousand(bench: Bench, rounds: int) -> None:
    print("one service with 1,000 replicas:")
    rows = [EndpointName(f"shop_big.{slot}", address(70, slot), "n2", network=NET) for slot in range(1001)]

    def big(*gone: int) -> ServiceNames:
        left = tuple(row for slot, row in enumerate(rows) if slot not in gone)
        return ServiceNames("big", "shop_big", endpoints=left, vip="10.77.255.1")

    found: dict[str, list[float]] = {"all at once": [await bench.told(big(1000))]}
    for turn in range(rounds):
        found.setdefault("one more", []).append(await bench.told(big()))
        found.setdefault("one less", []).append(await bench.told(big(turn)))
    report(found, ", of a service with 1,000 replicas")
    await bench.told(removed="big")


def report(found: dict[str, list[float]], where: str) -> None:
    for name, values in found.items():
        figures.add(f"{name}{where}", statistics.median(values), "ms")
        print(f"  {name:<34} {statistics.median(values):8.2f} ms  ({min(values):.2f} to {max(values):.2f})")


async def measure(few: int, many: int, rounds: int) -> None:
    bench = Bench()
    await bench.open()
    await thousand(bench, rounds)
    await beside(bench, few, rounds)
    await beside(bench, many, rounds)
    await bench.balancer.repair()
    found = {"counts of all replicas": [await timed(bench.balancer.traffic)]}
    found["repair, nothing changed"] = [await timed(bench.balancer.repair) for _ in range(5)]
    await asyncio.to_thread(Nft().run, "add table inet bench-other")
    found["repair, others changed rules"] = [await timed(bench.balancer.repair)]
    await bench.balancer.close()
    again = Bench()
    found["restart: the table taken over"] = [await again.open()]
    print(f"with {many} services:")
    report(found, f", {many} services")
    await again.balancer.close(remove=True)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--few", type=int, default=10)
    words.add_argument("--many", type=int, default=10000)
    words.add_argument("--rounds", type=int, default=30)
    options = words.parse_args()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise SystemExit("a network namespace of its own cannot be made: run this as root")
    asyncio.run(measure(options.few, options.many, options.rounds))


if __name__ == "__main__":
    figures.run(main)
