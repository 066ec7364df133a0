"""Which nodes have a slice of a network that nobody uses. Pure.

Rules: unused is only what is known to be: no replica of the network is assigned to the node, its agent has taken the newest
assignment document and has said everything, and of all containers it told of (those that are still ending too) each is
assigned and none has an address on the network. Of a node that is silent, cut off or down nothing is known: its containers may
run on with their addresses, and it keeps its slices until it is back, or removed. An agent starts nothing that it is not
assigned, so a node that falls silent later cannot begin to use what was found unused.
"""

from __future__ import annotations

from typing import Final

from controller.decide.attached import networks_of
from controller.decide.index import Index
from controller.decide.types import Settings, View

SLICES: Final = "*slices"
"""The key under which a pass looks at slices; no service can be called so."""
LOOKS: Final = 10
"""While a slice becomes old enough it is looked at so often."""


def next_look_ms(settings: Settings, now_ms: int) -> int:
    """The same moment for all passes before it, so that none puts it off."""
    every_ms = max(1, settings.slice_idle_ms // LOOKS)
    return (now_ms // every_ms + 1) * every_ms


def without_replicas(view: View, index: Index) -> dict[str, list[str]]:
    """Nodes by network that have a slice of it and no replica assigned that is on it; only networks that have such nodes."""
    services: dict[str, list[str]] = {}
    for service, doc in view.services.items():
        for network in networks_of(doc):
            services.setdefault(network, []).append(service)
    found = {}
    for name, plan in view.netplans.items():
        busy: set[str] = set()
        for service in services.get(name, ()):
            busy.update(index.placed.get(service, ()))
        if len(busy) < len(plan.slices) or not busy.issuperset(node for node, _ in plan.slices):
            found[name] = [node for node, _ in plan.slices if node not in busy]
    return found


def unused(view: View, candidates: dict[str, list[str]]) -> tuple[dict[str, list[str]], bool]:
    """Those of `without_replicas` of which it is known; and whether it may be known of others soon: their nodes are ready (once
    another one is, everything is decided about anyway)."""
    ready = {node for node, health in view.health.items() if health.state == "ready"}
    attached: dict[str, frozenset[str] | None] = {}
    found, soon = {}, False
    for name, nodes in candidates.items():
        nodes = [node for node in nodes if node in ready]
        for node in nodes:
            if node not in attached:
                attached[node] = _attached(view, node)
        found[name] = [node for node in nodes if (networks := attached[node]) is not None and name not in networks]
        soon = soon or len(found[name]) < len(nodes)
    return found, soon


def _attached(view: View, node: str) -> frozenset[str] | None:
    """Networks that the ready node's containers have addresses on; None when that is not certain."""
    session, status = view.sessions.get(node), view.statuses.get(node)
    if session is None or not session.open or not session.whole_status:
        return None
    assignment = view.assignments.get(node)
    if status is None or (assignment is not None and session.generation != assignment.generation):
        return None
    rows = assignment.services if assignment is not None else ()
    assigned = {(row.service_id, replica.slot, replica.created_ms) for row in rows for replica in row.replicas}
    if any((row.service_id, row.slot, row.created_ms) not in assigned for row in status.replicas):
        return None
    return frozenset(network for row in status.replicas for network, _ in row.addresses)
