"""Rules in the kernel of a namespace of its own: by difference, and put back when somebody changes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.network.nft import Nft
from agent.network.rules import Rules
from agent.plan.drift import Things, things
from agent.plan.firewall import ARP, BRIDGE, INET, PortRow, RulesWanted
from agent.plan.network import NetworkWanted, PeerWanted, link_plan, local_bridge
from tests.root.spaces import Space

pytestmark = pytest.mark.root


def network(number: int, *, ipv6: bool = False, internal: bool = False) -> NetworkWanted:
    peers = (PeerWanted("n2", "192.0.2.2", f"10.{number}.2.0/24"),)
    prefix6 = f"fd00:{number}::/96" if ipv6 else ""
    subnet, part = f"10.{number}.0.0/16", f"10.{number}.1.0/24"
    return NetworkWanted(f"n{number}", number, subnet, part, peers, internal=internal, prefix6=prefix6)


NETWORKS = (network(1, ipv6=True), network(2), network(3, internal=True), local_bridge())
ROW = PortRow("shv-abcdefghi00", "0a:01:0a:01:01:02", "10.1.1.2", "fd00:1::a01:102")
OTHER = PortRow("shv-abcdefghi01", "0a:01:0a:01:01:03", "10.1.1.3")
WANTED = RulesWanted(
    tuple(link_plan(wanted, 1500) for wanted in NETWORKS), frozenset({ROW}), frozenset({"192.0.2.1:7443", "[fd00::1]:7070"})
)


class Host:
    def __init__(self, space: Space, nft: Nft) -> None:
        self.space, self.nft, self.rules = space, nft, Rules(nft)

    def shown(self) -> str:
        return self.space.sh("nft list ruleset")

    def state(self) -> list[Things]:
        """What our tables hold, in no order of nft's."""
        return [things(self.nft.listing(f"list table {table}")) for table in (INET, BRIDGE, ARP)]

    def written_anew(self, wanted: RulesWanted) -> list[Things]:
        """The same when another agent writes `wanted` from nothing."""
        Rules(self.nft).apply(wanted)
        return self.state()


@pytest.fixture
def host() -> Iterator[Host]:
    with Space() as space, contextlib.closing(space.inside(Nft)) as nft:
        made = Host(space, nft)
        made.rules.apply(WANTED)
        assert made.rules.repair(WANTED) == ()
        yield made
        made.rules.remove()
        assert "shoal" not in made.shown()


def test_differences_lead_to_the_same_rules_as_writing_them_anew(host: Host) -> None:
    after = replace(
        WANTED,
        plans=tuple(link_plan(wanted, 1500) for wanted in (network(1), network(3), network(4, ipv6=True, internal=True))),
        guarded=frozenset({"192.0.2.1:7443", "192.0.2.3:7443"}),
        ports=frozenset({OTHER}),
    )
    host.rules.apply(after)
    assert '"shb-4" . 10.4.0.0/16 . "shx-4" . 10.4.0.0/16' in host.shown()
    assert "fd00:1::" not in host.shown()
    found = host.state()
    assert found == host.written_anew(after)
    host.rules.apply(WANTED)
    assert host.state() == host.written_anew(WANTED)


def test_a_network_in_the_place_of_another_that_overlaps_it(host: Host) -> None:
    smaller = NetworkWanted("smaller", 9, "10.1.0.0/17", "10.1.1.0/24")
    after = replace(WANTED, plans=(link_plan(smaller, 1500),))
    host.rules.apply(after)
    assert host.state() == host.written_anew(after)


def test_rows_come_and_go_with_containers(host: Host) -> None:
    host.rules.admit([OTHER, ROW])
    assert OTHER.link in host.shown()
    assert host.rules.repair(replace(WANTED, ports=frozenset({ROW, OTHER}))) == ()
    host.rules.dismiss([OTHER])
    host.rules.dismiss([OTHER])
    assert OTHER.link not in host.shown()
    assert ROW.address6 in host.shown()


def test_nothing_is_said_when_others_change_their_own_tables(host: Host) -> None:
    before = host.state()
    host.space.sh("nft add table ip other\nnft add chain ip other c\nnft delete table ip other")
    assert host.rules.repair(WANTED) == ()
    assert host.state() == before


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("flush chain inet shoal forward", "table inet shoal: chain forward had lost rules (12); they are back"),
        ("delete element inet shoal peers { 192.0.2.2 }", "table inet shoal: set peers had lost elements (1); they are back"),
        ("flush set bridge shoal senders", "table bridge shoal: set senders had lost elements (1); they are back"),
        (
            "insert rule inet shoal input accept",
            "table inet shoal: chain input had rules that are not ours (1); they are removed",
        ),
        ("delete table bridge shoal", "the nftables table bridge shoal was gone and is back"),
    ],
)
def test_what_somebody_breaks_is_put_back_and_said_once(host: Host, harm: str, said: str) -> None:
    before = host.state()
    host.space.sh(f"nft {harm}")
    assert host.rules.repair(WANTED) == (said,)
    assert host.state() == before
    assert host.rules.repair(WANTED) == ()


def test_a_container_that_comes_when_the_tables_are_gone_is_let_in_and_it_is_said(host: Host) -> None:
    host.space.sh("nft flush ruleset")
    host.rules.admit([OTHER])
    assert OTHER.link in host.shown()
    assert host.rules.repair(replace(WANTED, ports=frozenset({ROW, OTHER}))) == (
        "the nftables table inet shoal was gone and is back",
        "the nftables table bridge shoal was gone and is back",
        "the nftables table arp shoal was gone and is back",
    )


def test_tables_of_others_stay(host: Host) -> None:
    host.space.sh("nft add table ip other")
    host.rules.apply(replace(WANTED, ports=frozenset()))
    host.rules.remove()
    assert host.space.sh("nft list tables").split() == ["table", "ip", "other"]
