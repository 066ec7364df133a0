"""Which VNI, subnet, IPv6 prefix and node slices a network gets.

Rules: always the lowest free one, so that the same facts give the same addresses. VNIs begin at 4097. A subnet never overlaps
another network's or one that is to be avoided. A slice is as large as leaves room for twice the nodes that have none yet, and
for as many as there are, between the configured prefix and /28; it is kept while its node uses it (idle.py). The last quarter
of a subnet is for the addresses of services (no slice there), but for subnets from /29 on, which have no room for any. A subnet
from the pool has room for slices of twice the nodes there are, if the pool has one so large.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Final

from model.addresses import service_range

VNI_FIRST: Final = 4097
VNI_LAST: Final = (1 << 24) - 1
SLICE_PREFIX_MAX: Final = 28
SERVED_PREFIX_MAX: Final = 28
"""Subnets longer than this have no addresses for services."""

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


def is_subnet(text: str, version: int = 4) -> bool:
    """Whether it can be read as one: what people and machines wrote must not stop a decision."""
    try:
        return ip_network(text, strict=False).version == version
    except ValueError:
        return False


def lowest_subnet(pool: str, prefix: int, taken: Iterable[str]) -> str:
    """The lowest subnet of `/prefix` in the pool that touches none of `taken`."""
    found = _lowest_free(range_of(pool), prefix, sorted(_ranges(taken)))
    if found is None:
        raise Exhausted(f"pool {pool} has no free /{prefix} left: remove a network, or ask for a subnet of your own")
    return found


def roomy_subnet(pool: str, prefix: int, nodes: int, taken: Sequence[str]) -> str:
    """The lowest free one with slices for twice so many nodes, `/prefix` at least; the largest there is if none is so large."""
    wanted = 2 * nodes << (32 - SLICE_PREFIX_MAX)
    largest = prefix
    while largest > 1 and 3 << (30 - largest) < wanted:
        largest -= 1
    for length in range(largest, prefix):
        with suppress(Exhausted):
            return lowest_subnet(pool, length, taken)
    return lowest_subnet(pool, prefix, taken)


def claimed_subnet(subnet: str, taken: Iterable[tuple[str, str]]) -> str:
    """A subnet that a person asked for, unless it overlaps one of `taken` (who has it, subnet): ` of network shop_default`."""
    try:
        low, high = range_of(subnet)
    except ValueError as error:
        raise Exhausted(f"its subnet {subnet} cannot be used: {error}") from None
    for what, other in taken:
        if ":" in other:
            continue
        first, end = range_of(other)
        if low < end and first < high:
            raise Exhausted(f"its subnet {subnet} overlaps {other}{what}")
    return str(ip_network(subnet, strict=False))


def claimed_prefix6(subnet6: str, taken: Iterable[tuple[str, str]]) -> str:
    """The first /96 of an IPv6 subnet that a person asked for, unless it overlaps one of `taken` (who has it, prefix)."""
    try:
        network = ip_network(subnet6, strict=False)
    except ValueError as error:
        raise Exhausted(f"its subnet {subnet6} cannot be used: {error}") from None
    if not isinstance(network, IPv6Network) or network.prefixlen > 96:
        raise Exhausted(f"its subnet {subnet6} cannot be used: expected an IPv6 network of /96 or larger")
    for what, other in taken:
        if network.overlaps(IPv6Network(other, strict=False)):
            raise Exhausted(f"its subnet {subnet6} overlaps {other}{what}")
    return f"{network.network_address}/96"


def own_prefix6(network_id: str, vni: int, taken: Iterable[str]) -> str:
    """A unique local /96 that follows from the network; the VNI in it tells networks of the same beginning apart."""
    others = [IPv6Network(other) for other in taken]
    for salt in range(1_000):
        head = int.from_bytes(sha256(f"{network_id}/{salt}".encode()).digest()[:7], "big")
        prefix = IPv6Network((0xFD << 120 | head << 64 | vni << 32, 96))
        if not any(prefix.overlaps(other) for other in others):
            return str(prefix)
    raise Exhausted("no IPv6 prefix is left")


def service_addresses(subnet: str) -> range:
    """The addresses services may have, as numbers: those of the range but for its first and the subnet's broadcast address."""
    if ip_network(subnet, strict=False).prefixlen > SERVED_PREFIX_MAX:
        return range(0)
    low, end = range_of(service_range(subnet))
    return range(low + 1, end - 1)


class SliceBook:
    """The slices of one network's subnet. `slices`: what is taken, fixed addresses (/32) too."""

    def __init__(self, subnet: str, slice_prefix: int, slices: Iterable[str]) -> None:
        self.subnet, self._whole = subnet, range_of(subnet)
        prefix = ip_network(subnet, strict=False).prefixlen
        kept = [range_of(service_range(subnet))] if prefix <= SERVED_PREFIX_MAX else []
        self._taken = _merged([*_ranges(slices), *kept])
        self._largest = max(slice_prefix, prefix)
        self._smallest = max(SLICE_PREFIX_MAX, min(30, prefix + 2))
        self._free = self._whole[1] - self._whole[0] - sum(high - low for low, high in self._taken)
        self._full_to: dict[int, int] = {}
        """By prefix length the address below which no slice of it is free: what is taken stays so."""

    def next(self, nodes_without: int, nodes: int = 0) -> str:
        """The slice for one more node of `nodes`. `nodes_without`: those that have none yet, this one included."""
        share = max(1, self._free // max(1, 2 * nodes_without, nodes))
        fair = 32 - (share.bit_length() - 1)
        for prefix in range(min(max(self._largest, fair), self._smallest), self._smallest + 1):
            found = _lowest_free((self._full_to.get(prefix, self._whole[0]), self._whole[1]), prefix, self._taken)
            if found is not None:
                self._full_to[prefix] = range_of(found)[0]
                return found
            self._full_to[prefix] = self._whole[1]
        raise Exhausted(self.exhausted())

    def left(self) -> int:
        """How many more slices of the smallest size there are."""
        return self._free >> (32 - self._smallest)

    def exhausted(self) -> str:
        needs = f"one takes {1 << (32 - self._smallest)} addresses, a larger subnet has more"
        return f"its subnet {self.subnet} has no free slice left for another node: {needs}"

    def take(self, found: str) -> None:
        low, high = range_of(found)
        insort(self._taken, (low, high))
        self._free -= high - low


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """Without overlaps: slices of older networks may lie among the services' addresses, fixed addresses in a slice."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _ranges(subnets: Iterable[str]) -> list[Range]:
    return [range_of(subnet) for subnet in subnets if ":" not in subnet]


def _lowest_free(whole: Range, prefix: int, taken: Sequence[Range]) -> str | None:
    """The lowest aligned block of `/prefix` in `whole` that touches no range of `taken` (sorted)."""
    size = 1 << (32 - prefix)
    at = -(-whole[0] // size) * size
    for low, high in islice(taken, max(0, bisect(taken, (at, at)) - 1), None):
        if at + size <= low:
            break
        if high > at:
            at = -(-high // size) * size
    return f"{IPv4Network((at, prefix))}" if at + size <= whole[1] else None
