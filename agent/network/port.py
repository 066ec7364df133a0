"""The port between the agent's core and its network.

Rules: `apply` is level-triggered (the whole wanted state each time); `attach` and `detach` are idempotent per container id;
addresses inside the node's slice are this driver's own business and survive a restart of the agent. A released address is given
to nobody until every node has forgotten it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.plan import attachment
from agent.plan.attachment import Interface
from agent.plan.network import LinkPlan, NetworkWanted


@dataclass(frozen=True, slots=True)
class AttachmentWanted:
    """One network of a container. `network` is a full name, or `host`, `none`, `bridge`."""

    network: str
    ipv4_address: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """What a container got. `netns_path` empty: the node's own namespace (`host`). `addresses`: (network, address/prefix), with
    the length of the whole subnet."""

    netns_path: str
    addresses: tuple[tuple[str, str], ...] = ()
    gateway: str = ""
    mtu: int = 0
    addresses6: tuple[tuple[str, str], ...] = ()


def attached(netns_path: str, plans: Mapping[str, LinkPlan], interfaces: Sequence[Interface]) -> Attached:
    """What a container has got, as the port tells it."""
    held = [(found, plans[found.network]) for found in interfaces if found.network in plans]
    out, _ = attachment.ways_out(plans, interfaces)
    six = [(found, plan) for found, plan in held if found.address6 and plan.prefix6]
    return Attached(
        netns_path,
        tuple((plan.name, f"{found.address}/{attachment.length(plan.subnet)}") for found, plan in held),
        plans[out.network].gateway.split("/")[0] if out else "",
        held[0][1].mtu if held else 0,
        tuple((plan.name, f"{found.address6}/{attachment.length(plan.subnet6)}") for found, plan in six),
    )


class NetworkDriver(Protocol):
    """Networks of one node."""

    async def apply(self, networks: Sequence[NetworkWanted]) -> None:
        """Make what is wanted, remove what is not. Raises RuntimeFailed with one line when the kernel refuses."""

    async def attach(self, container_id: str, networks: Sequence[AttachmentWanted]) -> Attached:
        """The container's network namespace with its interfaces. Raises RuntimeFailed (unknown network, slice full)."""

    async def connect(self, container_id: str, wanted: AttachmentWanted) -> Attached:
        """One more interface in the namespace of an attached container, while it runs; nothing to do when it is there. Gives
        the whole state after. Raises RuntimeFailed as `attach` does."""

    async def disconnect(self, container_id: str, network: str) -> Attached:
        """The container's interface on that network is gone, and its address free; the whole state after."""

    async def guard(self, addresses: Collection[str]) -> None:
        """The TCP addresses (host:port) that no container may reach: all of them, each time."""

    async def detach(self, container_id: str) -> None:
        """Namespace, links and addresses of the container are gone; the addresses are free again."""

    async def recover(self, container_ids: Collection[str]) -> None:
        """After a restart of the agent: keep the attachments of these containers, detach every other one found."""

    async def repair(self) -> tuple[str, ...]:
        """Compare what is there with what should be, put back what is missing; a sentence for each thing repaired."""

    async def close(self, *, remove: bool = False) -> None:
        """Let go of sockets; with `remove` take every network and attachment away."""
