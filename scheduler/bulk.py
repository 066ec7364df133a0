"""Which services of a batch are placed on columns of numbers (columns.py), and which on classes.

Rules: the answer is the same, slot by slot. Columns are worth it in a batch of very many replicas, where each service takes a
good part of the nodes: a step over all nodes then costs less than one over the classes it touches. Only then is numpy
imported (decision 0012). Groups that ask for more than amounts and labels always go by classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from scheduler.filters import BY_NAME
from scheduler.pool import PLENTY, Pool
from scheduler.shelves import SHARE
from scheduler.types import Group

if TYPE_CHECKING:
    from scheduler.columns import Columns

REPLICAS_MIN: Final = 50_000
"""A batch of fewer is over before numpy is imported."""
_PER_NODE_MIN: Final = 4
"""So many replicas a node pay for making the columns and putting them back."""
_PART: Final = 64
"""A service takes every so many-th node, on average."""

NODE_BITS: Final = 20
SHARE_BITS: Final = 30
"""Of a rank: of the node's number, and of its share, above and below zero."""
_AMOUNT_MAX: Final = (1 << 62) // SHARE
"""The share of more (of memory: 4 TiB) is not reckoned in 64 bits."""
_OVER_MAX: Final = (1 << SHARE_BITS - 1) // SHARE - 1
"""The share of a node that has given away so many times what it has needs more bits."""


def runs(pool: Pool, groups: Sequence[Group], order: Sequence[int]) -> Iterator[tuple[Columns | None, list[int]]]:
    """The order in pieces, each with the columns it is to be placed on, which are put back behind it; None: on the classes."""
    for plain, some in groupby(order, lambda k: _plain(groups[k])):
        run = list(some)
        if plain and _worth(pool, [len(groups[k].slots) for k in run]):
            from scheduler.columns import Columns  # see the top

            columns = Columns(pool)
            yield columns, run
            columns.put_back()
        else:
            yield None, run


def _plain(group: Group) -> bool:
    return not (
        group.everywhere or group.strategy != "spread" or group.spread or group.ports or group.volumes or group.node
        or group.generic or group.shun or any(group.prefer)
        or any(constraint.key in BY_NAME for constraint in group.constraints)
    )  # fmt: skip


def _worth(pool: Pool, sizes: list[int]) -> bool:
    replicas, nodes = sum(sizes), len(pool.nodes)
    return (
        replicas >= max(REPLICAS_MIN, nodes * _PER_NODE_MIN) and replicas * _PART >= len(sizes) * nodes
        and nodes < 1 << NODE_BITS and _in_range(pool)
    )  # fmt: skip


def _in_range(pool: Pool) -> bool:
    """64-bit numbers are enough."""
    for alike in pool.classes():
        total = pool.kinds[alike.kind].total
        for left, of in ((alike.cpus, total.cpus), (alike.memory, total.memory)):
            if not -min(of * _OVER_MAX, _AMOUNT_MAX) <= left <= of <= _AMOUNT_MAX:
                return False
        if alike.replicas < 0 or not -PLENTY <= alike.pids <= PLENTY:
            return False
    return True
