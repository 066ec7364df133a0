"""Who is stopped for whom: against trying every set of victims, and what must hold of the decisions whatever the priorities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from controller.decide.ports import host_claims
from model.constraints import matches
from model.documents import NodeInfo
from model.spec import ContainerSpec, Placement, Port
from scheduler import Amounts, ClusterView, Group, Load, NodeFacts, Pool, PortClaim, fill_in
from scheduler.cover import Tenant, cover, preferred
from scheduler.preempt import Eviction, give_back, make_room
from tests.scenarios.model_cluster import ModelCluster

Draw = Callable[[Any], Any]
NAMES = ("n1", "n2", "n3")
PORT, OTHER = PortClaim("tcp", 80), PortClaim("tcp", 81)
ASKS = 10
"""The priority of who asks."""


class Town:
    """Nodes full of tenants, as the scheduler sees them; and the same for trying every set of victims."""

    def __init__(self, totals: Sequence[Amounts], tenants: dict[str, list[Tenant]]) -> None:
        self.nodes = [
            NodeFacts(name, labels={"zone": "ab"[at % 2]}, availability="drain" if at == 2 else "active", total=total)
            for at, (name, total) in enumerate(zip(NAMES, totals, strict=False))
        ]
        self.totals = dict(zip(NAMES, totals, strict=False))
        self.tenants = tenants

    def pool(self) -> Pool:
        loads = {name: self._load(rows) for name, rows in self.tenants.items()}
        ports = {name: [port for row in rows for port in row.ports] for name, rows in self.tenants.items()}
        return Pool(ClusterView(self.nodes, loads, {}, ports))

    def _load(self, rows: Sequence[Tenant]) -> Load:
        return Load(len(rows), *(sum(row.reserve[at] for row in rows) for at in range(3)))

    def most(self, node: str) -> list[tuple[int, Load]]:
        ranks = sorted({row.priority for row in self.tenants[node] if row.priority < ASKS})
        return [(rank, self._load([row for row in self.tenants[node] if row.priority == rank])) for rank in ranks]

    def biggest(self, priority: int) -> Amounts:
        rows = [row.reserve for some in self.tenants.values() for row in some if row.priority <= priority]
        return Amounts(*(max(column) for column in zip(*rows, strict=True))) if rows else Amounts()

    def on(self, node: str) -> list[Tenant]:
        return [row for row in self.tenants[node] if row.priority < ASKS]

    def fixed_ports(self, node: str) -> list[PortClaim]:
        return [port for row in self.tenants[node] if row.priority >= ASKS for port in row.ports]

    def fits(self, group: Group, node: str, without: Sequence[Tenant]) -> bool:
        """Whether one more has room on a node that passes the other filters, when these have gone."""
        stay = [row for row in self.tenants[node] if row not in without]
        load, want, total = self._load(stay), group.reserve, self.totals[node]
        return (
            all(not want[at] or load[at + 1] + want[at] <= total[at] for at in range(3))
            and not any(port in group.ports for row in stay for port in row.ports)
        )

    def best(self, group: Group) -> tuple[int, int] | None:
        """The lowest highest priority, and the fewest victims with it, of all sets on all nodes."""
        found = []
        for node in self.nodes:
            if node.availability != "active" or not all(matches(c, node) for c in group.constraints):
                continue
            rows = self.on(node.name)
            sets = [some for count in range(len(rows) + 1) for some in combinations(rows, count)]
            found += [
                (max((row.priority for row in some), default=-99), len(some))
                for some in sets if self.fits(group, node.name, some)
            ]  # fmt: skip
        return min(found, default=None)


AMOUNTS = st.builds(Amounts, st.integers(0, 3), st.integers(0, 3), st.just(0))


@st.composite
def towns(draw: st.DrawFn) -> Town:
    tenants: dict[str, list[Tenant]] = {}
    totals = []
    for name in NAMES[: draw(st.integers(1, 3))]:
        rows = [
            Tenant(
                f"s{at}", 1, draw(st.sampled_from([0, 0, 1, 5, 10, 11])), draw(st.integers(1, 4)), draw(AMOUNTS),
                draw(st.sampled_from([(), (), (), (PORT,), (OTHER,)])),
            )
            for at in range(draw(st.integers(0, 7)))
        ]  # fmt: skip
        used = Amounts(*(sum(row.reserve[at] for row in rows) for at in range(3)))
        totals.append(Amounts(used.cpus + draw(st.integers(0, 1)), used.memory + draw(st.integers(0, 1)), 0))
        tenants[name] = rows
    return Town(totals, tenants)


GROUPS = st.builds(
    lambda reserve, ports, count: Group("new", range(1, count + 1), reserve, ports=ports),
    st.builds(Amounts, st.integers(0, 5), st.integers(0, 5), st.just(0)), st.sampled_from([(), (), (PORT,)]), st.integers(1, 4),
)  # fmt: skip


@given(towns(), GROUPS)
@settings(max_examples=400, deadline=None)
def test_the_victims_are_the_best_of_all_sets_and_none_could_stay(town: Town, group: Group) -> None:
    for slot in group.slots:
        single = replace(group, slots=(slot,), existing=Counter(row for row in group.existing))
        pool = town.pool()
        if fill_in(pool, [single])[0][1] is None:
            return
        best = town.best(single)
        evictions = make_room(town.pool(), single, town, 100)
        event(f"victims: {len(evictions[0].victims) if evictions else 'none'}")
        assert bool(evictions) == (best is not None)
        if not evictions:
            return
        chosen = _chosen(town, evictions[0])
        assert (max(row.priority for row in chosen), len(chosen)) == best
        node = evictions[0].node
        assert town.fits(single, node, chosen)
        assert all(not town.fits(single, node, [other for other in chosen if other != row]) for row in chosen)
        assert all(row.priority < ASKS for row in chosen)
        town.tenants[node] = [row for row in town.tenants[node] if row not in chosen]
        town.tenants[node].append(Tenant("new", slot, ASKS, 9, group.reserve, group.ports))


def _chosen(town: Town, eviction: Eviction) -> list[Tenant]:
    keys = {(victim.service, victim.slot) for victim in eviction.victims}
    return [row for row in town.tenants[eviction.node] if (row.service, row.slot) in keys]


@given(towns(), GROUPS)
@settings(max_examples=200, deadline=None)
def test_slots_together_find_nodes_as_one_after_the_other(town: Town, group: Group) -> None:
    """What is asked for at once is placed as far as anything can be, and the scheduler agrees."""
    pool = town.pool()
    ((placed, short),) = fill_in(pool, [group])
    if short is None:
        return
    rest = replace(group, slots=short.slots, existing=Counter(node for _, node in placed))
    for slot, node in placed:
        town.tenants[node].append(Tenant("new", slot, ASKS, 9, group.reserve, group.ports))
    evictions = make_room(pool, rest, town, 100)
    for eviction in evictions:
        chosen = _chosen(town, eviction)
        assert len(chosen) == len(eviction.victims), "nobody goes twice"
        town.tenants[eviction.node] = [row for row in town.tenants[eviction.node] if row not in chosen]
        for row in chosen:
            give_back(pool, eviction.node, row.reserve)
        assert town.fits(group, eviction.node, ())
        town.tenants[eviction.node].append(Tenant("new", eviction.slot, ASKS, 9, group.reserve, group.ports))
    pool.begin({}, {})
    preferring = replace(rest, slots=rest.slots[: len(evictions)], prefer=tuple(row.node for row in evictions), ports=())
    ((pairs, left),) = fill_in(pool, [preferring])
    assert sorted(pairs) == sorted((row.slot, row.node) for row in evictions)
    assert left is None
    assert len(evictions) == len(rest.slots) or town.best(group) is None


@given(
    st.lists(st.tuples(AMOUNTS, st.sampled_from([0, 1, 5]), st.integers(1, 9)), max_size=9),
    st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 8), st.just(0)), st.sampled_from([-9, 0, 5]),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_a_cover_is_the_first_of_the_smallest(
    rows: list[tuple[Amounts, int, int]], lack: tuple[int, int, int, int], floor: int
) -> None:
    tenants = [Tenant(f"s{at}", 1, rank, born, reserve) for at, (reserve, rank, born) in enumerate(rows)]
    sets = []
    for count in range(len(tenants) + 1):
        for some in combinations(sorted(tenants, key=preferred), count):
            if all(sum(column) >= need for column, need in zip(_columns(some), lack, strict=True)):
                ceiling = max((row.priority for row in some), default=-99)
                sets.append((max(ceiling, floor), count, [preferred(row) for row in some]))
    found = cover(tenants, lack, floor)
    if not sets:
        assert found is None
        return
    assert found is not None
    if len(found) <= 8:
        ceiling = max((row.priority for row in found), default=-99)
        assert (max(ceiling, floor), len(found), [preferred(row) for row in found]) == min(sets)


def _columns(some: Sequence[Tenant]) -> list[list[int]]:
    return [[1] * len(some), *([row.reserve[at] for row in some] for at in range(3))]


# -- decisions -------------------------------------------------------------------------------------------------------


@st.composite
def crowds(draw: st.DrawFn) -> ModelCluster:
    """A cluster with less room than its services of several priorities want."""
    cluster = ModelCluster()
    for name in ("n1", "n2", "n3")[: draw(st.integers(1, 3))]:
        info = NodeInfo(cpus=draw(st.integers(1, 5)), memory_bytes=draw(st.integers(2, 8)), pids=0)
        cluster.node(name, info, labels=(("zone", draw(st.sampled_from("ab"))),))
    for at in range(draw(st.integers(2, 5))):
        add(draw, cluster, f"s{at}", (-5, 0, 0, 5))
    return cluster


def add(draw: Draw, cluster: ModelCluster, name: str, priorities: Sequence[int]) -> None:
    ports = draw(st.sampled_from([(), (), (), (Port(80, 80, mode="host"),)]))
    cpus = draw(st.sampled_from([0.5, 1.0, 2.0, 3.0]))
    cluster.service(
        name, draw(st.integers(1, 6)), container=ContainerSpec("x", ports=ports), cpus=cpus,
        memory=draw(st.integers(0, 4)), mode=draw(st.sampled_from(["replicated"] * 5 + ["global"])),
        priority=draw(st.sampled_from(priorities)),
        placement=Placement(
            constraints=draw(st.sampled_from([(), (), ("node.labels.zone==a",)])),
            max_replicas_per_node=draw(st.sampled_from([0, 0, 1])),
        ),
    )  # fmt: skip


def check_no_inversion(cluster: ModelCluster) -> None:
    """Nobody waits on a node that it could have, were it not for replicas of less priority."""
    docs = cluster.docs["services"]
    for name, decision in cluster.docs["decisions"].items():
        doc = docs[name]
        for node in sorted(cluster.docs["nodes"]) if decision.waiting else ():
            zone = dict(cluster.docs["nodes"][node].labels)["zone"]
            if any(not text.endswith(zone) for text in doc.spec.placement.constraints):
                continue
            entries = cluster.docs["assignments"][node].services if node in cluster.docs["assignments"] else ()
            own = next((len(entry.replicas) for entry in entries if entry.name == name), 0)
            most = doc.spec.placement.max_replicas_per_node
            if (most and own >= most) or (own and (doc.spec.mode == "global" or doc.spec.container.ports)):
                continue
            stay = [
                (docs[entry.name], len(entry.replicas)) for entry in entries
                if docs[entry.name].spec.priority >= doc.spec.priority or docs[entry.name].spec.mode == "global"
            ]  # fmt: skip
            info, want = cluster.docs["status"][node].info, doc.spec.reservations
            cpus = sum(other.spec.reservations.cpus * count for other, count in stay)
            memory = sum(other.spec.reservations.memory_bytes * count for other, count in stay)
            port = any(host_claims(other) for other, _ in stay) and bool(host_claims(doc))
            assert (
                cpus + want.cpus > info.cpus or (want.memory_bytes and memory + want.memory_bytes > info.memory_bytes) or port
            ), (name, node)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_priorities_are_kept_and_twice_is_once(data: st.DataObject) -> None:
    cluster = data.draw(crowds())
    cluster.decide()
    check_no_inversion(cluster)
    assert cluster.decide().empty()
    for at in range(data.draw(st.integers(1, 4))):
        services = sorted(cluster.docs["services"])
        name = data.draw(st.sampled_from(services))
        what = data.draw(st.sampled_from(["add", "add", "scale", "rank", "rank", "delete", "version", "stop"]))
        spec = cluster.docs["services"][name].spec
        if what == "add":
            name = f"t{at}"
            add(data.draw, cluster, name, (0, 5, 10))
        elif what == "scale":
            cluster.change(name, scale=data.draw(st.integers(0, 5)))
        elif what == "rank":
            cluster.change(name, spec=replace(spec, priority=data.draw(st.sampled_from([-5, 0, 5, 10]))))
        elif what == "version":
            cluster.change(name, version=cluster.docs["services"][name].version + 1)
        elif what == "stop":
            cluster.change(name, stopped=data.draw(st.booleans()))
        elif len(services) > 1:
            del cluster.docs["services"][name]
        dirty = None if data.draw(st.booleans()) else [name]
        plan = cluster.decide(dirty)
        event(f"victims: {len(plan.preempted)}")
        check_victims(cluster, [(row.replica, row.by) for row in plan.preempted])
        check_no_inversion(cluster)
        again = cluster.decide(dirty)
        assert again.empty() or (dirty and not again.assignments), "at most why others wait is put in other words"
        assert not cluster.decide().assignments
        assert cluster.decide().empty()
        if data.draw(st.booleans()):
            cluster.converge()
            check_no_inversion(cluster)


def check_victims(cluster: ModelCluster, rows: Sequence[tuple[str, str]]) -> None:
    docs = cluster.docs["services"]
    for replica, by in rows:
        loser, winner = docs[replica.rpartition(".")[0]].spec, docs[by.rpartition(".")[0]].spec
        assert loser.priority < winner.priority
        assert loser.mode == "replicated"
    assert len({replica for replica, _ in rows}) == len(rows), "nobody goes twice"
