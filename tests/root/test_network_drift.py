"""Drift of nftables tables, against the kernel of a namespace of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.network.drift import Drift
from agent.network.nft import Nft
from model.errors import RuntimeFailed
from tests.root.spaces import Space

pytestmark = pytest.mark.root

TEXT = """
table inet t-own {
 set hosts { type ipv4_addr . inet_service; counter; elements = { 192.0.2.1 . 80, 192.0.2.2 . 80 } }
 map backends { type ipv4_addr . mark : ipv4_addr; counter; elements = { 10.0.0.9 . 0 : 10.0.0.1, 10.0.0.9 . 1 : 10.0.0.2 } }
 map vips { type ifname . ipv4_addr : verdict; elements = { "lo" . 10.0.0.9 : goto lb-1 } }
 counter every { }
 chain lb-1 { meta mark set numgen random mod 2; dnat ip to ip daddr . meta mark map @backends; }
 chain first { type nat hook prerouting priority -110; iifname . ip daddr vmap @vips; }
 chain out { type filter hook output priority 0;
  meta l4proto { tcp, udp, sctp } th dport { 1, 2, 3 } counter name every
  ip daddr . tcp dport @hosts drop
 }
}
"""


class Owner:
    def __init__(self, nft: Nft) -> None:
        self.nft = nft
        self.written = 0
        self._drift = Drift(nft)

    def write(self) -> None:
        self.nft.run("add table inet t-own\ndelete table inet t-own\n" + TEXT)
        self.written += 1

    def repaired(self) -> tuple[str, ...]:
        return self._drift.repaired(lambda: {"inet t-own": TEXT}, self.write)


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


@pytest.fixture
def owner(space: Space) -> Iterator[Owner]:
    with contextlib.closing(space.inside(Nft)) as nft:
        made = Owner(nft)
        made.write()
        assert made.repaired() == ()
        yield made
        assert made.repaired() == ()


def test_only_changes_of_others_are_counted(space: Space, owner: Owner) -> None:
    before = owner.nft.foreign_changes()
    owner.nft.run("add element inet t-own hosts { 192.0.2.3 . 80 }")
    with pytest.raises(RuntimeFailed):
        owner.nft.run("add element inet t-own nothing { 1 }")
    owner.nft.listing("list ruleset")
    owner.nft.run("delete element inet t-own hosts { 192.0.2.3 . 80 }")
    assert owner.nft.foreign_changes() == before
    space.sh("nft add table inet t-other")
    assert owner.nft.foreign_changes() == before + 1
    space.sh("nft add table inet t-third")
    owner.nft.run("add counter inet t-own every")
    assert owner.nft.foreign_changes() == before + 2


class Disturbed(Nft):
    """Somebody else changes rules while this one is at it."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space

    def _perform(self, text: str) -> str:
        output = super()._perform(text)
        self._space.sh("nft add rule inet t-own lb-1 accept")
        return output


@pytest.mark.parametrize("command", ["list table inet t-own", "add chain inet t-own more"])
def test_what_others_change_while_this_agent_looks_or_writes_is_counted(space: Space, owner: Owner, command: str) -> None:
    with contextlib.closing(space.inside(lambda: Disturbed(space))) as nft:
        nft.run(command)
        assert nft.foreign_changes() == 1
    assert owner.repaired()


def test_rules_of_other_programs_are_none_of_our_business(space: Space, owner: Owner) -> None:
    space.sh("nft add table inet t-other\nnft add chain inet t-other forward\nnft delete table inet t-other")
    assert owner.repaired() == ()
    assert owner.written == 1


def test_counts_are_no_difference(space: Space, owner: Owner) -> None:
    with contextlib.closing(space.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) as sender:
        sender.sendto(b"x", ("127.0.0.1", 2))
    assert "packets 1" in space.sh("nft list table inet t-own")
    space.sh("nft add table inet t-other")
    assert owner.repaired() == ()
    assert owner.written == 1


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("delete table inet t-own", "the nftables table inet t-own was gone and is back"),
        ("flush ruleset", "the nftables table inet t-own was gone and is back"),
        ("flush chain inet t-own out", "chain out had lost rules (2); they are back"),
        ("add rule inet t-own out drop", "chain out had rules that are not ours (1); they are removed"),
        ("insert rule inet t-own out ip daddr . tcp dport @hosts drop", "chain out was changed and is as it was"),
        ("delete element inet t-own hosts { 192.0.2.1 . 80 }", "set hosts had lost elements (1); they are back"),
        ("add element inet t-own hosts { 192.0.2.9 . 80 }", "set hosts had elements that are not ours (1); they are removed"),
        ("flush map inet t-own vips", "map vips had lost elements (1); they are back"),
        ("delete chain inet t-own first", "chain first was gone and is back"),
        ("add chain inet t-own mine", "chain mine was not ours and is removed"),
    ],
)
def test_what_somebody_changes_is_said_and_put_back(space: Space, owner: Owner, harm: str, said: str) -> None:
    space.sh(f"nft {harm}")
    assert [line.removeprefix("table inet t-own: ") for line in owner.repaired()] == [said]
    assert owner.written == 2
    space.sh("nft add table inet t-other")


def test_what_could_not_be_put_back_is_tried_again(space: Space, owner: Owner) -> None:
    drift = Drift(owner.nft)
    space.sh("nft flush chain inet t-own out")

    def fail() -> None:
        raise RuntimeFailed("no")

    with pytest.raises(RuntimeFailed):
        drift.repaired(lambda: {"inet t-own": TEXT}, fail)
    assert drift.repaired(lambda: {"inet t-own": TEXT}, owner.write)
    assert drift.repaired(lambda: {"inet t-own": TEXT}, fail) == ()
