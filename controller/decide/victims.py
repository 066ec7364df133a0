"""Which slots go on scale-in: what does not run first, then from the node with most replicas the one with the fewest open
connections, as far as they are known, and of these the youngest.

Rules: whole slots (all their holders). Ties: the node with more replicas in all, then the later name.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from controller.decide.standing import Key, Slot
from model.states import RUNNING
from scheduler import Load


def choose(
    slots: Mapping[Key, Slot], count: int, loads: Mapping[str, Load], busy: Mapping[int, int] | None = None
) -> list[Key]:
    """`count` of the slots' keys. `busy`: open connections by slot; who is not in it has none."""
    order = sorted(slots.items(), key=lambda row: (row[1].primary.replica.created_ms, str(row[0]).zfill(12)))
    weak = [key for key, slot in reversed(order) if _weak(slot)]
    chosen = weak[:count]
    if len(chosen) == count:
        return chosen
    by_node: dict[str, list[Key]] = {}
    if busy:
        order.sort(key=lambda row: -busy.get(row[0], 0) if isinstance(row[0], int) else 0)
    for key, slot in order:
        if not _weak(slot):
            by_node.setdefault(slot.primary.node, []).append(key)
    names = sorted(by_node, reverse=True)
    heap = [(-len(by_node[name]), -loads.get(name, Load()).replicas, at) for at, name in enumerate(names)]
    heapq.heapify(heap)
    while len(chosen) < count and heap:
        _, total, at = heapq.heappop(heap)
        keys = by_node[names[at]]
        chosen.append(keys.pop())
        if keys:
            heapq.heappush(heap, (-len(keys), total + 1, at))
    return chosen


def _weak(slot: Slot) -> bool:
    held = slot.primary
    return not slot.available or held.state != RUNNING or bool(held.leaving)
