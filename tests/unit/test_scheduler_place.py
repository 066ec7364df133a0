"""Reasons, volumes, preferred nodes and the order of slots."""

from __future__ import annotations

import pytest

from model.constraints import parse_constraint, parse_constraints, parse_spread
from model.errors import BadInput
from scheduler import Amounts, ClusterView, Group, Load, NodeFacts, Pool, PortClaim, place, place_in
from scheduler.types import NODE_REPLICAS_MAX

HAS = Amounts(4_000_000, 8_000, 0)


def nodes(*names: str, **changes: object) -> list[NodeFacts]:
    return [NodeFacts(name, total=HAS, **changes) for name in names]  # type: ignore[arg-type]


def test_slots_go_round_the_nodes_by_name() -> None:
    result = place(ClusterView(nodes("n1", "n2", "n3")), [Group("web", range(1, 6))])
    assert result.assigned == (((1, "n1"), (2, "n2"), (3, "n3"), (4, "n1"), (5, "n2")),)
    assert result.refused == (None,)


def test_new_slots_go_where_the_service_has_fewest() -> None:
    group = Group("web", (4, 5), existing={"n1": 2, "n2": 1})
    level = place(ClusterView(nodes("n1", "n2", "n3")), [group]).assigned[0]
    assert sorted(node for _, node in level) == ["n2", "n3"]


def test_a_refusal_counts_its_reasons() -> None:
    cluster = ClusterView(
        [*nodes("n1", "n2"), *nodes("n3", availability="drain"), *nodes("n4", state="down")],
        {"n1": Load(1, 0, 7_000), "n2": Load(1, 0, 7_500)},
    )
    result = place(cluster, [Group("web", (1, 2), Amounts(0, 2_000))])
    assert result.assigned == ((),)
    assert result.refused[0] is not None
    assert result.refused[0].slots == (1, 2)
    assert result.refused[0].reason == "2 nodes: not enough memory; 1 node: down; 1 node: drained"


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (Group("s", (1,), constraints=(parse_constraint("node.labels.z==a"),)), "1 node: constraint node.labels.z==a not met"),
        (Group("s", (1,), platform="linux/arm64"), "1 node: platform is linux/x86_64, not linux/arm64"),
        (Group("s", (1,), node="n9"), "node n9 does not exist"),
        (Group("s", (1,), max_per_node=1, existing={"n1": 1}), "1 node: has 1 of at most 1 replicas per node"),
        (Group("s", (1,), Amounts(9_000_000)), "1 node: not enough cpus"),
        (Group("s", (1,), generic=(("gpu", 1),)), "1 node: not enough gpu"),
        (Group("s", (1,), shun=(("disk full", frozenset(["n1"])),)), "1 node: disk full"),
    ],
)  # fmt: skip
def test_each_filter_says_why(group: Group, reason: str) -> None:
    refusal = place(ClusterView(nodes("n1")), [group]).refused[0]
    assert refusal is not None
    assert refusal.reason == reason


def test_without_nodes_it_says_so() -> None:
    refusal = place(ClusterView([]), [Group("s", (1,))]).refused[0]
    assert refusal is not None
    assert refusal.reason == "there is no node"


def test_the_first_placement_binds_the_volume_and_later_groups_follow() -> None:
    cluster = ClusterView(nodes("n1", "n2"), {"n1": Load(3)})
    result = place(cluster, [Group("db", (1, 2), volumes=("data",)), Group("backup", (1,), volumes=("data",))])
    assert result.assigned == (((1, "n2"), (2, "n2")), ((1, "n2"),))
    assert result.volumes == {"data": ("n2",)}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (NodeFacts("n2", state="down", total=HAS), "volume data is on n2, which is down"),
        (NodeFacts("n2", availability="drain", total=HAS), "volume data is on n2, which is drained"),
        (NodeFacts("n2", total=Amounts(9, 10)), "volume data is on n2, which has not enough memory"),
    ],
)
def test_a_volume_holds_its_replicas_back(node: NodeFacts, reason: str) -> None:
    cluster = ClusterView([*nodes("n1"), node], volumes={"data": ("n2",)})
    refusal = place(cluster, [Group("db", (1,), Amounts(0, 100), volumes=("data",))]).refused[0]
    assert refusal is not None
    assert refusal.reason == reason


