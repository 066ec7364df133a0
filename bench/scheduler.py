"""The scheduler at scale, in CPU seconds of one core: `python -m bench.scheduler [--json]`.

Rules: the account of the nodes is kept between placements, as the controller keeps it; what building it costs is shown apart,
and `numpy_s`, to import numpy, which the first big batch of a process does. The collector of cycles runs as in the controller.
`--json` prints one object: `placements_per_s` and `million_s` of the million case, `nodes_ratio` (the same work at 1,000,000
nodes and at 5,000, in turns: the worse of nodes that are much alike and of nodes that all have something else left),
`account_s` (to build the account of 1,000,000 nodes), `single_ms` (one more replica on a full cluster, the median),
`packing_over_bound` (nodes used over the fewest that could do, less 1, best fit), `rss_mb` after the million case.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from itertools import groupby
from random import Random
from statistics import median

from model.constraints import Constraint, parse_constraint
from scheduler import MICRO, Amounts, ClusterView, Group, Load, NodeFacts, Placement, Pool, place_in

COLLECT_AFTER = (20_000, 20, 20)
"""As in controller/main.py."""
SEED = 20
ROUNDS, TURNS = 3, 9
SIZES = (50, 5_000, 1_000_000)
CPUS = (0, MICRO // 20, MICRO // 10, MICRO // 5)
MEMORY = (0, 64 << 20, 128 << 20, 256 << 20)
ASKED: Sequence[tuple[Constraint, ...]] = (
    (), (), (),
    (parse_constraint("node.labels.zone==z1"),),
    (parse_constraint("node.labels.disk==ssd"),),
    (parse_constraint("node.labels.zone!=z2"), parse_constraint("node.labels.disk==ssd")),
)  # fmt: skip


def machines(count: int) -> list[NodeFacts]:
    """Twelve kinds: three zones, two disks, two sizes."""
    sizes = (Amounts(64 * MICRO, 256 << 30, 100_000), Amounts(96 * MICRO, 384 << 30, 100_000))
    return [
        NodeFacts(
            f"node{i:07}", labels={"zone": f"z{i % 3}", "disk": "ssd" if i % 2 else "hdd"}, total=sizes[i // 6 % 2]
        )
        for i in range(count)
    ]  # fmt: skip


def mixed(services: int, replicas: int, random: Random) -> list[Group]:
    """So many services with so many replicas in all, of very different sizes."""
    weights = [random.expovariate(1) + 0.05 for _ in range(services)]
    sizes = [max(1, int(replicas * weight / sum(weights))) for weight in weights]
    sizes[0] += max(0, replicas - sum(sizes))
    return [
        Group(
            f"s{number}", range(1, size + 1), Amounts(random.choice(CPUS), random.choice(MEMORY), 10),
            constraints=random.choice(ASKED),
        )
        for number, size in enumerate(sizes)
    ]  # fmt: skip


def placed(result: Placement) -> int:
    return sum(map(len, result.assigned))


def pass_over(pool: Pool, groups: list[Group]) -> tuple[float, Placement]:
    began = time.process_time()
    pool.begin({}, {})
    result = place_in(pool, groups)
    pool.restore()
    return time.process_time() - began, result


def many(replicas: int) -> tuple[float, int]:
    """Seconds and replicas of one big pass."""
    groups = mixed(1_000, replicas, Random(SEED))
    pool = Pool(ClusterView(machines(5_000)), kept=True)
    took, result = pass_over(pool, groups)
    return took, placed(result)


def full_cluster(count: int) -> tuple[ClusterView, Group]:
    """Every node is full in its own way but one, which has room for one replica of a service that has 1,000."""
    random = Random(SEED)
    nodes = machines(count)
    want = Amounts(MICRO // 2, 512 << 20, 10)
    loads = {}
    for node in nodes:
        cpus = node.total.cpus - random.randrange(want.cpus)
        loads[node.name] = Load(random.randrange(150, 200), cpus, random.randrange(node.total.memory), 2_000)
    last = nodes[count // 2]
    loads[last.name] = Load(180, last.total.cpus - want.cpus, last.total.memory // 2, 1_800)
    existing = {node.name: 1 for node in random.sample(nodes, min(1_000, count - 1)) if node is not last}
    return ClusterView(nodes, loads), Group("web", (1_001,), want, existing=existing)


def single(count: int = 5_000) -> float:
    """Milliseconds."""
    cluster, group = full_cluster(count)
    pool = Pool(cluster, kept=True)
    took = []
    for _ in range(200):
        seconds, result = pass_over(pool, [group])
        assert placed(result) == 1
        took.append(seconds * 1_000)
    return median(took)


def used_nodes(count: int, *, alike: bool) -> tuple[Pool, float]:
    """The account of a cluster of so many nodes in use, and the seconds it took to build.
    `alike`: nodes have one of three loads, as many on each size of cluster; otherwise each node has a load of its own."""
    random = Random(SEED)
    nodes = machines(count)
    cpus, memory = 4 * MICRO, 10 << 30
    loads = {
        node.name: Load(10 + i % 3, (i % 3) * MICRO, (i % 3) << 30, 100)
        if alike
        else Load(10 + i % 7, random.randrange(cpus), random.randrange(memory), 100)
        for i, node in enumerate(nodes)
    }
    began = time.process_time()
    pool = Pool(ClusterView(nodes, loads), kept=True)
    return pool, time.process_time() - began


def in_turns(pools: Sequence[Pool]) -> list[float]:
    """Seconds for the same work (1,000 services of about 10) on each: medians of passes in turns, so that what the machine's
    neighbours do falls on all of them."""
    groups = mixed(1_000, 10_000, Random(SEED))
    turns = [[pass_over(pool, groups)[0] for pool in pools] for _ in range(TURNS)]
    return [median(times) for times in zip(*turns, strict=True)]


def packing(most_memory: int = 64) -> float:
    """Best fit: nodes used over the lower bound, less 1; each replica asks for up to 4 cores and so many quarters of a GiB.
    With 64 cpus and memory are equally scarce, with 0 only cpus are asked for."""
    random = Random(SEED)
    total = Amounts(64 * MICRO, 256 << 30, 0)
    nodes = [NodeFacts(f"node{i:05}", total=total) for i in range(5_000)]
    groups = [
        Group(
            f"s{number}", range(1, random.randrange(2, 200)),
            Amounts(random.randrange(1, 81) * MICRO // 20, random.randrange(most_memory + 1) << 28), strategy="pack",
        )
        for number in range(1_000)
    ]  # fmt: skip
    result = place_in(Pool(ClusterView(nodes)), groups)
    assert not any(result.refused)
    used = len({name for pairs in result.assigned for name, _ in groupby(sorted(node for _, node in pairs))})
    cpus = sum(len(group.slots) * group.reserve.cpus for group in groups)
    memory = sum(len(group.slots) * group.reserve.memory for group in groups)
    return used / max(-(-cpus // total.cpus), -(-memory // total.memory)) - 1


def resident_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1_024


def measured(say: bool) -> dict[str, float]:
    def tell(what: str, value: str) -> None:
        if say:
            print(f"{what:<82} {value}", flush=True)

    began = time.process_time()
    import_module("numpy")
    numpy_s = time.process_time() - began
    tell("to import numpy", f"{numpy_s:.3f} s")
    rows = [many(100_000) for _ in range(ROUNDS)]
    small = median(took for took, _ in rows)
    tell("100,000 replicas of 1,000 services on 5,000 nodes", f"{small:.3f} s, {rows[0][1] / small:,.0f} a second")
    rows = [many(1_000_000) for _ in range(ROUNDS)]
    million = median(took for took, _ in rows)
    tell(f"{rows[0][1]:,} replicas of the same", f"{million:.3f} s, {rows[0][1] / million:,.0f} a second")
    resident = resident_mb()
    tell("memory after it", f"{resident:.0f} MB")
    alone = single()
    tell("one more replica on a full cluster of 5,000 nodes", f"{alone:.3f} ms")
    ratios, account = [], 0.0
    for alike in (True, False):
        made = [used_nodes(count, alike=alike) for count in SIZES]
        times = in_turns([pool for pool, _ in made])
        account = max(account, *(built for _, built in made))
        for count, took, (_, built) in zip(SIZES, times, made, strict=True):
            what = f"10,000 replicas, 1,000 services, {count:,} nodes {'in few states' if alike else 'each in its own state'}"
            tell(what, f"{took:.3f} s (account built in {built:.2f} s)")
        ratios.append(times[-1] / times[1])
        del made
    tell("memory at the end", f"{resident_mb():,.0f} MB")
    over = packing()
    tell("best fit, cpus and memory equally scarce: nodes over the lower bound", f"{over:.2%}")
    tell("best fit, cpus scarce", f"{packing(24):.2%}")
    tell("best fit, nothing but cpus asked for", f"{packing(0):.2%}")
    return {
        "placements_per_s": round(rows[0][1] / million), "million_s": round(million, 3),
        "nodes_ratio": round(max(ratios), 3), "account_s": round(account, 2), "single_ms": round(alone, 3),
        "packing_over_bound": round(over, 4), "numpy_s": round(numpy_s, 3), "rss_mb": round(resident, 1),
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    gc.set_threshold(*COLLECT_AFTER)
    figures = measured(not as_json)
    if as_json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
