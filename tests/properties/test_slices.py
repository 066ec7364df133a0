"""What must hold of networks' slices whatever happens: no address twice, and nothing kept that nobody uses."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decide.addresses import SLICE_PREFIX_MAX, Exhausted, SliceBook, range_of, roomy_subnet
from controller.decide.nets import holds
from tests.properties.test_decide_services import clusters, disturb
from tests.scenarios.model_cluster import ModelCluster

IDLE_MS = 600_000


def check_addresses(cluster: ModelCluster) -> None:
    """No address twice among all containers that run, also on nodes that are cut off; slices apart from each other."""
    rows = Counter(pair for node in cluster.running.values() for row in node.values() for pair in row.addresses)
    assert [pair for pair, count in rows.items() if count > 1] == []
    for plan in cluster.docs["netplans"].values():
        for (_, one), (_, other) in combinations(plan.slices, 2):
            assert not IPv4Network(one).overlaps(IPv4Network(other))
        assert {node for node, _ in plan.idle} <= dict(plan.slices).keys()
        for node, held in cluster.running.items():
            own = dict(plan.slices).get(node)
            for row in held.values():
                for network, address in row.addresses:
                    assert network != plan.name or (own is not None and holds(own, address))


def unused(cluster: ModelCluster) -> list[tuple[str, str]]:
    """(network, node) of slices on nodes that are heard and where no container has an address of it."""
    found = []
    for plan in cluster.docs["netplans"].values():
        for node, _ in plan.slices:
            addresses = {network for row in cluster.running[node].values() for network, _ in row.addresses}
            wanted = {name for name, _ in cluster._wanted(node).values()}
            if node not in cluster.dead and plan.name not in addresses and not wanted:
                found.append((plan.name, node))
    return found


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_address_is_used_twice_while_slices_come_and_go(data: st.DataObject) -> None:
    cluster = data.draw(clusters())
    cluster.network("small", "10.9.0.0/28")
    for _ in range(data.draw(st.integers(1, 10))):
        disturb(data.draw, cluster)
        for _ in range(data.draw(st.integers(1, 3))):
            cluster.decide()
            obey = data.draw(st.sampled_from(["all", "stop only", "nothing"]))
            if obey != "nothing":
                (cluster.agents if obey == "all" else cluster.agents_stop_only)()
            check_addresses(cluster)
            cluster.pass_time(data.draw(st.sampled_from([1_000, IDLE_MS // 2, IDLE_MS])))
    cluster.converge(rounds=120)
    check_addresses(cluster)
    assert unused(cluster) == []


@given(st.integers(1, 12_000), st.integers(8, 24))
def test_a_subnet_of_the_pool_has_slices_for_twice_the_nodes(nodes: int, pool_prefix: int) -> None:
    pool, prefix = f"10.0.0.0/{pool_prefix}", max(16, pool_prefix)
    found = IPv4Network(roomy_subnet(pool, prefix, nodes, []))
    slices = found.num_addresses * 3 // 4 >> (32 - SLICE_PREFIX_MAX)
    assert found.prefixlen <= prefix
    assert slices >= 2 * nodes or found.prefixlen in (pool_prefix, 8)
    assert found.prefixlen == prefix or slices // 2 < 2 * nodes, "no larger than it has to be"


def test_five_thousand_nodes_have_a_slice_each_and_six_thousand_after_them() -> None:
    book = SliceBook(roomy_subnet("10.0.0.0/8", 16, 5_000, []), 24, [])
    taken = []
    for number in range(11_000):
        taken.append(book.next(max(1, 5_000 - number), max(5_000, number)))
        book.take(taken[-1])
    spans = sorted(range_of(cidr) for cidr in taken)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_where_the_pool_has_no_larger_one_a_smaller_one_serves() -> None:
    taken = ["10.0.0.0/10", "10.64.0.0/13", "10.72.0.0/14", "10.76.0.0/15"]
    assert roomy_subnet("10.0.0.0/9", 16, 5_000, taken) == "10.80.0.0/14"
    assert roomy_subnet("10.0.0.0/13", 16, 5_000, ["10.0.0.0/16", "10.4.0.0/16"]) == "10.2.0.0/15"
    with pytest.raises(Exhausted, match=r"pool 10.0.0.0/16 has no free /16 left"):
        roomy_subnet("10.0.0.0/16", 16, 5_000, ["10.0.0.0/24"])


def test_a_cluster_that_grows_node_by_node_has_slices_for_hundreds() -> None:
    book = SliceBook("10.0.0.0/16", 24, [])
    for nodes in range(1, 701):
        book.take(book.next(1, nodes))
