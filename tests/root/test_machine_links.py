"""What links received and sent, as the kernel says by netlink in a network namespace of its own: what /proc/net/dev says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.network.rtnl import Netlink
from agent.plan import samples
from agent.plan.samples import Link
from agent.runtime.cgroups import cgroup_driver
from agent.runtime.machine import LinkCounter, MachineFiles
from model.errors import RuntimeFailed
from tests.root.spaces import Space

pytestmark = pytest.mark.root
LINK = samples.sandbox_link("abcdef012" + "0" * 55)


@pytest.fixture
def space() -> Iterator[Space]:
    """With a sandbox's link and the node's own, both to another namespace, which answers."""
    with Space() as made, Space() as other:
        for name, peer, net in ((f"{LINK}00", "eth0", "10.9.0"), ("up0", "eth1", "10.8.0")):
            made.sh(f"ip link add {name} type veth peer name {peer} netns {other.path}")
            made.sh(f"ip address add {net}.1/24 dev {name}\nip link set {name} up")
            other.sh(f"ip address add {net}.2/24 dev {peer}\nip link set {peer} up")
            made.sh(f"ping -c 1 -w 10 {net}.2")
        other.sh("ip address add 192.0.2.1/32 dev lo")
        made.sh("ping -c 1 -w 10 127.0.0.1")
        yield made


class Refused:
    """An old kernel."""

    def link_counts(self) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        raise RuntimeFailed("network: counts of the links: Operation not supported")

    def close(self) -> None:
        """Nothing was opened."""


def in_machine(space: Space, work: Callable[[MachineFiles], None], counter: Callable[[], LinkCounter] = Netlink) -> None:
    """With files of that namespace, in one thread."""

    def body() -> None:
        machine = MachineFiles(Path("/"), "", cgroup_driver(), counter=counter)
        try:
            work(machine)
        finally:
            machine.close()

    space.inside(body)


def test_netlink_says_what_the_text_says(space: Space) -> None:
    def text() -> dict[str, tuple[int, int]]:
        return dict(zip(*samples.links(Path("/proc/thread-self/net/dev").read_bytes()), strict=True))

    def body() -> None:
        with Netlink() as nl:
            names = {link.index: name for name, link in nl.links().items()}
            before, (indexes, counts), after = text(), nl.link_counts(), text()
        found = {names[index]: row for index, row in zip(indexes, counts, strict=True)}
        assert before.keys() == found.keys() == {"lo", "up0", f"{LINK}00"}
        for name, (received, sent) in found.items():
            assert 0 < before[name][0] <= received <= after[name][0]
            assert 0 < before[name][1] <= sent <= after[name][1]

    space.inside(body)


def test_links_that_come_go_and_get_another_name(space: Space) -> None:
    def work(machine: MachineFiles) -> None:
        first = machine.read()
        assert list(first.sandboxes) == [LINK]
        space.sh(f"ip link add {LINK}01 type bridge\nip link set {LINK}01 up")
        assert list(machine.read().sandboxes) == [LINK], "of one sandbox"
        other = samples.sandbox_link("b" * 64)
        space.sh(f"ip link add {other}00 type bridge")
        assert machine.read().sandboxes[other] == Link(0, 0)
        space.sh(f"ip link delete {LINK}00\nip link delete {LINK}01")
        assert list(machine.read().sandboxes) == [other]
        space.sh(f"ip link set {other}00 name else0")
        assert any(machine.read().sandboxes == {} for _ in range(31)), "names are looked at again"

    in_machine(space, work)


@pytest.mark.parametrize("counter", [Netlink, Refused])
def test_what_goes_to_and_fro_with_netlink_and_without(space: Space, counter: Callable[[], LinkCounter]) -> None:
    space.sh("ip route add default via 10.8.0.2")

    def work(machine: MachineFiles) -> None:
        before = machine.read()
        space.sh("ping -c 1 -s 1000 -w 10 10.9.0.2\nping -c 1 -s 2000 -w 10 192.0.2.1")
        after = machine.read()
        assert grown(before.sandboxes[LINK], after.sandboxes[LINK]) == pytest.approx((1000, 1000), abs=500)
        assert grown(before.way_out, after.way_out) == pytest.approx((2000, 2000), abs=500)

    in_machine(space, work, counter)


def grown(before: Link, after: Link) -> tuple[int, int]:
    return after.rx_bytes - before.rx_bytes, after.tx_bytes - before.tx_bytes
