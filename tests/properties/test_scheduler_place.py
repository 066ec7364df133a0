"""The batched placement against the one-by-one greedy, and what must hold of any placement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.constraints import parse_constraint
from scheduler import Amounts, ClusterView, Group, Load, NodeFacts, Pool, PortClaim, Strategy, bulk, place, place_in, shelves
from scheduler.ports import first_taken
from scheduler.shelves import State
from scheduler.types import NODE_REPLICAS_MAX
from tests.properties.scheduler_oracle import Greedy

ZONES = st.sampled_from(["", "a", "b", "c"])
MOSTLY_PACK: st.SearchStrategy[Strategy] = st.sampled_from(["pack", "pack", "pack", "spread"])
KINDS: st.SearchStrategy[tuple[str, ...]] = st.sampled_from([(), ("gpu",), ("fpga", "gpu")])
CLAIMS = st.builds(
    PortClaim, st.sampled_from(["tcp", "udp"]), st.sampled_from([80, 81]), st.sampled_from(["", "10.0.0.1", "10.0.0.2"])
)


@st.composite
def clusters(draw: st.DrawFn, most: int = 12) -> ClusterView:
    nodes, loads, ports, generic = [], {}, {}, {}
    for number in range(draw(st.integers(0, most))):
        labels = {key: value for key in ("zone", "rack") if (value := draw(ZONES))}
        nodes.append(
            NodeFacts(
                name=f"n{number:02}", labels=labels, arch=draw(st.sampled_from(["x86_64", "aarch64"])),
                state=draw(st.sampled_from(["ready"] * 8 + ["down", "unreachable"])),
                availability=draw(st.sampled_from(["active"] * 8 + ["pause", "drain"])),
                total=Amounts(draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(st.integers(0, 9))),
                generic=tuple((kind, draw(st.integers(1, 5))) for kind in draw(KINDS)),
            )
        )  # fmt: skip
        generic[f"n{number:02}"] = {"gpu": draw(st.integers(0, 2))}
        if draw(st.booleans()):
            replicas = draw(st.sampled_from([0, 1, 2, 3, 4, NODE_REPLICAS_MAX - 2]))
            loads[f"n{number:02}"] = Load(replicas, *(draw(st.integers(0, 4)) for _ in range(3)))
        if draw(st.sampled_from([False, False, True])):
            ports[f"n{number:02}"] = draw(st.lists(CLAIMS, max_size=2))
    return ClusterView(nodes, loads, ports=ports, generic=generic)


@st.composite
def groups(draw: st.DrawFn, cluster: ClusterView) -> Group:
    names = [node.name for node in cluster.nodes]
    existing = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 4))) if names else {}
    return Group(
        service="s", slots=range(1, draw(st.integers(0, 30)) + 1),
        reserve=Amounts(*(draw(st.integers(0, 2)) for _ in range(3))),
        constraints=tuple(parse_constraint(f"node.labels.zone{op}a") for op in draw(st.sampled_from([[], [], ["=="], ["!="]]))),
        platform=draw(st.sampled_from(["", "", "linux/amd64", "linux/arm64"])),
        node=draw(st.sampled_from(["", "", "", *names[:1]])),
        spread=draw(st.sampled_from([(), (), ("node.labels.zone",), ("node.labels.zone", "node.labels.rack")])),
        max_per_node=draw(st.sampled_from([0, 0, 1, 3])), existing=existing,
        strategy=draw(st.sampled_from(["spread", "spread", "pack"])),
        ports=tuple(draw(st.sampled_from([(), (), draw(st.lists(CLAIMS, max_size=2))]))),
        generic=draw(st.sampled_from([(), (), (("gpu", 1),), (("fpga", 1), ("gpu", 2))])),
    )  # fmt: skip


@st.composite
def plain_groups(draw: st.DrawFn, cluster: ClusterView) -> Group:
    """They ask for amounts and labels only."""
    group = draw(groups(cluster))
    return replace(
        group, slots=range(draw(st.integers(0, 60))), node="", spread=(), strategy="spread", ports=(), generic=()
    )


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_batch_gives_each_node_what_one_by_one_greedy_gives(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    wanted = data.draw(st.lists(groups(cluster), max_size=4))
    result = place(cluster, wanted)
    expected = Greedy(cluster).place(wanted)
    assert [Counter(node for _, node in pairs) for pairs in result.assigned] == expected


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_small_groups_on_many_nodes_agree_with_greedy_too(data: st.DataObject) -> None:
    nodes = [NodeFacts(f"n{i:03}", total=Amounts(data.draw(st.integers(1, 6)), 6)) for i in range(40)]
    cluster = ClusterView(nodes)
    wanted = [
        Group("s", range(1, data.draw(st.integers(1, 9)) + 1), Amounts(data.draw(st.integers(0, 3)), 1)) for _ in range(25)
    ]
    result = place(cluster, wanted)
    assert [Counter(node for _, node in pairs) for pairs in result.assigned] == Greedy(cluster).place(wanted)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_node_is_given_more_than_it_has_and_every_slot_is_answered_once(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    wanted = data.draw(st.lists(groups(cluster), max_size=4))
    result = place(cluster, wanted)
    used = {name: Counter(cpus=load.cpus, memory=load.memory, pids=load.pids) for name, load in cluster.loads.items()}
    for group, pairs, refusal in zip(wanted, result.assigned, result.refused, strict=True):
        assert sorted([slot for slot, _ in pairs] + list(refusal.slots if refusal else ())) == list(group.slots)
        assert refusal is None or refusal.reason
        for _, name in pairs:
            sums = used.setdefault(name, Counter())
            sums.update(cpus=group.reserve.cpus, memory=group.reserve.memory, pids=group.reserve.pids)
    touched = {name for pairs in result.assigned for _, name in pairs}
    for node in cluster.nodes:
        if node.name in touched:
            asked = Amounts(*(max(values) for values in zip(*(group.reserve for group in wanted), strict=True)))
            over = [k for k in ("cpus", "memory") if getattr(asked, k) and used[node.name][k] > getattr(node.total, k)]
            before = cluster.loads.get(node.name, Load())
            assert all(getattr(before, k) > getattr(node.total, k) for k in over)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_placement_on_scale_to_zero(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    assert place(cluster, [Group("s", ())]).assigned == ((),)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_two_replicas_of_a_node_have_the_same_port(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    wanted = data.draw(st.lists(groups(cluster), max_size=4))
    taken = {node.name: list(cluster.ports.get(node.name, ())) for node in cluster.nodes}
    for group, pairs in zip(wanted, place(cluster, wanted).assigned, strict=True):
        for _, name in pairs:
            assert first_taken(group.ports, taken[name]) is None
            taken[name] += group.ports


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_kept_account_answers_like_a_new_one(data: st.DataObject) -> None:
    """Whatever was placed on it, lent to it and changed before."""
    cluster = data.draw(clusters())
    pool = Pool(cluster, kept=True)
    nodes, loads = list(cluster.nodes), dict(cluster.loads)
    for _ in range(data.draw(st.integers(1, 4))):
        pool.begin({}, cluster.ports, cluster.generic)
        wanted = data.draw(st.lists(groups(cluster), max_size=3))
        lent = dict(loads)
        for node in data.draw(st.lists(st.sampled_from(nodes), max_size=2, unique_by=lambda node: node.name)) if nodes else ():
            lent[node.name] = Load(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4)))
            pool.lend(node.name, lent[node.name])
        assert place_in(pool, wanted) == place(ClusterView(nodes, lent, ports=cluster.ports, generic=cluster.generic), wanted)
        pool.restore()
        for at in data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=3)) if nodes else ():
            nodes[at] = replace(nodes[at], availability=data.draw(st.sampled_from(["active", "drain"])))
            loads[nodes[at].name] = Load(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4)))
            pool.update(nodes[at].name, nodes[at], loads[nodes[at].name])
    pool.begin({}, cluster.ports, cluster.generic)
    wanted = data.draw(st.lists(groups(cluster), max_size=3))
    assert place_in(pool, wanted) == place(ClusterView(nodes, loads, ports=cluster.ports, generic=cluster.generic), wanted)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_behind_a_pass_the_classes_are_those_before_it(data: st.DataObject) -> None:
    """Whatever was split, lent, packed or put together in it; each stands on a shelf once."""
    nodes = [NodeFacts(f"n{i:02}", labels={"zone": "ab"[i // 20]}, total=Amounts(12, 12)) for i in range(24)]
    loads = {node.name: Load(data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))) for node in nodes[::3]}
    cluster = ClusterView(nodes, loads)
    pool = Pool(cluster, kept=True)
    before = states_of(pool)
    for _ in range(3):
        pool.begin({}, {})
        for name in data.draw(st.lists(st.sampled_from(nodes).map(lambda node: node.name), max_size=3)):
            pool.lend(name, Load(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))))
        place_in(pool, data.draw(st.lists(groups(cluster), max_size=4)))
        assert sorted(i for some in states_of(pool).values() for i in some) == list(range(len(nodes)))
        pool.restore()
        assert states_of(pool) == before


def states_of(pool: Pool) -> dict[State, list[int]]:
    """The nodes in each state; in a pass several classes may be in one."""
    found: dict[State, list[int]] = {}
    on_shelves = [entry[3] for entry in pool.shelves.walk(Amounts(), range(len(pool.kinds)))]
    assert len(on_shelves) == len({id(alike) for alike in on_shelves}) == len(list(pool.classes()))
    for alike in on_shelves:
        assert all(pool.where[i] is alike for i in pool.all_of(alike))
        found.setdefault(alike.state, []).extend(pool.all_of(alike))
    return found


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_many_nodes_of_few_kinds_agree_with_greedy(data: st.DataObject) -> None:
    """Classes of many nodes that split and meet again."""
    sizes = [Amounts(8, 8), Amounts(12, 6)]
    nodes = [
        NodeFacts(f"n{i:03}", labels={"zone": "ab"[i % 2]}, total=sizes[i // 2 % 2])
        for i in range(data.draw(st.integers(10, 60)))
    ]
    cluster = ClusterView(nodes)
    wanted = [
        replace(
            data.draw(groups(cluster)), slots=range(data.draw(st.integers(0, 90))), node="", ports=(), platform="", generic=()
        )
        for _ in range(5)
    ]
    assert [Counter(node for _, node in pairs) for pairs in place(cluster, wanted).assigned] == Greedy(cluster).place(wanted)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_batch_that_packs_agrees_with_greedy_on_the_same_target(data: st.DataObject) -> None:
    """Mixes of cpus and memory, demands that only some nodes pass, and batches that do not all fit."""
    cluster = data.draw(clusters(most=20))
    big = [replace(node, total=Amounts(*(4 * amount for amount in node.total))) for node in cluster.nodes]
    wanted = [
        replace(
            data.draw(groups(cluster)), slots=range(data.draw(st.integers(0, 25))), strategy=data.draw(MOSTLY_PACK),
            reserve=Amounts(*(data.draw(st.integers(0, 5)) for _ in range(2))),
        )
        for _ in range(data.draw(st.integers(2, 6)))
    ]  # fmt: skip
    found = place(replace(cluster, nodes=big), wanted)
    expected = Greedy(replace(cluster, nodes=big)).place(wanted)
    assert [Counter(node for _, node in pairs) for pairs in found.assigned] == expected


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_columns_give_what_classes_give_slot_by_slot(data: st.DataObject) -> None:
    """Batches that mix what goes by columns with what goes by classes, on a kept account, pass after pass."""
    cluster = data.draw(clusters())
    kept = Pool(cluster, kept=True)
    for _ in range(data.draw(st.integers(1, 3))):
        wanted = data.draw(st.lists(groups(cluster) | plain_groups(cluster), max_size=6))
        by_classes = place(cluster, wanted)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("REPLICAS_MIN", "_PER_NODE_MIN"):
                patch.setattr(bulk, name, 0)
            patch.setattr(bulk, "_PART", 1 << 40)
            kept.begin({}, cluster.ports, cluster.generic)
            assert place_in(kept, wanted) == by_classes
            kept.restore()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_shelves_of_many_classes_agree_with_greedy(data: st.DataObject) -> None:
    """What came last is kept apart, and is put in order when it is asked for: over and over, on an account that is kept."""
    nodes = [NodeFacts(f"n{i:02}", total=Amounts(63, 63)) for i in range(20)]
    loads = {node.name: Load(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 30)), i) for i, node in enumerate(nodes)}
    cluster = ClusterView(nodes, loads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelves, "_YOUNG_MAX", data.draw(st.integers(0, 4)))
        pool = Pool(cluster, kept=True)
        for _ in range(3):
            wanted = [
                Group("s", range(slots), Amounts(*amounts))
                for slots, *amounts in data.draw(st.lists(st.tuples(st.integers(1, 8), *[st.integers(0, 4)] * 2), max_size=12))
            ]
            pool.begin({}, {})
            result = place_in(pool, wanted)
            pool.restore()
            assert [Counter(node for _, node in pairs) for pairs in result.assigned] == Greedy(cluster).place(wanted)
