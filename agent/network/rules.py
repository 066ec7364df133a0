"""The node's rules in the kernel: the firewall, and who may send what by which container's link.

Rules: synchronous, called in threads by one caller at a time. Everything one call changes is one transaction. What should be
there is data from agent/plan/firewall.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.network.nft import Nft
from agent.plan import firewall
from agent.plan.firewall import PortRow, RulesWanted


class Rules:
    """The tables `inet shoal` and `bridge shoal`."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._text = ""

    def apply(self, wanted: RulesWanted) -> None:
        """Make the kernel hold what is wanted; nothing to do when it does already."""
        text = firewall.ruleset(wanted.plans)
        if text != self._text:
            self._nft.run(text)
            self._text = text

    def admit(self, rows: Iterable[PortRow]) -> None:
        """These containers' links may send from these addresses; before the links come up."""

    def dismiss(self, rows: Iterable[PortRow]) -> None:
        """These links send nothing any more; before they are removed."""

    def repair(self, wanted: RulesWanted) -> tuple[str, ...]:
        """Put back what somebody removed or changed; a sentence for each thing repaired."""
        if self._text and f"table ip {firewall.TABLE}" not in self._nft.run("list tables ip").splitlines():
            self._text = ""
            self.apply(wanted)
            return ("the nftables table was gone and is back",)
        return ()

    def remove(self) -> None:
        """Take both tables away."""
        self._nft.run(firewall.removal())
        self._text = ""