def test_a_volume_with_copies_lets_its_replicas_use_each_of_its_nodes() -> None:
    cluster = ClusterView(nodes("n1", "n2", "n3"), volumes={"data": ("n1", "n2")})
    result = place(cluster, [Group("db", range(1, 10), Amounts(1_000_000), volumes=("data",))])
    assert sorted(node for _, node in result.assigned[0]) == ["n1"] * 4 + ["n2"] * 4
    assert result.refused[0] is not None
    assert result.refused[0].reason == "volume data is on n1 and n2: 2 nodes: not enough cpus"


def test_volumes_on_different_nodes_are_refused() -> None:
    cluster = ClusterView(nodes("n1", "n2"), volumes={"a": ("n1",), "b": ("n2",)})
    refusal = place(cluster, [Group("db", (1,), volumes=("a", "b"))]).refused[0]
    assert refusal is not None
    assert refusal.reason == "volume a is on n1, volume b on n2"


def test_everywhere_takes_every_node_that_passes_and_names_those_without_room() -> None:
    cluster = ClusterView([*nodes("n1", "n2", "n3"), *nodes("n4", state="down")], {"n2": Load(1, 0, 7_999)})
    result = place(cluster, [Group("agent", (), Amounts(0, 10), everywhere=True, existing={"n1": 1})])
    assert result.assigned == (((0, "n3"),),)
    assert result.refused[0] is not None
    assert result.refused[0].reason == "1 node: not enough memory"


def test_a_preferred_node_is_taken_when_it_passes() -> None:
    cluster = ClusterView([*nodes("n1", "n2"), *nodes("n3", availability="pause")])
    result = place(cluster, [Group("web", (1, 2), prefer=("n2", "n3"), existing={"n2": 5})])
    assert dict(result.assigned[0]) == {1: "n2", 2: "n1"}


def test_pack_fills_one_node_before_the_next() -> None:
    result = place(ClusterView(nodes("n1", "n2")), [Group("job", range(1, 6), Amounts(1_000_000), strategy="pack")])
    assert [node for _, node in result.assigned[0]] == ["n1"] * 4 + ["n2"]


def half_and_half() -> list[Group]:
    """Two services that fill four nodes only when each node gets some of both."""
    return [
        Group("sums", range(1, 9), Amounts(1_500_000, 1_000), strategy="pack"),
        Group("cache", range(1, 9), Amounts(500_000, 3_000), strategy="pack"),
    ]


def test_a_batch_that_packs_keeps_the_mix_so_that_nothing_is_left_over() -> None:
    names = [f"n{i}" for i in range(9)]
    result = place(ClusterView(nodes(*names)), half_and_half())
    assert not any(result.refused)
    assert {node for pairs in result.assigned for _, node in pairs} == {"n0", "n1", "n2", "n3"}


def test_when_not_all_have_room_the_first_group_is_served_first_also_when_it_is_the_smaller() -> None:
    small, large = Group("a", range(2), Amounts(1_000_000), strategy="pack"), Group("b", range(2), HAS, strategy="pack")
    result = place(ClusterView(nodes("n1", "n2")), [small, large])
    assert [len(pairs) for pairs in result.assigned] == [2, 1]
    assert place(ClusterView(nodes("n1", "n2", "n3")), [small, large]).refused == (None, None)


def test_what_was_tried_and_taken_back_leaves_ports_volumes_and_classes_as_they_were() -> None:
    port = PortClaim("tcp", 80)
    small = Group("a", (1, 2), Amounts(1_000_000), strategy="pack", ports=(port,), volumes=("data",))
    large = Group("b", (1, 2, 3), Amounts(3_000_000), strategy="pack", ports=(port,))
    pool = Pool(ClusterView(nodes("n1", "n2", "n3")))
    result = place_in(pool, [small, large])
    assert result.assigned == (((1, "n1"),), ((1, "n2"), (2, "n3")))
    assert result.volumes == {"data": ("n1",)}
    assert [refusal.slots for refusal in result.refused if refusal] == [(2,), (3,)]
    assert not any(alike.kind in pool.targets for alike in pool.classes())


