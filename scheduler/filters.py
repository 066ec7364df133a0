"""The filters: may this node take a replica of this group, and if not, in a few words, why.

Rules: every filter has `check` (fast, True: passes) and `explain` (a phrase for a node that does not pass; it fits behind
`2 nodes: `). Order matters: a node is explained by the first filter it fails. Static filters look at the node alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from model.constraints import matches, platform_matches
from scheduler.types import NODE_REPLICAS_MAX, Group, NodeFacts

if TYPE_CHECKING:
    from scheduler.pool import Pool


class Static(NamedTuple):
    check: Callable[[NodeFacts, Group], bool]
    explain: Callable[[NodeFacts, Group], str]


class Dynamic(NamedTuple):
    """Depends on loads; the last argument: replicas of the group's service already on the node."""

    check: Callable[[Pool, int, Group, int], bool]
    explain: Callable[[Pool, int, Group, int], str]


_AVAILABILITY: Final = {"pause": "paused", "drain": "drained"}


def usable(node: NodeFacts) -> bool:
    """Ready and active."""
    return node.state == "ready" and node.availability == "active"


def _unmet(node: NodeFacts, group: Group) -> str:
    return next(c.text for c in group.constraints if not matches(c, node))


STATIC: Final[tuple[Static, ...]] = (
    Static(lambda node, group: node.state == "ready", lambda node, group: node.state),
    Static(
        lambda node, group: node.availability == "active",
        lambda node, group: _AVAILABILITY.get(node.availability, node.availability),
    ),
    Static(lambda node, group: not group.node or node.name == group.node, lambda node, group: f"not {group.node}"),
    Static(
        lambda node, group: all(matches(c, node) for c in group.constraints),
        lambda node, group: f"constraint {_unmet(node, group)} not met",
    ),
    Static(
        lambda node, group: platform_matches(group.platform, node),
        lambda node, group: f"platform is {node.os}/{node.arch}, not {group.platform}",
    ),
    Static(
        lambda node, group: not any(node.name in names for _, names in group.shun),
        lambda node, group: next(why for why, names in group.shun if node.name in names),
    ),
)

DYNAMIC: Final[tuple[Dynamic, ...]] = (
    Dynamic(
        lambda pool, i, group, existing: pool.replicas[i] < NODE_REPLICAS_MAX,
        lambda pool, i, group, existing: f"has {NODE_REPLICAS_MAX:,} replicas, the most a node takes",
    ),
    Dynamic(
        lambda pool, i, group, existing: not group.reserve.cpus or pool.cpus[i] >= group.reserve.cpus,
        lambda pool, i, group, existing: "not enough cpus",
    ),
    Dynamic(
        lambda pool, i, group, existing: not group.reserve.memory or pool.memory[i] >= group.reserve.memory,
        lambda pool, i, group, existing: "not enough memory",
    ),
    Dynamic(
        lambda pool, i, group, existing: not group.reserve.pids or pool.pids[i] >= group.reserve.pids,
        lambda pool, i, group, existing: "not enough pids",
    ),
    Dynamic(
        lambda pool, i, group, existing: not group.max_per_node or existing < group.max_per_node,
        lambda pool, i, group, existing: f"has {existing} of at most {group.max_per_node} replicas per node",
    ),
    Dynamic(
        lambda pool, i, group, existing: not group.ports or not pool.taken_port(i, group),
        lambda pool, i, group, existing: f"port {pool.taken_port(i, group)} is taken on the node",
    ),
)


def static_passes(node: NodeFacts, group: Group) -> bool:
    return all(row.check(node, group) for row in STATIC)


def static_reason(node: NodeFacts, group: Group) -> str:
    """Why the node may not be used whatever its load; empty when it may."""
    return next((row.explain(node, group) for row in STATIC if not row.check(node, group)), "")


def reason(pool: Pool, i: int, group: Group, existing: int) -> str:
    """Why node `i` does not take one more; empty when it does."""
    static = static_reason(pool.nodes[i], group)
    if static:
        return static
    return next((row.explain(pool, i, group, existing) for row in DYNAMIC if not row.check(pool, i, group, existing)), "")


def summary(reasons: Iterable[str]) -> str:
    """`2 nodes: not enough memory; 1 node: drained`, the most frequent first."""
    counts = Counter(text for text in reasons if text)
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    return "; ".join(f"{count} node{'' if count == 1 else 's'}: {text}" for text, count in rows)
