"""Which container has which addresses on this node, kept in files over restarts of the agent.

Rules: written BEFORE the kernel is touched, so that an agent killed half way finds and removes what it began. A released
address rests until `forgotten` says that nobody sends there any more; that too outlives the agent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.network import kept
from agent.network.port import AttachmentWanted
from agent.plan.attachment import Interface, address_on, interface, next_number
from agent.plan.network import LOCAL_BRIDGE, LOCAL_SUBNETS, LinkPlan, free_subnet
from model import codec
from model.errors import RuntimeFailed, ShoalError

log = logging.getLogger(__name__)
LAST_MAX: Final = 1000
"""Networks whose last address is remembered."""
_RESTING: Final = "resting"


class Leases:
    """`load` once, then `give` and `save`; `rest` and `drop` when they go."""

    def __init__(self, directory: Path, forgotten: Callable[[str, str], bool]) -> None:
        self._dir = directory
        self._forgotten = forgotten
        self._resting: dict[str, dict[str, None]] = {}
        self._last: dict[str, str] = {}
        self.held: dict[str, tuple[Interface, ...]] = {}

    def load(self) -> None:
        """A record that cannot be read was being written when the agent was killed: nothing was made for it yet."""
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in sorted(self._dir.glob("*.json")):
            try:
                self.held[file.stem] = tuple(codec.from_plain(Interface, row) for row in json.loads(file.read_text()))
            except (ValueError, TypeError, ShoalError):
                file.unlink()
        saved = kept.read(self._dir / _RESTING)
        try:
            self._last = dict(saved["last"])
            self._resting = {network: dict.fromkeys(rows) for network, rows in saved["resting"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            self._last = {found.network: found.address for found in self.interfaces()}

    def interfaces(self) -> Iterator[Interface]:
        return (found for interfaces in self.held.values() for found in interfaces)

    def give(self, container_id: str, plan: LinkPlan, wanted: AttachmentWanted, beside: Sequence[Interface]) -> Interface:
        """An interface with an address for a container that has those `beside` already; not saved yet."""
        others, resting = (*self.interfaces(), *beside), self._still_resting(plan.name)
        address = address_on(plan, wanted.ipv4_address, others, resting, self._last.get(plan.name, ""))
        if not wanted.ipv4_address:
            self._last.pop(plan.name, None)
            self._last[plan.name] = address
        return interface(container_id, next_number(beside), plan, address)

    def _still_resting(self, network: str) -> Collection[str]:
        rows = self._resting.get(network, {})
        for address in [address for address in rows if self._forgotten(network, address)]:
            del rows[address]
        return rows

    def save(self, container_id: str, interfaces: Sequence[Interface]) -> None:
        """The container has these from now on."""
        write = kept.replace if container_id in self.held else kept.write
        write(self._file(container_id), [codec.to_plain(found) for found in interfaces])
        self.held[container_id] = tuple(interfaces)

    def rest(self, interfaces: Collection[Interface]) -> None:
        """Nobody gets these addresses until all have forgotten them. The node's own bridge is known to nobody else."""
        rows = [found for found in interfaces if found.network != LOCAL_BRIDGE]
        for found in rows:
            self._resting.setdefault(found.network, {})[found.address] = None
        if rows:
            for network in list(self._resting):
                if not self._still_resting(network):
                    del self._resting[network]
            resting = {network: list(addresses) for network, addresses in self._resting.items()}
            while len(self._last) > LAST_MAX:
                del self._last[next(iter(self._last))]
            kept.replace(self._dir / _RESTING, {"last": self._last, "resting": resting})

    def drop(self, container_id: str) -> None:
        self.held.pop(container_id, None)
        self._file(container_id).unlink(missing_ok=True)

    def _file(self, container_id: str) -> Path:
        return self._dir / f"{container_id}.json"

    def bridge_subnet(self, networks: Collection[str], routes: Collection[str]) -> str:
        """Of the node's own bridge: the one it had, else the first that overlaps neither networks nor routes of the machine."""
        file = self._dir / "bridge-subnet"
        before = (file.read_text(),) if file.exists() else ()
        subnet = free_subnet(before, networks) or free_subnet(LOCAL_SUBNETS, [*networks, *routes])
        if subnet is None:
            raise RuntimeFailed("the node's own bridge network has no free subnet: use a user network")
        if (subnet,) != before:
            log.info("the node's own bridge network has the subnet %s", subnet)
            file.write_text(subnet)
        return subnet
