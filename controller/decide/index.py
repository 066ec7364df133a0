"""What decisions would otherwise have to search all assignments for: who runs where, how much is given away, node facts.

Rules: a cache and nothing more. It compares documents by identity with those it saw last and takes in what changed, so it is
right whatever happened between two views, and the answer of a decision is the same with a fresh one. One thread uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from controller.decide.calm import Calms
from controller.decide.differing import missing, others, same_names
from controller.decide.ports import host_claims
from controller.decide.ranks import Ranks
from controller.decide.taken import Taken
from model.documents import (
    AssignedService,
    AssignmentDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ServiceDoc,
    StatusDoc,
)
from model.spec import Counts, Resources
from scheduler import Amounts, ClusterView, Load, NodeFacts, Pool, PortClaim, micro

if TYPE_CHECKING:
    from controller.decide.types import View

Statuses = Mapping[tuple[int, int], ReplicaStatus]
"""Of one service on one node, by (slot, created_ms)."""

_NO_DOC = AssignmentDoc("")
_NO_INFO = NodeInfo()
_NO_STATUS: Statuses = {}


def amounts_of(reservations: Resources) -> Amounts:
    return Amounts(micro(reservations.cpus), reservations.memory_bytes, reservations.pids)


class Index:
    """`placed[service name][node]`: the entry of the node's assignment document. `loads[node]`: what is given away there.
    `claims[service name]`: the ports each of its replicas takes of its node; only of services that do.
    `generic[service name]`: what each reserves of its node's generic resources; as well."""

    def __init__(self) -> None:
        self.placed: dict[str, dict[str, AssignedService]] = {}
        self.loads: dict[str, Load] = {}
        self.claims: dict[str, tuple[PortClaim, ...]] = {}
        self.generic: dict[str, Counts] = {}
        self._taken = Taken()
        self._netplans: Mapping[str, NetworkPlanDoc] = {}
        self._with_fixed: tuple[str, ...] = ()
        self._amounts: dict[str, Amounts] = {}
        self._services: Mapping[str, ServiceDoc] = {}
        self._assignments: Mapping[str, AssignmentDoc] = {}
        self._orphans: dict[str, tuple[Mapping[str, object], Mapping[str, object], tuple[str, ...]]] = {}
        """By kind: documents of nodes, the nodes, and those without one."""
        self._statuses: dict[str, tuple[StatusDoc, dict[str, dict[tuple[int, int], ReplicaStatus]]]] = {}
        self._told_ports: dict[str, tuple[StatusDoc, tuple[ReplicaStatus, ...]]] = {}
        self._facts: dict[str, tuple[NodeDoc, str, NodeInfo, NodeFacts]] = {}
        self._pool: Pool | None = None
        self._pool_of: tuple[Mapping[str, object], ...] = ()
        self._moved: set[str] = set()
        """Nodes whose load is not what the pool says."""
        self.ranks = Ranks(self)
        self.calms = Calms()
        self.stamps: dict[str, int] = {}
        """By service name; another one when any of its entries is another one."""
        self._stamp = 0

    def refresh(self, view: View) -> Index:
        """Take in what changed since the last view."""
        if view.services is not self._services:
            self._take_services(view.services)
        if view.assignments is not self._assignments:
            self._take_assignments(view.assignments)
        return self

    def orphans(self, kind: str, documents: Mapping[str, object], nodes: Mapping[str, object]) -> tuple[str, ...]:
        """Sorted names in `documents` of nodes that there are not."""
        known = self._orphans.get(kind)
        if known is None or not (same_names(known[0], documents) and same_names(known[1], nodes)):
            found = tuple(sorted(documents.keys() - nodes.keys()))
        else:
            found = known[2]
        self._orphans[kind] = (documents, nodes, found)
        return found

    def statuses(self, view: View, node: str, service_id: str) -> Statuses:
        """What the node's agent last said of the service's replicas."""
        doc = view.statuses.get(node)
        if doc is None:
            return _NO_STATUS
        known = self._statuses.get(node)
        if known is None or known[0] is not doc:
            table: dict[str, dict[tuple[int, int], ReplicaStatus]] = {}
            for row in doc.replicas:
                table.setdefault(row.service_id, {})[row.slot, row.created_ms] = row
            known = self._statuses[node] = (doc, table)
        return known[1].get(service_id, _NO_STATUS)

    def with_ports(self, view: View, node: str) -> tuple[ReplicaStatus, ...]:
        """What the node's agent last said of replicas that have ports of the node."""
        doc = view.statuses.get(node)
        if doc is None:
            return ()
        known = self._told_ports.get(node)
        if known is None or known[0] is not doc:
            known = self._told_ports[node] = (doc, tuple(row for row in doc.replicas if row.ports))
        return known[1]

    def facts(self, view: View, node: NodeDoc) -> NodeFacts:
        """The node as the scheduler sees it."""
        status = view.statuses.get(node.name)
        info = status.info if status is not None else _NO_INFO
        health: NodeHealthDoc | None = view.health.get(node.name)
        state = health.state if health is not None else "unreachable"
        known = self._facts.get(node.name)
        if known is not None and known[0] is node and known[1] == state and (known[2] is info or known[2] == info):
            return known[3]
        facts = NodeFacts(
            name=node.name, id=node.id, hostname=info.hostname or node.name, role=node.role, os=info.os, arch=info.arch,
            labels=dict(node.labels), state=state, availability=node.availability,
            total=Amounts(micro(info.cpus), info.memory_bytes, info.pids), generic=node.generic,
        )  # fmt: skip
        self._facts[node.name] = (node, state, info, facts)
        return facts

    def pool(self, view: View) -> Pool:
        """The scheduler's account of the nodes, as the view says."""
        documents: tuple[Mapping[str, object], ...] = (view.nodes, view.health, view.statuses)
        pool = self._pool
        if pool is not None and len(pool.kinds) > 2 * len(pool.nodes) + 64:
            pool = None  # most of its kinds are of labels that nobody has any more
        if pool is None or (view.nodes is not self._pool_of[0] and view.nodes.keys() != pool.at.keys()):
            nodes = [self.facts(view, view.nodes[name]) for name in sorted(view.nodes)]
            pool = self._pool = Pool(ClusterView(nodes, self.loads), kept=True)
        else:
            changed = set(self._moved)
            for old, new in zip(self._pool_of, documents, strict=True):
                if old is not new:
                    changed.update(others(old, new))
                    changed.update(missing(old, new))
            for name in sorted(changed & pool.at.keys()):
                facts = self.facts(view, view.nodes[name])
                if name in self._moved or facts is not pool.nodes[pool.at[name]]:
                    pool.update(name, facts, self.loads.get(name, Load()))
        self._pool_of = documents
        self._moved.clear()
        return pool

    def taken(self, view: View) -> Taken:
        """What services have that nobody else may have."""
        return self._taken.refresh(view)

    def with_fixed(self, view: View) -> tuple[str, ...]:
        """Networks whose plan holds addresses that were asked for."""
        if view.netplans is not self._netplans:
            self._netplans = view.netplans
            self._with_fixed = tuple(sorted(name for name, plan in view.netplans.items() if plan.fixed))
        return self._with_fixed

    def amounts(self, service: str) -> Amounts:
        return self._amounts.get(service, Amounts())

    def _take_services(self, services: Mapping[str, ServiceDoc]) -> None:
        before = self._services
        for name, doc in services.items():
            old = before.get(name)
            if old is doc:
                continue
            if old is None or old.spec.reservations != doc.spec.reservations:
                self._reprice(name, amounts_of(doc.spec.reservations))
            if doc.spec.container.ports or name in self.claims:
                self._claim(name, host_claims(doc))
            if doc.spec.reservations.generic:
                self.generic[name] = doc.spec.reservations.generic
            else:
                self.generic.pop(name, None)
            self.ranks.know(name, doc)
        for name in before.keys() - services.keys():
            self.ranks.know(name, None)
            self.claims.pop(name, None)
            self.generic.pop(name, None)
            if name not in self.placed:
                self._amounts.pop(name, None)
        self._services = services

    def _claim(self, name: str, claims: tuple[PortClaim, ...]) -> None:
        if claims:
            self.claims[name] = claims
        else:
            self.claims.pop(name, None)

    def _reprice(self, name: str, new: Amounts) -> None:
        old = self._amounts.get(name, Amounts())
        self._amounts[name] = new
        if old != new:
            for node, entry in self.placed.get(name, {}).items():
                count = entry.count
                self._add(node, -count, old, name)
                self._add(node, count, new, name)

    def _take_assignments(self, assignments: Mapping[str, AssignmentDoc]) -> None:
        before = self._assignments
        for node in others(before, assignments):
            self._swap(node, before.get(node, _NO_DOC), assignments[node])
        for node in missing(before, assignments):
            self._swap(node, before[node], _NO_DOC)
            self.loads.pop(node, None)
            self._moved.add(node)
            self._statuses.pop(node, None)
            self._told_ports.pop(node, None)
            self._facts.pop(node, None)
        self._assignments = assignments

    def _swap(self, node: str, old: AssignmentDoc, new: AssignmentDoc) -> None:
        gone = {entry.name: entry for entry in old.services}
        self._stamp += 1
        placed, stamps, stamp = self.placed, self.stamps, self._stamp
        counts: dict[str, int] = {}
        for entry in new.services:
            name = entry.name
            was = gone.pop(name, None)
            if was is entry:
                continue
            counts[name] = entry.count - (was.count if was else 0)
            stamps[name] = stamp
            nodes = placed.get(name)
            if nodes is None:
                placed[name] = {node: entry}
            else:
                nodes[node] = entry
        for name, was in gone.items():
            counts[name] = -was.count
            stamps[name] = stamp
            nodes = placed[name]
            nodes.pop(node, None)
            if not nodes:
                del placed[name], stamps[name]
        self._add_all(node, counts)

    def _add_all(self, node: str, counts: Mapping[str, int]) -> None:
        """As `_add`, for many services at once."""
        price_of, none = self._amounts.get, Amounts()
        replicas = cpus = memory = pids = 0
        for name, count in counts.items():
            price = price_of(name, none)
            replicas += count
            cpus += count * price.cpus
            memory += count * price.memory
            pids += count * price.pids
            if self.ranks.counted:
                self.ranks.add(node, count, price, name)
        if counts:
            load = self.loads.get(node) or Load()
            self._moved.add(node)
            self.loads[node] = Load(load.replicas + replicas, load.cpus + cpus, load.memory + memory, load.pids + pids)

    def _add(self, node: str, count: int, price: Amounts, service: str) -> None:
        load = self.loads.get(node) or Load()
        self._moved.add(node)
        self.loads[node] = Load(
            load.replicas + count,
            load.cpus + count * price.cpus,
            load.memory + count * price.memory,
            load.pids + count * price.pids,
        )
        if self.ranks.counted:
            self.ranks.add(node, count, price, service)


def index_of(view: View) -> Index:
    """The view's index, up to date; a fresh one when the view has none."""
    return (view.index if view.index is not None else Index()).refresh(view)
