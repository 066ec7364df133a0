"""VNIs, subnets and slices: the lowest free, and a reason when there is none."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.addresses import Exhausted, SliceBook, claimed_subnet, lowest_subnet, lowest_vni


def test_the_lowest_free_is_taken() -> None:
    assert lowest_vni([4097, 4099]) == 4098
    assert lowest_subnet("10.0.0.0/8", 16, []) == "10.0.0.0/16"
    assert lowest_subnet("10.0.0.0/8", 16, ["10.0.0.0/16", "10.2.0.0/16"]) == "10.1.0.0/16"


def test_subnets_that_overlap_are_passed_over() -> None:
    assert lowest_subnet("10.0.0.0/8", 16, ["10.0.5.0/24", "10.1.0.0/20", "10.2.128.0/17"]) == "10.3.0.0/16"


def test_a_full_pool_says_so() -> None:
    with pytest.raises(Exhausted, match=r"pool 10.0.0.0/15 has no free /16 left"):
        lowest_subnet("10.0.0.0/15", 16, ["10.0.0.0/16", "10.1.0.0/16"])


def test_a_claimed_subnet_must_be_free() -> None:
    assert claimed_subnet("172.20.1.0/24", [(" of network a", "172.20.0.0/24")]) == "172.20.1.0/24"
    with pytest.raises(Exhausted, match=r"overlaps 172.20.0.0/24 of network a"):
        claimed_subnet("172.20.0.0/16", [(" of network a", "172.20.0.0/24")])
    with pytest.raises(Exhausted, match="cannot be used"):
        claimed_subnet("fd00::/64", [])


@pytest.mark.parametrize(
    ("subnet", "nodes", "first"),
    [("10.0.0.0/16", 3, "10.0.0.0/24"), ("10.9.0.0/24", 3, "10.9.0.0/27"), ("10.0.0.0/16", 2_000, "10.0.0.0/28")],
)
def test_slices_are_as_large_as_leaves_room_for_the_other_nodes(subnet: str, nodes: int, first: str) -> None:
    assert SliceBook(subnet, 24, []).next(nodes) == first


def test_a_full_subnet_says_so() -> None:
    book = SliceBook("10.0.0.0/30", 24, ["10.0.0.0/30"])
    with pytest.raises(Exhausted, match="no free slice left"):
        book.next(1)


@given(st.integers(16, 24), st.integers(1, 60))
def test_slices_never_overlap_and_stay_inside(prefix: int, nodes: int) -> None:
    whole = ip_network(f"10.0.0.0/{prefix}")
    book = SliceBook(str(whole), 24, [])
    given_out = []
    for number in range(nodes):
        try:
            found = book.next(nodes - number)
        except Exhausted:
            assert nodes > 12
            break
        book.take(found)
        given_out.append(ip_network(found))
    assert all(network.subnet_of(whole) for network in given_out)  # type: ignore[arg-type]
    assert sum(network.num_addresses for network in given_out) == len({a for network in given_out for a in network})
