"""CPU of container starts: `python -m bench.runtime [--starts 20] [--runtime crun]` (root). Prints milliseconds per start.

Rules: measured are create + start (to the running process) and, apart from it, kill + delete. `children` is the CPU of conmon,
the OCI runtime and the container's own exec; `agent` is this process. conmon is counted when it ends, that is in
the second figure. Afterwards the leftovers are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import figures
from tests.root.runtime_kit import Kit, in_private_mounts, kit_in, leftovers


def _cpu() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


async def _measure(name: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
    own, children = _cpu()
    begin = time.perf_counter()
    await work()
    wall = time.perf_counter() - begin
    own_after, children_after = _cpu()
    rows = (wall, own_after - own, children_after - children)
    for label, row in zip(_LABELS, rows, strict=True):
        figures.add(f"{name}: {label}", 1000 * row / count, "ms")
    print(f"{name:24}" + "  ".join(f"{label} {1000 * row / count:6.1f} ms" for label, row in zip(_LABELS, rows, strict=True)))


_LABELS = ("wall", "agent CPU", "children CPU")


async def _bench(kit: Kit, starts: int) -> None:
    await kit.ran("true")  # compiles the filter, fills caches
    for together in (1, 4):
        orders = [kit.order("sleep", "1000") for _ in range(starts)]

        async def start_all(orders: list = orders, together: int = together) -> None:  # type: ignore[type-arg]
            for index in range(0, len(orders), together):
                await asyncio.gather(*(kit.started(order) for order in orders[index : index + together]))

        async def end_all(orders: list = orders) -> None:  # type: ignore[type-arg]
            await asyncio.gather(*(kit.runtime.delete(order.id) for order in orders))

        await _measure(f"create+start, {together} at once", starts, start_all)
        begin, _ = _cpu()
        for order in orders:
            await kit.runtime.usage(order.id)
        middle, _ = _cpu()
        for order in orders:
            await kit.runtime.usage(order.id)
        first, later = (1e6 * cpu / starts for cpu in (middle - begin, _cpu()[0] - middle))
        print(f"{'usage, first and later':24}{first:6.0f} us {later:6.0f} us")
        await _measure("kill+delete, all at once", starts, end_all)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--runtime", default="crun", choices=("crun", "runc"))
    args = parser.parse_args()

    async def whole() -> None:
        with tempfile.TemporaryDirectory(prefix="shoal-bench-") as name:
            directory = Path(name)
            async with kit_in(directory, args.runtime) as kit:
                await _bench(kit, args.starts)
            print("left over:", leftovers(directory, kit.parent) or "nothing")

    in_private_mounts(whole)


if __name__ == "__main__":
    figures.run(main)
