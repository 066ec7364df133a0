"""The node's rules in the kernel: the firewall, and who may send what by which container's link.

Rules: synchronous, called in threads by one caller at a time. Everything one call changes is one transaction: the first `apply`
writes the tables whole, later calls add and delete elements. What should be there is data from agent/plan/firewall.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.network.drift import Drift
from agent.network.nft import Nft
from agent.plan import firewall
from agent.plan.firewall import Contents, PortRow, RulesWanted
from model.errors import RuntimeFailed


class Rules:
    """The tables `shoal` of the families inet, bridge and arp."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._drift = Drift(nft)
        self._contents: Contents | None = None
        self._told: tuple[str, ...] = ()

    def apply(self, wanted: RulesWanted) -> None:
        """Make the kernel hold what is wanted; nothing to do when it does already."""
        self._change(firewall.contents(wanted))

    def admit(self, rows: Iterable[PortRow]) -> None:
        """These containers' links may send from these addresses; before the links come up. Before the first `apply`, which
        brings all rows, there is nothing to do."""
        if self._contents is not None:
            self._change(firewall.admitted(self._contents, rows))

    def dismiss(self, rows: Iterable[PortRow]) -> None:
        """These links send nothing any more; before they are removed."""
        if self._contents is not None:
            self._change(firewall.dismissed(self._contents, rows))

    def repair(self, wanted: RulesWanted) -> tuple[str, ...]:
        """Put back what somebody removed or changed; a sentence for each thing repaired."""
        should = firewall.contents(wanted)
        self._change(should)
        found = self._drift.repaired(lambda: firewall.tables(should), lambda: self._write(should))
        told, self._told = self._told, ()
        return told + found

    def remove(self) -> None:
        """Take the tables away."""
        self._nft.run(firewall.removal())
        self._contents = None

    def _change(self, after: Contents) -> None:
        """By difference; whole when somebody else's change made the difference impossible."""
        before = self._contents
        if before is None:
            self._write(after)
        elif text := firewall.difference(before, after):
            try:
                self._nft.run(text)
            except RuntimeFailed:
                self._told += self._drift.repaired(lambda: firewall.tables(before), lambda: self._write(after))
                self._write(after)
            self._contents = after

    def _write(self, after: Contents) -> None:
        self._nft.run(firewall.whole(after))
        self._contents = after
