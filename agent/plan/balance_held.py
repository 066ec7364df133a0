"""What a table of an earlier agent holds, read back from nft's listing.

Rules: pure. What cannot be understood is left out: it is not taken over, and told anew soon.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.plan.balance import HELD, Backend, Frontend, Member, Published, Vip
from agent.plan.balance_rules import HOLD, MARK, SETS

_BLOCK: Final = re.compile(r"^\t(?:set|map) (\S+) \{(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_ELEMENTS: Final = re.compile(r"elements = \{(.*)\}", re.DOTALL)
_PROTOCOLS: Final = {"6": "tcp", "17": "udp", "132": "sctp"}


@dataclass(frozen=True, slots=True)
class Held:
    """Slots, members, and the counts of those that count."""

    slots: Mapping[Frontend, tuple[Backend, ...]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    counts: Mapping[Member, str] = field(default_factory=dict)


def held(listing: str) -> Held:
    """From `list table`."""
    backends: dict[str, dict[int, Backend]] = {}
    entries: dict[Frontend, str] = {}
    holding: set[Frontend] = set()
    members: list[Member] = []
    counts: dict[Member, str] = {}
    for name, rows in _blocks(listing):
        for row in rows:
            key, _, value = row.partition(" : ")
            if name in SETS:
                element, _, count = key.partition(" counter ")
                members.append(Member(name, element))
                if count:
                    counts[members[-1]] = f"counter {count}"
                continue
            with contextlib.suppress(ValueError, IndexError):
                if name.startswith(("backends", "targets")):
                    words, slot = key.rpartition(" . ")[::2]
                    backends.setdefault(f"{name} {words}", {})[int(slot, 0) - MARK] = _backend(value)
                elif (frontend := _frontend(name, key)) is not None:
                    entries[frontend] = _slots_of(name, frontend)
                    if value == f"goto {HOLD}":
                        holding.add(frontend)
    slots = {f: HELD if f in holding else _in_order(backends.get(where, {})) for f, where in entries.items()}
    return Held({f: found for f, found in slots.items() if found or isinstance(f, Published)}, tuple(members), counts)


def _blocks(listing: str) -> Iterator[tuple[str, list[str]]]:
    for block in _BLOCK.finditer(listing):
        elements = _ELEMENTS.search(block[2])
        yield block[1], [row.strip() for row in elements[1].split(",")] if elements else []


def _frontend(name: str, key: str) -> Frontend | None:
    words = key.split(" . ")
    match name:
        case "vips" | "vips6":
            return Vip(words[0].strip('"'), words[1])
        case "ports":
            return Published(_PROTOCOLS.get(words[1], words[1]), int(words[2]), "", 6 if words[0] == "ipv6" else 4)
        case "ports-at" | "ports-at6":
            return Published(_PROTOCOLS.get(words[0], words[0]), int(words[2]), words[1], 6 if name.endswith("6") else 4)
    return None


def _slots_of(name: str, frontend: Frontend) -> str:
    """The map and the key, but for the mark, of the frontend's slots."""
    if isinstance(frontend, Vip):
        return f"{name.replace('vips', 'backends')} {frontend.address}"
    if frontend.host_ip:
        return f"{name.replace('ports', 'targets')} {frontend.protocol} . {frontend.host_ip} . {frontend.published}"
    return f"targets{'6' if frontend.family == 6 else ''} {frontend.protocol} . {frontend.published}"


def _backend(value: str) -> Backend:
    address, _, port = value.partition(" . ")
    last = ipaddress.IPv4Address(int(ipaddress.ip_address(address)) & 0xFFFFFFFF)
    return Backend(str(last), address, int(port or 0))


def _in_order(found: Mapping[int, Backend]) -> tuple[Backend, ...]:
    """Only without a gap."""
    return tuple(found[slot] for slot in range(len(found))) if set(found) == set(range(len(found))) else ()
