"""Which VNI, subnet and node slices a network gets.

Rules: always the lowest free one, so that the same facts give the same addresses. VNIs begin at 4097. A subnet never overlaps
another network's or one that is to be avoided. A slice is as large as leaves room for twice the nodes that have none yet,
between the configured prefix and /28; it is kept until its node or its network goes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, ip_network
from typing import Final

VNI_FIRST: Final = 4097
VNI_LAST: Final = (1 << 24) - 1
SLICE_PREFIX_MAX: Final = 28

Range = tuple[int, int]
"""First address and the one after the last, as numbers."""


class Exhausted(Exception):
    """No address is left; the message is the reason replicas wait."""


def lowest_vni(used: Iterable[int]) -> int:
    taken = set(used)
    vni = VNI_FIRST
    while vni in taken:
        vni += 1
    if vni > VNI_LAST:
        raise Exhausted("no VNI is left")
    return vni


@lru_cache(maxsize=20_000)
def range_of(subnet: str) -> Range:
    """ValueError when it is not an IPv4 network."""
    network = ip_network(subnet, strict=False)
    if not isinstance(network, IPv4Network):
        raise ValueError(f"{subnet} is not an IPv4 network")
    return int(network.network_address), int(network.broadcast_address) + 1


def lowest_subnet(pool: str, prefix: int, taken: Iterable[str]) -> str:
    """The lowest subnet of `/prefix` in the pool that touches none of `taken`."""
    found = _lowest_free(range_of(pool), prefix, sorted(_ranges(taken)))
    if found is None:
        raise Exhausted(f"pool {pool} has no free /{prefix} left")
    return found


def claimed_subnet(subnet: str, taken: Iterable[tuple[str, str]]) -> str:
    """A subnet that a person asked for, unless it overlaps one of `taken` (what has it, subnet)."""
    try:
        low, high = range_of(subnet)
    except ValueError as error:
        raise Exhausted(f"its subnet {subnet} cannot be used: {error}") from None
    for what, other in taken:
        if ":" in other:
            continue
        first, end = range_of(other)
        if low < end and first < high:
            raise Exhausted(f"its subnet {subnet} overlaps {other} of {what}")
    return str(ip_network(subnet, strict=False))


class SliceBook:
    """The slices of one network's subnet."""

    def __init__(self, subnet: str, slice_prefix: int, slices: Iterable[str]) -> None:
        self.subnet, self._whole = subnet, range_of(subnet)
        self._taken = sorted(_ranges(slices))
        prefix = ip_network(subnet, strict=False).prefixlen
        self._largest = max(slice_prefix, prefix)
        self._smallest = max(SLICE_PREFIX_MAX, min(30, prefix + 2))
        self._free = self._whole[1] - self._whole[0] - sum(high - low for low, high in self._taken)

    def next(self, nodes_without: int) -> str:
        """The slice for one more node. `nodes_without`: nodes of the cluster that have none yet, this one included."""
        share = max(1, self._free // max(1, 2 * nodes_without))
        fair = 32 - (share.bit_length() - 1)
        for prefix in range(min(max(self._largest, fair), self._smallest), self._smallest + 1):
            found = _lowest_free(self._whole, prefix, self._taken)
            if found is not None:
                return found
        raise Exhausted(self.exhausted())

    def left(self) -> int:
        """How many more slices of the smallest size there are."""
        return self._free >> (32 - self._smallest)

    def exhausted(self) -> str:
        return f"its subnet {self.subnet} has no free slice left for another node"

    def take(self, found: str) -> None:
        low, high = range_of(found)
        insort(self._taken, (low, high))
        self._free -= high - low


def _ranges(subnets: Iterable[str]) -> list[Range]:
    return [range_of(subnet) for subnet in subnets if ":" not in subnet]


def _lowest_free(whole: Range, prefix: int, taken: Sequence[Range]) -> str | None:
    """The lowest aligned block of `/prefix` in `whole` that touches no range of `taken` (sorted)."""
    size = 1 << (32 - prefix)
    at = -(-whole[0] // size) * size
    for low, high in taken:
        if at + size <= low:
            break
        if high > at:
            at = -(-high // size) * size
    return f"{IPv4Network((at, prefix))}" if at + size <= whole[1] else None