def test_replicas_are_spread_over_zones_before_nodes() -> None:
    cluster = ClusterView([*nodes("n1", "n2", "n3", labels={"zone": "a"}), *nodes("n4", labels={"zone": "b"})])
    result = place(cluster, [Group("web", range(1, 5), spread=("node.labels.zone",))])
    assert sorted(node for _, node in result.assigned[0]) == ["n1", "n2", "n4", "n4"]


@pytest.mark.parametrize("text", ["node.labels.zone", "zone==a", "node.labels.==a", "node.role=manager", "node.labels.a==", ""])
def test_a_bad_constraint_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="constraint"):
        parse_constraint(text)


def test_all_bad_constraints_are_named() -> None:
    with pytest.raises(BadInput) as caught:
        parse_constraints(["a==b", "node.role==worker", "c"])
    assert len(caught.value.problems) == 2


def test_preferences_are_checked_too() -> None:
    assert parse_spread(" node.labels.zone ") == "node.labels.zone"
    with pytest.raises(BadInput):
        parse_spread("zone")


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("node.role == worker", True),
        ("node.role != worker", False),
        ("node.hostname==HOST1", True),
        ("node.platform.arch==amd64", True),
        ("node.platform.os!=windows", True),
        ("node.labels.zone!=a", True),
        ("engine.labels.disk==ssd", True),
        ("node.name==n2", False),
    ],
)
def test_constraints_match(text: str, passes: bool) -> None:
    node = NodeFacts("n1", hostname="host1", engine_labels={"disk": "ssd"}, total=HAS)
    result = place(ClusterView([node]), [Group("s", (1,), constraints=(parse_constraint(text),))])
    assert bool(result.assigned[0]) is passes


def test_a_mistyped_scale_does_not_bury_the_nodes() -> None:
    found = place(ClusterView(nodes("n1", "n2")), [Group("web", range(1, 1_000_001))])
    (pairs,), (refusal,) = found.assigned, found.refused
    assert len(pairs) == 2 * NODE_REPLICAS_MAX
    assert refusal is not None
    assert (len(refusal.slots), refusal.reason) == (990_000, "2 nodes: has 5,000 replicas, the most a node takes")


def test_a_port_of_the_node_is_had_once_and_the_rest_wait_and_say_so() -> None:
    web = PortClaim("tcp", 8080)
    cluster = ClusterView(nodes("n1", "n2", "n3"), ports={"n2": [PortClaim("tcp", 8080, "10.0.0.1"), PortClaim("udp", 53)]})
    result = place(cluster, [Group("web", (1, 2, 3), ports=(web,)), Group("dns", (1, 2, 3), ports=(PortClaim("tcp", 53),))])
    assert result.assigned[0] == ((1, "n1"), (2, "n3"))
    assert result.refused[0] is not None
    assert result.refused[0].reason == "3 nodes: port 8080/tcp is taken on the node"
    assert [node for _, node in result.assigned[1]] == ["n2", "n1", "n3"]


def test_the_same_port_on_two_addresses_of_a_node_are_two() -> None:
    claims = {"a": PortClaim("tcp", 80, "10.0.0.1"), "b": PortClaim("tcp", 80, "10.0.0.2")}
    groups = [Group(name, (1,), ports=(claim,)) for name, claim in claims.items()]
    result = place(ClusterView(nodes("n1")), groups)
    assert result.assigned == (((1, "n1"),), ((1, "n1"),))
    last = place(ClusterView(nodes("n1")), [*groups, Group("c", (1,), ports=(PortClaim("tcp", 80),))]).refused[2]
    assert last is not None
    assert last.reason == "1 node: port 80/tcp is taken on the node"


def test_generic_resources_are_counted_per_node() -> None:
    """Two of three on n1 are given away, n3 has none; a pass that is undone gives back what it took."""
    pool = Pool(ClusterView([*nodes("n1", "n2", generic=(("gpu", 3),)), *nodes("n3")]), kept=True)
    for _ in range(2):
        pool.begin({}, {}, {"n1": {"gpu": 2}})
        result = place_in(pool, [Group("train", range(1, 6), generic=(("gpu", 1),))])
        pool.restore()
        assert sorted(node for _, node in result.assigned[0]) == ["n1", "n2", "n2", "n2"]
        assert result.refused[0] is not None
        assert result.refused[0].reason == "3 nodes: not enough gpu"
