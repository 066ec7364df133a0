"""Making the kernel hold what the plans say, whatever it holds now: at the agent's start, and every few seconds since.

Rules: synchronous; called in threads by one caller at a time. A sentence for each thing that was put right. What follows from
something else that was wrong (the routes of a link that was gone) is put right without a word. Only links and entries of our
own are looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agent.network import kernel
from agent.network.containers import Containers
from agent.network.kernel import Sight
from agent.network.leases import Leases
from agent.network.rtnl import Netlink
from agent.plan import entries, netlink
from agent.plan.entries import Entry
from agent.plan.network import LinkPlan
from model.errors import RuntimeFailed

log = logging.getLogger(__name__)


def settle(nl: Netlink, containers: Containers, leases: Leases, plans: Mapping[str, LinkPlan], underlay: str) -> list[str]:
    """Links, ports and entries as they should be; what was not."""
    sight = kernel.look(nl)
    stray = kernel.stray_links(sight.links, plans.values()) + kernel.stray_ports(sight.links, leases.interfaces())
    nl.send(netlink.delete_links(stray))
    made: set[str] = set()
    said = _links(nl, plans, underlay, sight, made)
    said += _ports(nl, containers, leases, plans, sight, made)
    if said or stray:
        sight = kernel.look(nl)
    return said + _entries(nl, leases, plans, sight, made)


def _links(nl: Netlink, plans: Mapping[str, LinkPlan], underlay: str, sight: Sight, made: set[str]) -> list[str]:
    said = []
    for plan in plans.values():
        if faults := kernel.link_faults(plan, sight.links, underlay):
            kernel.make_links(nl, plan, sight.links, underlay)
            made |= {plan.bridge, plan.vxlan}
            said += [f"network {plan.name}: {fault} and is back" for fault in faults]
    return said


def _ports(
    nl: Netlink, containers: Containers, leases: Leases, plans: Mapping[str, LinkPlan], sight: Sight, made: set[str]
) -> list[str]:
    said = []
    for container_id, interfaces in leases.held.items():
        for found in interfaces:
            plan = plans.get(found.network)
            fault = kernel.port_fault(found, sight.links, nl.index(plan.bridge)) if plan else ""
            if not plan or not fault:
                continue
            try:
                containers.mend(container_id, found, interfaces, plans, gone=found.link not in sight.links)
            except RuntimeFailed as error:  # its namespace may be on its way out
                log.warning("link %s of container %s cannot be put right: %s", found.link, container_id[:12], error)
                continue
            made.add(found.link)
            if plan.bridge not in made:
                said.append(f"network {plan.name}: link {found.link} {fault} and is back")
    return said


def _entries(nl: Netlink, leases: Leases, plans: Mapping[str, LinkPlan], sight: Sight, made: set[str]) -> list[str]:
    wanted: dict[Entry, str] = {}
    for plan in plans.values():
        wanted |= dict.fromkeys(entries.wanted(plan), plan.name)
    for found in leases.interfaces():
        wanted |= dict.fromkeys(kernel.of_interfaces(plans, [found]), found.network)
    keys = {entries.key(entry) for entry in wanted}
    missing = [entry for entry in wanted if entry not in sight.there and (not entry.link or entry.link in sight.links)]
    surplus = [entry for entry in sight.ours if entry not in wanted and entries.key(entry) not in keys]
    nl.send([entries.drop(entry, nl.index) for entry in surplus])
    nl.send([entries.put(entry, nl.index) for entry in missing])
    return [
        *(f"network {wanted[entry]}: {entry} was gone and is back" for entry in missing if entry.link not in made),
        *(f"{entry} on {entry.link or 'no link'} was nobody's and is removed" for entry in surplus),
    ]
