"""The NetworkDriver in memory: same promises, no kernel. For tests and the simulation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from agent.network.port import Attached, AttachmentWanted
from agent.plan import ipam
from agent.plan.network import LOCAL_BRIDGE, NetworkWanted, gateway_address, local_bridge
from model.errors import RuntimeFailed


class MemoryNetwork:
    """Keeps networks and attachments in dictionaries."""

    def __init__(self) -> None:
        self.networks: dict[str, NetworkWanted] = {LOCAL_BRIDGE: local_bridge()}
        self.attached: dict[str, Attached] = {}
        self.guarded: frozenset[str] = frozenset()
        self._last: dict[str, str] = {}

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        self.networks = {LOCAL_BRIDGE: local_bridge()} | {wanted.name: wanted for wanted in networks}

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        if any(wanted.network == "host" for wanted in networks):
            return Attached("")
        self.attached.pop(container_id, None)
        addresses = []
        gateway = ""
        for wanted in networks:
            if wanted.network == "none":
                continue
            network = self.networks.get(wanted.network)
            if network is None:
                raise RuntimeFailed(f"network {wanted.network} is not on this node yet")
            address = wanted.ipv4_address or self._next(network)
            addresses.append((network.name, f"{address}/{network.slice.split('/')[1]}"))
            gateway = gateway or ("" if network.internal else gateway_address(network.slice).split("/")[0])
        self.attached[container_id] = Attached(f"/memory/{container_id}", tuple(addresses), gateway, 1450)
        return self.attached[container_id]

    def _next(self, network: NetworkWanted) -> str:
        taken = {a.split("/")[0] for att in self.attached.values() for name, a in att.addresses if name == network.name}
        address = ipam.next_address(network.slice, taken, self._last.get(network.name, ""))
        if address is None:
            raise RuntimeFailed(f"network {network.name}: every address of this node's slice {network.slice} is taken")
        self._last[network.name] = address
        return address

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        held = self.attached[container_id]
        if any(name == wanted.network for name, _ in held.addresses):
            return held
        network = self.networks.get(wanted.network)
        if network is None:
            raise RuntimeFailed(f"network {wanted.network} is not on this node yet")
        row = (network.name, f"{wanted.ipv4_address or self._next(network)}/{network.slice.split('/')[1]}")
        self.attached[container_id] = replace(held, addresses=(*held.addresses, row))
        return self.attached[container_id]

    async def disconnect(self, container_id: str, network: str) -> Attached:
        held = self.attached[container_id]
        left = tuple(row for row in held.addresses if row[0] != network)
        self.attached[container_id] = replace(held, addresses=left)
        return self.attached[container_id]

    async def guard(self, addresses: Collection[str]) -> None:
        self.guarded = frozenset(addresses)

    async def detach(self, container_id: str) -> None:
        self.attached.pop(container_id, None)

    async def recover(self, container_ids: Collection[str]) -> None:
        for container_id in set(self.attached) - set(container_ids):
            del self.attached[container_id]

    async def repair(self) -> tuple[str, ...]:
        return ()

    async def close(self, *, remove: bool = False) -> None:
        if remove:
            self.attached.clear()
