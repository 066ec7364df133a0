"""Many replicas at once, packed: by best fit, or on the target of the batch (target.py), class by class.

Rules: as with spread, the number each node gets is exactly what one replica after the other would give. Best fit: the least
free share that still has room, then most replicas, then name. On the target: the node that has most left of what the replica
asks for (the weighted product of the two), then name; so a service that is mostly cpus goes where cpus are left.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from scheduler.fill import Field, water_level

if TYPE_CHECKING:
    from scheduler.target import Weights


def best_fit(field: Field, count: int) -> list[int]:
    """Nodes for up to `count` replicas: one node after the other is filled, the fullest first."""
    rows = field.rows()
    rows.sort(key=lambda row: (-row.minus_share, -row.replicas))
    order: list[int] = []
    given: dict[tuple[int, int], list[int]] = {}
    number = 0
    for _, equal in groupby(rows, itemgetter(0, 1)):
        bucket = list(equal)
        at = dict(enumerate(bucket, number))
        number += len(bucket)
        left = count - len(order)
        if not left:
            break
        most = max(1, -(-left // min(row.room for row in bucket)))
        for i, k in sorted((i, k) for k, row in at.items() for i in field.nodes(row, most)):
            fits = min(at[k].room, count - len(order))
            if not fits:
                break
            order += [i] * fits
            given.setdefault((k, fits), []).append(i)
    field.pool.take([(rows[k].alike, nodes, fits) for (k, fits), nodes in given.items()], field.group)
    return order


def on_target(field: Field, count: int, weights: Weights) -> list[int]:
    """Nodes for up to `count` replicas, in slot order. `field` holds nodes of the target only.

    The worth of a node falls by the same with each replica, so all are filled down to a common worth at once.
    """
    cpus, memory, _ = field.group.reserve
    by_cpus, by_memory = cpus * weights.cpus, memory * weights.memory
    step = cpus * by_cpus + memory * by_memory
    rows = field.rows()
    if not rows or not step:
        return []
    worth = {row.alike: row.alike.cpus * by_cpus + row.alike.memory * by_memory for row in rows}
    top = max(worth.values())
    rows = [row._replace(level=(top - worth[row.alike]) // step) for row in rows]
    return field.give(rows, water_level(rows, count), count, lambda row, give: (give * step - worth[row.alike],))
