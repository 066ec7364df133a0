"""The sentences of decisions: who, where, how many, in a bounded length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import Final

from scheduler.types import NODE_REPLICAS_MAX

SHOWN_MAX: Final = 5
TOLD_MAX: Final = 10


def replica_name(service: str, slot: int, node: str = "", *, everywhere: bool = False, single: bool = False) -> str:
    """`shop_web.3`, of a global service `shop_agent.n1`, of a single container its plain name."""
    if single:
        return service
    return f"{service}.{node if everywhere else slot}"


def counted(count: int, one: str = "replica") -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def too_many(replicas: int, nodes: int) -> str:
    """Why a cluster of so many nodes never runs so many replicas: a mistyped number is better refused than left waiting."""
    most = NODE_REPLICAS_MAX * max(1, nodes)
    return f"{replicas:,} replicas: a cluster of {counted(nodes, 'node')} takes at most {most:,}" if replicas > most else ""


def listed(texts: Sequence[str]) -> str:
    """At most five of them, and how many more there are."""
    return ", ".join(texts[:SHOWN_MAX]) + _more(len(texts) - SHOWN_MAX)


def told(texts: Sequence[str]) -> str:
    """One sentence of what happened to a service in one pass: a cause each, hundreds when so many nodes are lost."""
    return "; ".join(texts[:TOLD_MAX]) + _more(len(texts) - TOLD_MAX)


def spread_of(nodes: Iterable[str]) -> str:
    """`2 on n1, 1 on n2`."""
    counts = Counter(nodes)
    texts = [f"{counts[node]:,} on {node}" for node in nsmallest(SHOWN_MAX, counts)]
    return ", ".join(texts) + _more(len(counts) - SHOWN_MAX)


def placed(first: str, nodes: Sequence[str], verb: str) -> str:
    """`shop_web.3 placed on n1` or `3 replicas placed: 2 on n1, 1 on n2`. `first`: the name of the first replica."""
    if len(nodes) == 1:
        return f"{first} {verb} on {nodes[0]}"
    return f"{counted(len(nodes))} {verb}: {spread_of(nodes)}"


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""
