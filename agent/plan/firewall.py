"""The node's nftables rules, as the text libnftables takes in one transaction.

Rules: one table of our own (`ip shoal`), replaced whole; nothing of other programs is touched. VXLAN frames are taken from
peers only and never forwarded from a container (with only the first rule, 20 of 20 frames injected by a container behind the
node's masquerade arrived). Networks of one node do not reach each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.plan.network import VXLAN_PORT, LinkPlan

TABLE: Final = "shoal"


@dataclass(frozen=True, slots=True)
class PortRow:
    """What may come in by one container's host link: this MAC with this address, and with its IPv6 address if it has one.

    Addresses are without prefix length.
    """

    link: str
    mac: str
    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class RulesWanted:
    """Everything the rules follow from. `guarded`: TCP addresses, `host:port`, that no container may reach."""

    plans: tuple[LinkPlan, ...] = ()
    ports: frozenset[PortRow] = frozenset()
    guarded: frozenset[str] = frozenset()


def ruleset(plans: Sequence[LinkPlan]) -> str:
    """Everything the table must hold for these networks."""
    peers = sorted({remote.underlay for plan in plans for remote in plan.remotes})
    subnets = sorted({plan.subnet for plan in plans})
    bridges = sorted(plan.bridge for plan in plans)
    return "\n".join(
        [
            f"add table ip {TABLE}",
            f"delete table ip {TABLE}",
            f"table ip {TABLE} {{",
            _set("peers", "ipv4_addr", peers),
            _set("subnets", "ipv4_addr", subnets, "flags interval;"),
            _set("bridges", "ifname", [f'"{name}"' for name in bridges]),
            _set("inside", "ifname . ifname", _pairs(plans)),
            _set("internal", "ifname", [f'"{plan.bridge}"' for plan in plans if plan.internal]),
            " chain input { type filter hook input priority -10; policy accept;",
            f"  iifname @bridges udp dport {VXLAN_PORT} drop",
            f"  udp dport {VXLAN_PORT} ip saddr != @peers drop",
            " }",
            " chain forward { type filter hook forward priority -10; policy accept;",
            f"  iifname @bridges udp dport {VXLAN_PORT} drop",
            "  iifname . oifname @inside accept",
            '  iifname @bridges oifname "sh*" drop',
            '  oifname @bridges iifname "shx-*" drop',
            "  iifname @internal drop",
            "  oifname @internal drop",
            " }",
            " chain postrouting { type nat hook postrouting priority 100; policy accept;",
            '  ip saddr @subnets ip daddr != @subnets oifname != "sh*" masquerade',
            " }",
            "}",
        ]
    )


def removal() -> str:
    """Takes the table away, also when there is none."""
    return f"add table ip {TABLE}\ndelete table ip {TABLE}"


def _pairs(plans: Sequence[LinkPlan]) -> list[str]:
    rows = []
    for plan in plans:
        rows.append(f'"{plan.bridge}" . "{plan.bridge}"')
        if plan.vxlan:
            rows.append(f'"{plan.bridge}" . "{plan.vxlan}"')
            rows.append(f'"{plan.vxlan}" . "{plan.bridge}"')
    return sorted(rows)


def _set(name: str, kind: str, elements: Sequence[str], extra: str = "") -> str:
    body = f" elements = {{ {', '.join(elements)} }}" if elements else ""
    return f" set {name} {{\n  type {kind}; {extra}\n {body}\n }}"
