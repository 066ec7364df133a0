"""The NetworkDriver in memory: same promises, no kernel. For tests and the simulation.

Rules: attachments and resting addresses outlive the agent, as records and links do; what networks there are is told anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from agent.network.balance_port import Balancer
from agent.network.port import Attached, AttachmentWanted, attached
from agent.plan import attachment
from agent.plan.attachment import Interface
from agent.plan.network import LOCAL_BRIDGE, LinkPlan, NetworkWanted, link_plan, local_bridge
from model.errors import RuntimeFailed

_UNDERLAY_MTU = 1500


def _plan(wanted: NetworkWanted) -> LinkPlan:
    """Of the other nodes only what matters here: their fixed addresses. There may be thousands."""
    peers = tuple(peer for peer in wanted.peers if peer.addresses)
    return link_plan(replace(wanted, peers=peers), _UNDERLAY_MTU)


_LOCAL: Final = local_bridge()
_LOCAL_PLAN: Final = _plan(_LOCAL)


class MemoryNetwork:
    """Keeps networks and attachments in dictionaries. `forgotten` and `balance` as those of the kernel's network."""

    def __init__(
        self,
        *,
        forgotten: Callable[[str, str], bool] = lambda network, address: True,
        balance: Callable[[], Balancer | None] = lambda: None,
    ) -> None:
        self.networks: dict[str, NetworkWanted] = {LOCAL_BRIDGE: _LOCAL}
        self.attached: dict[str, Attached] = {}
        self.guarded: frozenset[str] = frozenset()
        self._forgotten = forgotten
        self._balance = balance
        self._plans: dict[str, LinkPlan] = {LOCAL_BRIDGE: _LOCAL_PLAN}
        self._served: dict[str, LinkPlan] | None = None
        self._held: dict[str, list[Interface]] = {}
        self._last: dict[str, str] = {}
        self._resting: dict[tuple[str, str], None] = {}

    def crash(self) -> None:
        """The agent died: what networks are wanted is known again after the first `apply`."""
        self.networks = {LOCAL_BRIDGE: _LOCAL}
        self._plans = {LOCAL_BRIDGE: _LOCAL_PLAN}
        self._served = None

    def addresses(self, container_id: str) -> tuple[tuple[str, str], ...]:
        """(network, address) of each interface the container has."""
        return tuple((found.network, found.address) for found in self._held.get(container_id, ()))

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        wanted = {LOCAL_BRIDGE: _LOCAL} | {network.name: network for network in networks}
        known = {name: plan for name, plan in self._plans.items() if self.networks.get(name) == wanted.get(name)}
        self._plans = {name: known.get(name) or _plan(network) for name, network in wanted.items()}
        self.networks = wanted
        if self._served != self._plans and (balance := self._balance()) is not None:
            balance.networks(self._plans)
            self._served = self._plans

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        if any(wanted.network == "host" for wanted in networks):
            return Attached("")
        self._let_go(container_id)
        interfaces: list[Interface] = []
        for wanted in networks:
            if wanted.network != "none":
                interfaces.append(self._give(container_id, wanted, interfaces))
        return self._hold(container_id, interfaces)

    def _give(self, container_id: str, wanted: AttachmentWanted, beside: Sequence[Interface]) -> Interface:
        plan = self._plans.get(wanted.network)
        if plan is None:
            raise RuntimeFailed(f"network {wanted.network} is not on this node yet")
        everybody = [found for interfaces in self._held.values() for found in interfaces]
        self._resting = {row: None for row in self._resting if not self._forgotten(*row)}
        resting = {address for network, address in self._resting if network == plan.name}
        last = self._last.get(plan.name, "")
        address = attachment.address_on(plan, wanted.ipv4_address, (*everybody, *beside), resting, last)
        if not wanted.ipv4_address:
            self._last[plan.name] = address
        return attachment.interface(container_id, attachment.next_number(beside), plan, address)

    def _hold(self, container_id: str, interfaces: list[Interface]) -> Attached:
        self._held[container_id] = interfaces
        self.attached[container_id] = attached(f"/memory/{container_id}", self._plans, interfaces)
        return self.attached[container_id]

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        held = self._of(container_id)
        if any(found.network == wanted.network for found in held):
            return self.attached[container_id]
        return self._hold(container_id, [*held, self._give(container_id, wanted, held)])

    async def disconnect(self, container_id: str, network: str) -> Attached:
        held = self._of(container_id)
        self._rest([found for found in held if found.network == network])
        return self._hold(container_id, [found for found in held if found.network != network])

    def _of(self, container_id: str) -> list[Interface]:
        if container_id not in self._held:
            raise RuntimeFailed(attachment.NO_NAMESPACE)
        return self._held[container_id]

    def _rest(self, interfaces: Iterable[Interface]) -> None:
        self._resting |= {(found.network, found.address): None for found in interfaces if found.network != LOCAL_BRIDGE}

    async def guard(self, addresses: Collection[str]) -> None:
        self.guarded = frozenset(addresses)

    async def detach(self, container_id: str) -> None:
        self._let_go(container_id)

    def _let_go(self, container_id: str) -> None:
        self._rest(self._held.pop(container_id, []))
        self.attached.pop(container_id, None)

    async def recover(self, container_ids: Collection[str]) -> None:
        for container_id in sorted(self.attached.keys() - set(container_ids)):
            self._let_go(container_id)

    async def repair(self) -> tuple[str, ...]:
        return ()

    async def close(self, *, remove: bool = False) -> None:
        if remove:
            self.attached.clear()
            self._held.clear()
