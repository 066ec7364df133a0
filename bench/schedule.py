"""Placement rate in CPU seconds: few big services, and many small ones. `python -m bench.schedule`."""

from __future__ import annotations

import sys
import time

from scheduler import MICRO, Amounts, ClusterView, Group, NodeFacts, place


def cluster(count: int) -> ClusterView:
    total = Amounts(64 * MICRO, 256 << 30, 100_000)
    return ClusterView([NodeFacts(f"node{i:05}", labels={"zone": f"z{i % 3}"}, total=total) for i in range(count)])


def measure(what: str, nodes: int, groups: list[Group]) -> None:
    view = cluster(nodes)
    began = time.process_time()
    result = place(view, groups)
    took = time.process_time() - began
    placed = sum(map(len, result.assigned))
    print(f"{what}: {placed:,} replicas on {nodes:,} nodes in {took:.2f} CPU s: {placed / took:,.0f} a second")


def main() -> int:
    small = Amounts(MICRO // 10, 256 << 20, 10)
    measure("20 services of 50,000", 5_000, [Group(f"s{i}", range(1, 50_001), Amounts(0, 1 << 20)) for i in range(20)])
    measure("100 services of 10,000", 5_000, [Group(f"s{i}", range(1, 10_001), Amounts(0, 1 << 20)) for i in range(100)])
    measure("10,000 services of 10", 5_000, [Group(f"s{i}", range(1, 11), small) for i in range(10_000)])
    measure("a full cluster: 20,000 services of 200", 5_000, [Group(f"s{i}", range(1, 201), small) for i in range(20_000)])
    zone = ("node.labels.zone",)
    measure("5 services of 20,000 over zones", 5_000, [Group(f"s{i}", range(1, 20_001), small, spread=zone) for i in range(5)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
