"""The name server of one node: `python -m bench.names [--services 10,10000] [--seconds 3] [--rounds 3]`.

Measured over UDP on loopback, the asker in a process of its own that keeps 32 questions under way: questions answered per
second, the name server's CPU time for each, and how long one question alone waits. Then one service's change beside all others
(taken, and answered with), the first news of a whole network, what saving holds up, and reading it back after a restart.

Rules: medians of rounds are quoted, with minimum and maximum; three replicas a service.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from agent.network.dns import NameServer
from agent.network.names import NameBook
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from bench import figures

NETWORK: Final = "net"
PREFIX6: Final = "fd00:1::/96"
UNDER_WAY: Final = 32
KINDS: Final = (
    ("service, IPv4", "web{}", 1),
    ("service, IPv6", "web{}", 28),
    ("three replicas", "tasks.web{}", 1),
    ("reverse (dnslib)", "{}", 12),
)


def service(number: int) -> ServiceNames:
    """One of many, as the controller tells of it."""
    name, host = f"web{number}", number * 4
    rows = tuple(
        EndpointName(f"shop_{name}.{slot}", address(host + slot), f"n{slot}", True, (f"{name}.{slot}", f"{host + slot:012x}"))
        for slot in (1, 2, 3)
    )
    return ServiceNames(f"{number:016x}", f"shop_{name}", (f"shop_{name}", name, f"{name}.shop"), rows, address(host + 2**17))


def address(number: int) -> str:
    return f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def question(pattern: str, kind: int, number: int) -> bytes:
    """A plain query for one service's name, or for the name of its first address."""
    reverse = ".".join(reversed(address(number * 4 + 1).split("."))) + ".in-addr.arpa"
    name = pattern.format(number) if kind != 12 else reverse
    labels = b"".join(bytes((len(word),)) + word.encode() for word in name.split("."))
    return b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"


def ask(port: int, pattern: str, kind: int, count: int, seconds: float) -> tuple[int, float]:
    """Questions answered, with several under way; median seconds that one alone waits."""
    pick = random.Random(1)
    questions = [question(pattern, kind, pick.randrange(count)) for _ in range(2000)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect(("127.0.0.1", port))
        channel.settimeout(2)
        alone = []
        for data in questions[:200]:
            begin = time.perf_counter()
            channel.send(data)
            answer = channel.recv(4096)
            alone.append(time.perf_counter() - begin)
            assert answer[3] & 15 == 0, "no such name"
            assert answer[7], "no addresses"
        for data in questions[:UNDER_WAY]:
            channel.send(data)
        answered, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            channel.recv(4096)
            channel.send(questions[answered % len(questions)])
            answered += 1
        for _ in range(UNDER_WAY):
            channel.recv(4096)
        return answered + UNDER_WAY, statistics.median(alone)


async def asked(port: int, pattern: str, kind: int, count: int, seconds: float) -> dict[str, float]:
    """One round in a process of its own."""
    words = ("-m", "bench.names", "--ask", str(port), pattern, str(kind), str(count), str(seconds))
    begin = time.process_time()
    child = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    used = time.process_time() - begin
    answered, alone = out.split()
    return {"per_s": int(answered) / seconds, "cpu_us": used / (int(answered) + 200) * 1e6, "alone_us": float(alone) * 1e6}


async def changes(book: NameBook, server: NameServer, count: int) -> dict[str, float]:
    """Milliseconds: one service's replica comes and goes, and the first answer after that."""
    taken, told = [], []
    full = [True] * count
    for turn in range(300):
        number = turn * 7 % count
        full[number] = not full[number]
        now = service(number)
        now = now if full[number] else dataclasses.replace(now, endpoints=now.endpoints[:2])
        message = EndpointsMessage(NETWORK, False, (now,), (), 0, PREFIX6)
        begin = time.perf_counter()
        book.take(message)
        taken.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        server.zones.answer(NETWORK, question("tasks.web{}", 1, number), udp=True)
        told.append(time.perf_counter() - begin)
    return {"one_change_ms": statistics.median(taken) * 1000, "answer_after_it_ms": statistics.median(told) * 1000}


async def stalls(seconds: float) -> float:
    """The longest that the loop was held up."""
    longest, end = 0.0, time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - begin - 0.001)
    return longest


async def measure(count: int, seconds: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        file = Path(folder, "names.json")
        server = NameServer(lambda: (), port=0)
        book = NameBook(file, server)
        await book.serve({NETWORK: "127.0.0.1"})
        news = EndpointsMessage(NETWORK, True, tuple(map(service, range(count))), (), 0, PREFIX6)
        begin = time.perf_counter()
        book.take(news)
        found_ms = {"whole_network_ms": (time.perf_counter() - begin) * 1000}
        found_ms["first_save_holds_up_ms"] = await stalls(2.5) * 1000
        for label, pattern, kind in KINDS:
            port = server.port_of(NETWORK)
            rows = [await asked(port, pattern, kind, count, seconds) for _ in range(rounds)]
            report(f"{count} services, {label}", rows)
        found_ms |= await changes(book, server, count)
        found_ms["later_save_holds_up_ms"] = await stalls(2.5) * 1000
        await book.close()
        again = NameBook(file, NameServer(lambda: (), port=0))
        begin = time.perf_counter()
        again.load()
        found_ms["read_back_ms"] = (time.perf_counter() - begin) * 1000
        print(f"{count} services:")
        for name, value in found_ms.items():
            figures.add(f"{name.removesuffix('_ms').replace('_', ' ')}, {count} services", value, "ms")
            print(f"  {name:<24} {value:10.3f}", flush=True)


def report(title: str, rounds: list[dict[str, float]]) -> None:
    print(f"{title} (median, min to max of {len(rounds)}):")
    for name in rounds[0]:
        values = [row[name] for row in rounds]
        figures.add(f"{title}: {name.replace('_', ' ')}", statistics.median(values))
        print(f"  {name:<24} {statistics.median(values):10.1f}   {min(values):.1f} to {max(values):.1f}", flush=True)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--services", default="10,10000")
    words.add_argument("--seconds", type=float, default=3)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--ask", nargs=5, help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.ask:
        port, pattern, kind, count, seconds = options.ask
        answered, alone = ask(int(port), pattern, int(kind), int(count), float(seconds))
        print(answered, alone)
        return
    for count in map(int, options.services.split(",")):
        asyncio.run(measure(count, options.seconds, options.rounds))


if __name__ == "__main__":
    figures.run(main)
