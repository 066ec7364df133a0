"""The filters: may this node take a replica of this group, and if not, in a few words, why.

Rules: every filter has `check` (fast, True: passes) and `explain` (a phrase for a node that does not pass; it fits behind
`2 nodes: `). Order matters: a node is explained by the first filter it fails. Static filters look at the node alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from model.constraints import matches, platform_matches
from scheduler.types import NODE_REPLICAS_MAX, Group, NodeFacts

if TYPE_CHECKING:
    from scheduler.pool import Pool


class Static(NamedTuple):
    check: Callable[[NodeFacts, Group], bool]
    explain: Callable[[NodeFacts, Group], str]


class Left(Protocol):
    """What a node, or each node of a class, has: its replicas, and what is left of its amounts."""

    @property
    def replicas(self) -> int: ...
    @property
    def cpus(self) -> int: ...
    @property
    def memory(self) -> int: ...
    @property
    def pids(self) -> int: ...


class Dynamic(NamedTuple):
    """Depends on loads alone."""

    check: Callable[[Left, Group], bool]
    explain: Callable[[Left, Group], str]


BY_NAME: Final = frozenset({"node.id", "node.name", "node.hostname"})
"""What tells nodes of one kind apart."""

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
        lambda left, group: left.replicas < NODE_REPLICAS_MAX,
        lambda left, group: f"has {NODE_REPLICAS_MAX:,} replicas, the most a node takes",
    ),
    Dynamic(
        lambda left, group: not group.reserve.cpus or left.cpus >= group.reserve.cpus,
        lambda left, group: "not enough cpus",
    ),
    Dynamic(
        lambda left, group: not group.reserve.memory or left.memory >= group.reserve.memory,
        lambda left, group: "not enough memory",
    ),
    Dynamic(
        lambda left, group: not group.reserve.pids or left.pids >= group.reserve.pids,
        lambda left, group: "not enough pids",
    ),
)


def static_passes(node: NodeFacts, group: Group, *, names: bool = True) -> bool:
    """`names` False: as if the node had another name, which may or may not be asked for."""
    if names:
        return all(row.check(node, group) for row in STATIC)
    return (
        usable(node)
        and all(constraint.key in BY_NAME or matches(constraint, node) for constraint in group.constraints)
        and platform_matches(group.platform, node)
    )


def static_reason(node: NodeFacts, group: Group) -> str:
    """Why the node may not be used whatever its load; empty when it may."""
    return next((row.explain(node, group) for row in STATIC if not row.check(node, group)), "")


def reason(pool: Pool, i: int, group: Group, existing: int) -> str:
    """Why node `i` does not take one more; empty when it does."""
    why = static_reason(pool.nodes[i], group) or crowded(pool.where[i], group)
    if why:
        return why
    if group.max_per_node and existing >= group.max_per_node:
        return f"has {existing} of at most {group.max_per_node} replicas per node"
    port = pool.ports.taken(i, group.ports)
    if port:
        return f"port {port} is taken on the node"
    kind = pool.stock.lacking(pool.nodes[i], group.generic)
    return f"not enough {kind}" if kind else ""


def crowded(left: Left, group: Group) -> str:
    """Why there is no room on nodes that have this left; empty when there is."""
    return next((row.explain(left, group) for row in DYNAMIC if not row.check(left, group)), "")


def summary(reasons: Mapping[str, int]) -> str:
    """`2 nodes: not enough memory; 1 node: drained`, the most frequent first."""
    rows = sorted(((text, count) for text, count in reasons.items() if text), key=lambda row: (-row[1], row[0]))
    return "; ".join(f"{count} node{'' if count == 1 else 's'}: {text}" for text, count in rows)
