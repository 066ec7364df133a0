"""Where replicas may go: policy, and the copies of volumes.

Rules: looked at where an assignment is added for a slot that was not on the node before.
- Never more slots than the service's scale, never more than two holders of a slot (a move), one replica a node of a global one.
- Only on nodes that are active, ready and match; only where the slot's volumes are.
What a person or the leader changed within the time a picture may be old counts in both shapes. A transaction that may be a part
of a larger plan is not judged by what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from model.constraints import matches, parse_constraint
from model.documents import NodeDoc, ServiceDoc
from model.spec import ServiceSpec
from sim.checks.facts import Row, Step
from sim.checks.ground import Checker

GLOBAL: Final = ("global", "global-job")
SHARED: Final = frozenset({"nfs", "nfs4", "cifs"})


@dataclass(frozen=True, slots=True)
class Matched:
    """A node as constraints see it: machines of the simulation are called like their nodes."""

    name: str
    id: str
    hostname: str
    role: str
    labels: Mapping[str, str]
    os: str = "linux"
    arch: str = "x86_64"
    engine_labels: Mapping[str, str] = field(default_factory=dict)


def matched(node: NodeDoc, spec: ServiceSpec) -> bool:
    """Whether the node is one the service may be on."""
    facts = Matched(node.name, node.id, node.name, node.role, dict(node.labels))
    placement = spec.placement
    return placement.node in ("", node.name) and all(matches(parse_constraint(text), facts) for text in placement.constraints)


def volumes_of(spec: ServiceSpec) -> list[str]:
    """Named volumes it mounts."""
    return list(dict.fromkeys(mount.source for mount in spec.container.mounts if mount.type == "volume" and mount.source))


class Placing(Checker):
    """Each added assignment."""

    def wrote(self, step: Step) -> None:
        stayed = {(row.node, row.service_id, row.slot) for row in step.removed}
        fresh = [row for row in step.added if (row.node, row.service_id, row.slot) not in stayed]
        for row in fresh:
            document = self.facts.service(row.service_id)
            if document is not None:
                self._node_may(step, row, document)
                self._volumes(step, row, document)
        for service_id in dict.fromkeys(row.service_id for row in fresh):
            document = self.facts.service(service_id)
            if document is not None:
                self._policy(step, document, [row for row in fresh if row.service_id == service_id])

    # ---- how many

    def _policy(self, step: Step, document: ServiceDoc, fresh: list[Row]) -> None:
        name, at_s = document.spec.name, step.at_s
        if document.spec.mode in GLOBAL:
            self._one_a_node(step, document, fresh)
            return
        allowed = max(row.scale for row in self.facts.recently("services", name, at_s) if row is not None)
        slots = self.facts.counted(document.id, at_s)
        new = [row for row in fresh if not step.cut and len(slots.get(row.slot, ())) <= 1]
        if new and len(slots) > allowed:
            text = f"{len(slots)} slots are assigned, its scale is {allowed}; the last one given: {new[-1]}"
            self.bad(at_s, "beyond policy", f"service/{name}", text)
        for row in fresh:
            holders = slots.get(row.slot, [])
            if len(holders) > 2 and not step.cut:
                nodes = ", ".join(f"{other.node} (v{other.version})" for other in holders)
                self.bad(at_s, "beyond policy", f"service/{name}", f"slot {row.slot} has {len(holders)} holders: {nodes}")

    def _one_a_node(self, step: Step, document: ServiceDoc, fresh: list[Row]) -> None:
        for row in fresh:
            mine = self.facts.rows[row.node][row.service_id]
            if len(mine) > 1:
                text = f"{len(mine)} replicas of a global service are assigned to {row.node}"
                self.bad(step.at_s, "beyond policy", f"service/{document.spec.name}", text)

    # ---- where

    def _node_may(self, step: Step, row: Row, document: ServiceDoc) -> None:
        at_s, about = step.at_s, f"service/{row.service}"
        nodes = [node for node in self.facts.recently("nodes", row.node, at_s) if node is not None]
        health = [one.state for one in self.facts.recently("health", row.node, at_s) if one is not None]
        specs = [one.spec for one in self.facts.recently("services", row.service, at_s) if one is not None]
        if not nodes:
            self.bad(at_s, "placement", about, f"{row}: the node is not in the cluster")
        elif not any(node.availability == "active" for node in nodes):
            self.bad(at_s, "placement", about, f"{row}: the node's availability is {nodes[0].availability}")
        elif "ready" not in health:
            self.bad(at_s, "placement", about, f"{row}: the node is {health[0] if health else 'not known to be ready'}")
        elif not any(matched(node, spec) for node in nodes for spec in specs):
            self.bad(at_s, "placement", about, f"{row}: its constraints do not allow the node")
        most = max((spec.placement.max_replicas_per_node for spec in specs), default=0)
        unlimited = any(not spec.placement.max_replicas_per_node for spec in specs)
        here = {other.slot for other in self.facts.rows[row.node][row.service_id].values()}
        if most and not unlimited and len(here) > most and document.spec.mode not in GLOBAL:
            self.bad(at_s, "placement", about, f"{len(here)} replicas on {row.node}, at most {most} are allowed there")

    def _volumes(self, step: Step, row: Row, document: ServiceDoc) -> None:
        if step.cut:
            return
        for volume in volumes_of(self.facts.specs.get((row.service_id, row.version), document.spec)):
            known = self.facts.docs["volumes"].get(volume)
            if known is not None and dict(known.spec.options).get("type", "") in SHARED:
                continue
            place = self.facts.docs["places"].get(volume)
            if place is None or row.node not in place.nodes:
                where = " and ".join(place.nodes) if place else "nowhere"
                self.bad(step.at_s, "volume", f"volume/{volume}", f"{row} is assigned away from it: it is {where}")
