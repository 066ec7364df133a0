"""The port between the agent's core and its network.

Rules: `apply` is level-triggered (the whole wanted state each time); `attach` and `detach` are idempotent per container id;
addresses inside the node's slice are this driver's own business and survive a restart of the agent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.plan.network import NetworkWanted


@dataclass(frozen=True, slots=True)
class AttachmentWanted:
    """One network of a container. `network` is a full name, or `host`, `none`, `bridge`."""

    network: str
    ipv4_address: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """What a container got. `netns_path` empty: the node's own namespace (`host`). `addresses`: (network, address/prefix)."""

    netns_path: str
    addresses: tuple[tuple[str, str], ...] = ()
    gateway: str = ""
    mtu: int = 0
    addresses6: tuple[tuple[str, str], ...] = ()


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
