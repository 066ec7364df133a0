"""The node's networks in the kernel: bridges, VXLAN devices, remote entries, firewall; containers are attached to them.

Rules: everything that talks to the kernel runs in threads, one at a time under one lock; what should be there is data from
agent/plan. Attachments are recorded in files of the run directory BEFORE the kernel is touched, so that an agent killed half
way finds and removes what it began.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.network import kernel, namespaces
from agent.network.names import NameBook
from agent.network.nft import Nft
from agent.network.port import Attached, AttachmentWanted
from agent.network.rtnl import Netlink
from agent.plan import firewall, ipam, netlink
from agent.plan.network import (
    LOCAL_BRIDGE,
    LinkPlan,
    NetworkWanted,
    link_plan,
    local_bridge,
    mac_of,
    overlap,
    veth_name,
)
from model.errors import RuntimeFailed

_WITHOUT_LINKS: Final = ("none",)
_CONTAINER_SYSCTLS: Final = (
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
)


@dataclass(slots=True)
class _Record:
    """One attached container, as its file holds it: (network, address/prefix, host link)."""

    interfaces: list[tuple[str, str, str]] = field(default_factory=list)


class KernelNetwork:
    """The real NetworkDriver. `underlay`: this node's address that VXLAN frames leave from; `run_dir` holds the records."""

    def __init__(self, run_dir: Path, underlay: str, names: NameBook | None = None) -> None:
        self._names = names
        self._dir = run_dir / "network"
        self._netns = run_dir / "netns"
        self._underlay = underlay
        self._lock = asyncio.Lock()
        self._plans: dict[str, LinkPlan] = {}
        self._records: dict[str, _Record] = {}
        self._last: dict[str, str] = {}
        self._leaving: dict[str, None] = {}
        self._links: Netlink | None = None
        self._nft: Nft | None = None
        self._rules = ""

    async def open(self) -> None:
        """Make the directories, load the records, set the node's forwarding. Needs root."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        for path in (self._dir, self._netns):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._links = Netlink()
        self._nft = Nft()
        kernel.prepare_node()
        for file in sorted(self._dir.glob("*.json")):
            try:
                self._records[file.stem] = _Record([tuple(row) for row in json.loads(file.read_text())])
            except (ValueError, TypeError):
                file.unlink()

    @property
    def _nl(self) -> Netlink:
        if self._links is None:
            raise RuntimeFailed("network: not opened yet")
        return self._links

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._apply, networks)
            await self._serve_names()

    async def _serve_names(self) -> None:
        """User networks have names, on their gateway's address; the node's own bridge has none."""
        if self._names is not None:
            plans = self._plans.values()
            gateways = {plan.name: plan.gateway.split("/")[0] for plan in plans if plan.vxlan}
            await self._names.serve(gateways, [plan.name for plan in plans if plan.internal])

    def _apply(self, networks: Sequence[NetworkWanted]) -> None:
        mtu = kernel.underlay_mtu(self._nl, self._underlay)
        plans = {wanted.name: link_plan(wanted, mtu) for wanted in networks}
        if LOCAL_BRIDGE in self._plans:
            plans[LOCAL_BRIDGE] = self._plans[LOCAL_BRIDGE]
        if clash := overlap(list(plans.values())):
            raise RuntimeFailed(f"networks {clash[0]} and {clash[1]} overlap: give one of them another subnet")
        for name in [name for name in self._plans if name not in plans]:
            self._remove_network(self._plans.pop(name))
        for plan in plans.values():
            before = self._plans.get(plan.name)
            if before != plan:
                if before is not None and (before.bridge, before.gateway) != (plan.bridge, plan.gateway):
                    self._remove_network(before)
                    before = None
                kernel.make_network(self._nl, plan, before, self._underlay)
                self._plans[plan.name] = plan
        self._apply_rules()

    def _remove_network(self, plan: LinkPlan) -> None:
        names = [plan.bridge, plan.vxlan] if plan.vxlan else [plan.bridge]
        self._nl.send([netlink.delete_link(name) for name in names])

    def _apply_rules(self, *, force: bool = False) -> None:
        text = firewall.ruleset(list(self._plans.values()))
        if self._nft is not None and (force or text != self._rules):
            self._nft.run(text)
            self._rules = text

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        if any(wanted.network == "host" for wanted in networks):
            return Attached("")
        async with self._lock:
            return await asyncio.to_thread(self._attach, container_id, networks)

    def _attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        linked = [wanted for wanted in networks if wanted.network not in _WITHOUT_LINKS]
        if any(wanted.network == LOCAL_BRIDGE for wanted in linked) and LOCAL_BRIDGE not in self._plans:
            self._make_local_bridge()
        self._leaving.pop(container_id, None)
        if container_id in self._records:
            self._detach([container_id])
        record = self._reserve(container_id, linked)
        path = self._netns / container_id
        try:
            fd, inner = namespaces.create(path, _prepare_inside)
            try:
                with inner:
                    self._connect(record, fd, inner)
            finally:
                os.close(fd)
        except BaseException:
            self._detach([container_id])
            raise
        first = self._plans[record.interfaces[0][0]] if record.interfaces else None
        return Attached(
            str(path),
            tuple((network, address) for network, address, _ in record.interfaces),
            first.gateway.split("/")[0] if first and not first.internal else "",
            first.mtu if first else 0,
        )

    def _make_local_bridge(self) -> None:
        plan = link_plan(local_bridge(), kernel.underlay_mtu(self._nl, self._underlay))
        if overlap([*self._plans.values(), plan]):
            raise RuntimeFailed(f"the node's own bridge network {plan.subnet} overlaps another network: use a user network")
        kernel.make_network(self._nl, plan, None, self._underlay)
        self._plans[LOCAL_BRIDGE] = plan
        self._apply_rules()

    def _reserve(self, container_id: str, networks: Sequence[AttachmentWanted]) -> _Record:
        record = _Record()
        for index, wanted in enumerate(networks):
            plan = self._plans.get(wanted.network)
            if plan is None:
                raise RuntimeFailed(f"network {wanted.network} is not on this node yet")
            slice_cidr, taken = kernel.slice_of(plan), self._taken(wanted.network)
            if wanted.ipv4_address and (why := ipam.refusal(slice_cidr, taken, wanted.ipv4_address)):
                raise RuntimeFailed(f"network {wanted.network}: address {wanted.ipv4_address} cannot be given: {why}")
            address = wanted.ipv4_address or ipam.next_address(slice_cidr, taken, self._last.get(wanted.network, ""))
            if address is None:
                raise RuntimeFailed(f"network {wanted.network}: every address of this node's slice {slice_cidr} is taken")
            self._last[wanted.network] = address
            prefix = slice_cidr.split("/")[1]
            record.interfaces.append((wanted.network, f"{address}/{prefix}", veth_name(container_id, index)))
        self._records[container_id] = record
        self._file(container_id).write_text(json.dumps(record.interfaces))
        return record

    def _taken(self, network: str) -> set[str]:
        rows = (row for record in self._records.values() for row in record.interfaces)
        return {address.split("/")[0] for name, address, _ in rows if name == network}

    def _file(self, container_id: str) -> Path:
        return self._dir / f"{container_id}.json"

    def _connect(self, record: _Record, fd: int, inner: Netlink) -> None:
        outside, inside = [], [netlink.set_up(1)]
        for index, (network, address, link) in enumerate(record.interfaces):
            plan, number = self._plans[network], index + 2
            master = self._nl.index(plan.bridge)
            mac = mac_of(address, plan.vni)
            outside.append(netlink.add_veth(link, master, plan.mtu, f"eth{index}", number, mac, fd))
            inside += [netlink.set_up(number), netlink.add_address(number, address)]
            if plan.subnet != kernel.slice_of(plan):  # the slice itself is on the link
                inside.append(netlink.put_route(plan.subnet, plan.gateway.split("/")[0], number))
            if index == 0 and not plan.internal:
                inside.append(netlink.put_route("0.0.0.0/0", plan.gateway.split("/")[0], number))
        self._nl.send(outside)
        inner.send(inside)

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        raise RuntimeFailed("network connect: not built yet")

    async def disconnect(self, container_id: str, network: str) -> Attached:
        raise RuntimeFailed("network disconnect: not built yet")

    async def guard(self, addresses: Collection[str]) -> None:
        """Not enforced yet."""

    async def detach(self, container_id: str) -> None:
        """Whoever gets the lock takes all along that are waiting for it; if that fails, each tries again for itself."""
        self._leaving[container_id] = None
        async with self._lock:
            if container_id in self._leaving:
                batch = tuple(self._leaving)
                await asyncio.to_thread(self._detach, batch)
                for done in batch:
                    self._leaving.pop(done, None)

    def _detach(self, container_ids: Collection[str]) -> None:
        records = [self._records[found] for found in container_ids if found in self._records]
        self._nl.send(netlink.delete_links([link for record in records for _, _, link in record.interfaces]))
        for container_id in container_ids:
            self._records.pop(container_id, None)
            namespaces.remove(self._netns / container_id)
            self._file(container_id).unlink(missing_ok=True)

    async def recover(self, container_ids: Collection[str]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._recover, frozenset(container_ids))

    def _recover(self, keep: frozenset[str]) -> None:
        self._detach(sorted({*self._records, *(path.name for path in self._netns.iterdir())} - keep))
        for record in self._records.values():
            for network, address, _ in record.interfaces:
                self._last[network] = address.split("/")[0]
        if any(network == LOCAL_BRIDGE for r in self._records.values() for network, _, _ in r.interfaces):
            self._make_local_bridge()
        known = {link for record in self._records.values() for _, _, link in record.interfaces}
        stray = [name for name in sorted(self._nl.links()) if name.startswith("shv-") and name not in known]
        self._nl.send(netlink.delete_links(stray))

    async def repair(self) -> tuple[str, ...]:
        async with self._lock:
            sentences = await asyncio.to_thread(self._repair)
            await self._serve_names()
            return sentences

    def _repair(self) -> tuple[str, ...]:
        sentences = []
        for plan in self._plans.values():
            gone = kernel.missing(self._nl, plan)
            sentences += [f"network {plan.name}: {what} was gone and is back" for what in gone]
            if gone:
                kernel.make_network(self._nl, plan, None, self._underlay)
                self._enslave(plan)
        if self._rules and self._nft is not None and not kernel.table_present(self._nft):
            self._apply_rules(force=True)
            sentences.append("the nftables table was gone and is back")
        return tuple(sentences)

    def _enslave(self, plan: LinkPlan) -> None:
        """A bridge made anew has lost its ports: put the containers' links back into it."""
        master = self._nl.index(plan.bridge)
        rows = (row for record in self._records.values() for row in record.interfaces)
        self._nl.send([netlink.set_master(link, master) for network, _, link in rows if network == plan.name])

    async def close(self, *, remove: bool = False) -> None:
        async with self._lock:
            if self._names is not None:
                await self._names.close()
            await asyncio.to_thread(self._close, remove)

    def _close(self, remove: bool) -> None:
        if remove:
            self._detach(sorted(self._records))
            for plan in self._plans.values():
                self._remove_network(plan)
            self._plans.clear()
            if self._nft is not None:
                self._nft.run(firewall.removal())
        if self._nft is not None:
            self._nft.close()
        if self._links is not None:
            self._links.close()


def _prepare_inside() -> Netlink:
    for name, value in _CONTAINER_SYSCTLS:
        Path("/proc/sys", name).write_text(value)
    return Netlink()
