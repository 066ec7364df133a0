"""Figures of the store: `python -m bench.store`. Starts an etcd of its own, in a temporary folder, with mutual TLS and fsync.

Rules: wall times by the monotonic clock, CPU of this process by process_time, of etcd by /proc; medians, not best cases.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import trustme

from bench import figures
from controller.clock import RealClock
from controller.store.etcd import EtcdStore
from controller.store.etcd3_compat import Etcd3Store
from controller.store.etcd_command import EtcdFiles, EtcdSettings
from controller.store.memory import MemoryStore
from controller.store.mirror import Mirror
from controller.store.supervisor import EtcdProcess, free_port
from model.store_port import Op, Put, Store

VALUE = b"v" * 512


def certificates(folder: Path) -> EtcdFiles:
    folder.mkdir()
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    names = [folder / name for name in ("ca.pem", "cert.pem", "key.pem")]
    ca.cert_pem.write_to_path(names[0])
    names[1].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(names[2])
    return EtcdFiles(names[0], names[1], names[2], names[0], names[1], names[2])


def etcd_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def etcd_memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def say(what: str, value: float, unit: str) -> None:
    figures.add(what, value, unit)
    print(f"{what:<58} {value:>10.2f} {unit}", flush=True)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def put_rate(name: str, store: Store, writers: int, total: int) -> None:
    async def write(writer: int) -> None:
        for n in range(total // writers):
            await store.txn([], [Put(f"/rate/{writer}/{n % 100}", VALUE)])

    cpu = time.process_time()
    wall = await timed(lambda: asyncio.gather(*(write(writer) for writer in range(writers))))
    say(f"{name}: puts of 512 bytes, {writers} at a time", total / wall, "/s")
    say(f"{name}:   CPU of this process each", 1e6 * (time.process_time() - cpu) / total, "us")


async def big_txn(name: str, store: Store) -> None:
    times = []
    for round_ in range(30):
        ops: list[Op] = [Put(f"/list/{round_ * 128 + n:06}", VALUE) for n in range(128)]
        times.append(await timed(lambda ops=ops: store.txn([], ops)))  # type: ignore[misc]
    say(f"{name}: transaction of 128 puts of 512 bytes, median", 1000 * statistics.median(times), "ms")


async def listing(name: str, store: Store) -> None:
    for start in range(3840, 10_000, 110):
        await store.txn([], [Put(f"/list/{n:06}", VALUE) for n in range(start, min(10_000, start + 110))])
    assert len((await store.list("/list/")).entries) == 10_000
    times = [await timed(lambda: store.list("/list/")) for _ in range(7)]
    say(f"{name}: list of 10,000 keys of 512 bytes, median", 1000 * statistics.median(times), "ms")


async def reads(name: str, store: Store) -> None:
    times = sorted([await timed(lambda: store.get("/list/000001")) for _ in range(300)])
    say(f"{name}: linearizable get, median", 1000 * times[150], "ms")


async def watch_latency(name: str, store: Store) -> None:
    """From before the write is sent to the change's arrival."""
    arrived: asyncio.Queue[float] = asyncio.Queue()
    start = (await store.list("/latency")).revision + 1

    async def follow() -> None:
        async with aclosing(store.watch("/latency", start)) as batches:
            async for _ in batches:
                arrived.put_nowait(time.perf_counter())

    task = asyncio.create_task(follow())
    times = []
    for n in range(301):
        began = time.perf_counter()
        await store.txn([], [Put("/latency", b"%d" % n)])
        times.append(await arrived.get() - began)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    times = sorted(times[1:])
    say(f"{name}: write to watch event, median", 1000 * times[150], "ms")
    say(f"{name}: write to watch event, 99th of 100", 1000 * times[297], "ms")


async def mirror_start(name: str, store: Store) -> None:
    mirror = Mirror(store, "/list/", RealClock())
    began = time.perf_counter()
    task = asyncio.create_task(mirror.run())
    await mirror.wait_for(1)
    say(f"{name}: mirror of 10,000 keys ready", 1000 * (time.perf_counter() - began), "ms")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def measure(name: str, store: Store, *, whole: bool = True, total: int = 3000) -> None:
    await put_rate(name, store, 1, total // 4)
    await put_rate(name, store, 16, total)
    await big_txn(name, store)
    await listing(name, store)
    await reads(name, store)
    if whole:
        await watch_latency(name, store)
        await mirror_start(name, store)


async def recovery(etcd: EtcdProcess, store: Store) -> None:
    times = []
    for _ in range(3):
        old = etcd.pid
        began = time.perf_counter()
        os.kill(old, 9)
        while etcd.pid in (0, old):  # noqa: ASYNC110  # seen as a user sees it: by asking
            await asyncio.sleep(0.005)
        await store.get("/latency")
        times.append(time.perf_counter() - began)
    say("etcd: kill -9 to the next answered read, median", 1000 * statistics.median(times), "ms")


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        settings = EtcdSettings(Path(folder) / "data", free_port(), free_port(), certificates(Path(folder) / "pki"))
        etcd = EtcdProcess(settings, RealClock())
        began = time.perf_counter()
        await etcd.start()
        say("etcd: start to ready, empty", 1000 * (time.perf_counter() - began), "ms")
        supervisor = asyncio.create_task(etcd.supervise())
        store, second = EtcdStore(etcd.target), Etcd3Store(etcd.target)
        try:
            await measure("etcd", store)
            say("etcd: its CPU so far", etcd_cpu_s(etcd.pid), "s")
            say("etcd: its memory", etcd_memory_mb(etcd.pid), "MB")
            await measure("etcd3 package", second, whole=False, total=1000)
            await recovery(etcd, store)
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
            await store.close()
            await second.close()
            await etcd.stop()
        await measure("memory", MemoryStore())


if __name__ == "__main__":
    figures.run(lambda: asyncio.run(main()))
