"""Whether tables of ours still are as they were written.

Rules: looking costs one netlink question (20 us) as long as nobody else has changed rules. Only then are the tables read and
compared, whole and with their elements, and only ours. What should be there is loaded into a network namespace of its own and
listed there, so both sides of the comparison are in nft's own words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from agent.network import namespaces
from agent.network.nft import Nft
from agent.plan import drift
from model.errors import RuntimeFailed


class Drift:
    """The tables of one owner, all changed through the same `nft`. Use:

        self._drift = Drift(nft)
        ...
        sentences = self._drift.repaired(lambda: {"inet shoal-lb": text_from_nothing}, self._write_everything)

    Synchronous, in a thread; the owner changes nothing of its tables meanwhile (its own lock).
    """

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._seen = -1

    def repaired(self, wanted: Callable[[], Mapping[str, str]], rebuild: Callable[[], None]) -> tuple[str, ...]:
        """A sentence for each thing that differed; `rebuild` was called if there was one, and must write the tables whole, in
        one transaction. `wanted`: for each table (`family name`) the text that makes it where there is nothing."""
        count = self._nft.foreign_changes()
        if count == self._seen:
            return ()
        found = tuple(sentence for table, text in wanted().items() for sentence in self._differences(table, text))
        if found:
            rebuild()
        self._seen = count
        return found

    def _differences(self, table: str, text: str) -> tuple[str, ...]:
        should = namespaces.temporary(lambda: _loaded(table, text))
        try:
            live = drift.things(self._nft.listing(f"list table {table}"))
        except RuntimeFailed:
            live = None
        return drift.differences(table, drift.things(should), live)


def _loaded(table: str, text: str) -> list[dict[str, Any]]:
    with contextlib.closing(Nft()) as nft:
        nft.run(text)
        return nft.listing(f"list table {table}")
