"""The node's networks in the kernel: bridges, VXLAN devices, remote entries, firewall; containers are attached to them.

Rules: everything that talks to the kernel runs in threads, one at a time under one lock; what should be there is data from
agent/plan. Attachments are recorded in files of the run directory BEFORE the kernel is touched, so that an agent killed half
way finds and removes what it began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.network import kept, kernel, mending, sysctls
from agent.network.balance_port import Balancer
from agent.network.containers import Containers
from agent.network.leases import Leases
from agent.network.names import NameBook
from agent.network.nft import Nft
from agent.network.port import Attached, AttachmentWanted, attached
from agent.network.rtnl import Netlink
from agent.network.rules import Rules
from agent.plan import attachment, entries, netlink
from agent.plan.attachment import Interface
from agent.plan.firewall import RulesWanted
from agent.plan.network import LOCAL_BRIDGE, LinkPlan, NetworkWanted, link_plan, local_bridge, overlap
from model.errors import RuntimeFailed

log = logging.getLogger(__name__)
_WITHOUT_LINKS: Final = ("none",)


class KernelNetwork:
    """The real NetworkDriver. `underlay`: this node's address that VXLAN frames leave from; `run_dir` holds the records;
    `forgotten(network, address)`: whether no node sends anything there any more; a released address waits for it. `nft`: one
    that others use, too."""

    def __init__(
        self,
        run_dir: Path,
        underlay: str,
        names: NameBook | None = None,
        *,
        balance: Balancer | None = None,
        nft: Nft | None = None,
        forgotten: Callable[[str, str], bool] = lambda network, address: True,
    ) -> None:
        self._names = names
        self._balance = balance
        self._run_dir = run_dir
        self._underlay = underlay
        self._lock = asyncio.Lock()
        self._leases = Leases(run_dir / "network", forgotten)
        self._guard_file = run_dir / "network" / "guarded"
        self._plans: dict[str, LinkPlan] = {}
        self._served: dict[str, LinkPlan] | None = None  # None: nobody was told anything, not even that there are none
        self._guarded: frozenset[str] = frozenset()
        self._leaving: dict[str, bool] = {}  # whether together with others
        self._waiting = 0  # orders of `apply` that have not begun
        self._begun = False  # the first `apply` has been: what is wanted is known
        self._settled = False  # the kernel held it when that was looked at last
        self._shared_nft = nft
        self._nl: Netlink
        self._nft: Nft
        self._rules: Rules
        self._containers: Containers

    async def open(self) -> None:
        """Make the directories, load the records, set the node's forwarding. Needs root."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._leases.load()
        self._guarded = frozenset(map(str, kept.read(self._guard_file) or ()))
        self._nl, self._nft = Netlink(), self._shared_nft or Nft()
        self._rules, self._containers = Rules(self._nft), Containers(self._nl, self._run_dir / "netns")
        sysctls.hold(ipv6=False)

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        self._waiting += 1
        async with self._lock:
            self._waiting -= 1
            await asyncio.to_thread(self._apply, networks)
            await self._tell()

    async def _tell(self) -> None:
        """The name server listens on every gateway, and the balancer knows every network. Not before the first `apply`, and not
        while a newer one waits: they would forget the networks that are yet to come, and what they were told of them."""
        if not self._begun or self._waiting:
            return
        plans = dict(self._plans)
        if self._balance is not None and self._served != plans:
            self._balance.networks(plans)
        self._served = plans
        if self._names is not None:
            gateways = {name: plan.gateway.split("/")[0] for name, plan in plans.items()}
            await self._names.serve(gateways, [name for name, plan in plans.items() if plan.internal])

    def _apply(self, networks: Sequence[NetworkWanted]) -> None:
        mtu = kernel.underlay_mtu(self._nl, self._underlay)
        plans = {wanted.name: link_plan(wanted, mtu) for wanted in networks}
        self._keep_local_bridge(plans)
        if clash := overlap(list(plans.values())):
            raise RuntimeFailed(f"networks {clash[0]} and {clash[1]} overlap: give one of them another subnet")
        before, self._plans = self._plans, plans
        self._begun, settled, self._settled = True, self._settled, False
        try:
            self._links(before, settled)
        finally:  # a network that cannot be made must not leave the others without their rules
            self._apply_rules()
        self._settled = True

    def _links(self, before: Mapping[str, LinkPlan], settled: bool) -> None:
        """From the links and entries of the plans before to those of now; `settled`: those of before are there."""
        plans = self._plans
        moved = [plan for plan in before.values() if not _same_place(plan, plans.get(plan.name))]
        for plan in moved:
            kernel.remove_network(self._nl, plan)
        sysctls.hold(ipv6=any(plan.prefix6 for plan in plans.values()))
        if settled and not any(plan.name in plans for plan in moved):
            for plan in plans.values():
                self._make(plan, before.get(plan.name))
        else:
            mending.settle(self._nl, self._containers, self._leases, plans, self._underlay)

    def _make(self, plan: LinkPlan, before: LinkPlan | None) -> None:
        if before == plan:
            return
        if before is None or (before.mtu, bool(before.prefix6)) != (plan.mtu, bool(plan.prefix6)):
            kernel.make_links(self._nl, plan, {}, self._underlay)
        kernel.change(self._nl, entries.wanted(before) if before else (), entries.wanted(plan))

    def _apply_rules(self) -> None:
        """Not before all networks are known: the rules of the last agent hold until then."""
        if self._begun:
            self._rules.apply(self._wanted())

    def _wanted(self) -> RulesWanted:
        rows = (row for interfaces in self._leases.held.values() for row in attachment.rows(interfaces))
        return RulesWanted(tuple(self._plans.values()), frozenset(rows), self._guarded)

    def _keep_local_bridge(self, plans: dict[str, LinkPlan]) -> None:
        """The node's own bridge makes room for a network that overlaps it, unless a container uses it."""
        local = self._plans.get(LOCAL_BRIDGE)
        in_use = any(found.network == LOCAL_BRIDGE for found in self._leases.interfaces())
        if local is not None and (in_use or not overlap([*plans.values(), local])):
            plans[LOCAL_BRIDGE] = local

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        if any(wanted.network == "host" for wanted in networks):
            return Attached("")
        async with self._lock:
            got = await asyncio.to_thread(self._attach, container_id, networks)
            await self._tell_new()
            return got

    async def _tell_new(self) -> None:
        """The node's own bridge may have come with a container."""
        if self._served is None or self._plans.keys() != self._served.keys():
            await self._tell()

    def _attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        self._leaving.pop(container_id, None)
        if container_id in self._leases.held:
            self._detach([container_id])
        interfaces: list[Interface] = []
        for wanted in networks:
            if wanted.network not in _WITHOUT_LINKS:
                interfaces.append(self._leases.give(container_id, self._plan(wanted.network), wanted, interfaces))
        self._leases.save(container_id, interfaces)
        try:
            self._rules.admit(attachment.rows(interfaces))
            self._containers.build(container_id, interfaces, self._plans)
        except BaseException:
            self._detach([container_id])
            raise
        return self._attached(container_id)

    def _plan(self, network: str) -> LinkPlan:
        if network == LOCAL_BRIDGE and LOCAL_BRIDGE not in self._plans:
            self._make_local_bridge()
        plan = self._plans.get(network)
        if plan is None:
            raise RuntimeFailed(f"network {network} is not on this node yet")
        return plan

    def _attached(self, container_id: str) -> Attached:
        return attached(str(self._containers.path(container_id)), self._plans, self._leases.held[container_id])

    def _make_local_bridge(self) -> None:
        subnet = self._leases.bridge_subnet([plan.subnet for plan in self._plans.values()], kernel.own_routes(self._nl))
        plan = link_plan(local_bridge(subnet), kernel.underlay_mtu(self._nl, self._underlay))
        self._plans[LOCAL_BRIDGE] = plan
        self._make(plan, None)
        self._apply_rules()

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        async with self._lock:
            got = await asyncio.to_thread(self._connect, container_id, wanted)
            await self._tell_new()
            return got

    def _connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        held = self._held(container_id)
        told = attachment.rows(held)
        found = next((found for found in held if found.network == wanted.network), None)
        if found is None:
            found = self._leases.give(container_id, self._plan(wanted.network), wanted, held)
            self._leases.save(container_id, [*held, found])
        elif self._nl.index(found.link):  # who knows how far an agent came that was killed meanwhile
            if found.network in self._plans:
                self._containers.finish(container_id, found, held, self._plans)
            return self._attached(container_id)
        after = self._leases.held[container_id]
        try:
            self._rules.admit([row for row in attachment.rows(after) if row not in told])
            self._containers.add(container_id, found, after, self._plans)
        except BaseException:
            self._disconnect(container_id, wanted.network)
            raise
        return self._attached(container_id)

    def _held(self, container_id: str) -> tuple[Interface, ...]:
        if container_id not in self._leases.held:
            raise RuntimeFailed(attachment.NO_NAMESPACE)
        return self._leases.held[container_id]

    async def disconnect(self, container_id: str, network: str) -> Attached:
        async with self._lock:
            return await asyncio.to_thread(self._disconnect, container_id, network)

    def _disconnect(self, container_id: str, network: str) -> Attached:
        held = self._held(container_id)
        left = [found for found in held if found.network != network]
        going = [found for found in held if found.network == network]
        if going:
            self._leases.rest(going)
            self._rules.dismiss(set(attachment.rows(held)) - set(attachment.rows(left)))
            self._containers.unlink(going, self._plans)
            self._containers.way_out(container_id, left, self._plans)
            self._leases.save(container_id, left)
        return self._attached(container_id)

    async def guard(self, addresses: Collection[str]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._guard, frozenset(addresses))

    def _guard(self, addresses: frozenset[str]) -> None:
        """They are kept: an agent that has begun again holds to them before anybody tells it."""
        if addresses != self._guarded:
            kept.replace(self._guard_file, sorted(addresses))
        self._guarded = addresses
        self._apply_rules()

    async def detach(self, container_id: str) -> None:
        """Whoever gets the lock takes all along that are waiting for it; if that fails, each tries again for itself."""
        self._leaving[container_id] = True
        async with self._lock:
            if container_id not in self._leaving:
                return
            together = [found for found, yes in self._leaving.items() if yes] if self._leaving[container_id] else [container_id]
            try:
                await asyncio.to_thread(self._detach, together)
            except BaseException:
                self._leaving |= dict.fromkeys(together, False)
                raise
            for done in together:
                self._leaving.pop(done, None)

    def _detach(self, container_ids: Collection[str]) -> None:
        held = [self._leases.held[found] for found in container_ids if found in self._leases.held]
        going = [found for interfaces in held for found in interfaces]
        self._leases.rest(going)
        self._rules.dismiss([row for interfaces in held for row in attachment.rows(interfaces)])
        self._containers.unlink(going, self._plans)
        self._containers.remove(container_ids)
        for container_id in container_ids:
            self._leases.drop(container_id)

    async def recover(self, container_ids: Collection[str]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._recover, frozenset(container_ids))

    def _recover(self, keep: frozenset[str]) -> None:
        self._detach(sorted({*self._leases.held, *self._containers.found()} - keep))
        if any(found.network == LOCAL_BRIDGE for found in self._leases.interfaces()):
            self._plan(LOCAL_BRIDGE)
        self._nl.send(netlink.delete_links(kernel.stray_ports(self._nl.links(), self._leases.interfaces())))

    async def repair(self) -> tuple[str, ...]:
        async with self._lock:
            sentences = await asyncio.to_thread(self._repair)
            await self._tell()
            return sentences

    def _repair(self) -> tuple[str, ...]:
        if not self._begun:
            return ()
        changed = sysctls.hold(ipv6=any(plan.prefix6 for plan in self._plans.values()))
        said = [f"the node's setting {name} was changed and is set again" for name in changed]
        self._settled = False
        try:
            said += mending.settle(self._nl, self._containers, self._leases, self._plans, self._underlay)
            self._settled = True
        except (RuntimeFailed, OSError) as error:  # the rules are looked at all the same
            log.warning("networks: %s; tried again", error)
        return (*said, *self._rules.repair(self._wanted()))

    async def close(self, *, remove: bool = False) -> None:
        async with self._lock:
            if self._names is not None:
                await self._names.close()
            await asyncio.to_thread(self._close, remove)

    def _close(self, remove: bool) -> None:
        if remove:
            self._detach(sorted(self._leases.held))
            for plan in self._plans.values():
                kernel.remove_network(self._nl, plan)
            self._plans.clear()
            self._rules.remove()
            self._guard_file.unlink(missing_ok=True)
        if self._shared_nft is None:
            self._nft.close()
        self._nl.close()


def _same_place(one: LinkPlan, other: LinkPlan | None) -> bool:
    return other is not None and (one.bridge, one.gateway, one.subnet) == (other.bridge, other.gateway, other.subnet)
