"""The TCP addresses of the cluster itself, which no container may reach: agents, controllers, etcd. Pure.

Rules: kept up by changes, told as differences; a status that says the same address again costs a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final
from urllib.parse import urlsplit

from controller.loops.picture import Change, Snapshot
from protos import node_pb2 as pb

TOMBSTONES_MAX: Final = 1_000
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class GuardBook:
    """`always`: addresses that no document names (etcd's)."""

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._always = tuple(always)
        self._of: dict[tuple[str, str], tuple[str, ...]] = {}
        self._uses: dict[str, int] = {}
        self._added: dict[str, int] = {}
        self._removed: dict[str, int] = {}
        self._forgotten = 0
        self.number = 1
        self._set(("", ""), self._always)

    def reload(self, snapshot: Snapshot) -> None:
        """Begin anew from everything; numbers go on."""
        wanted = {(kind, name): _addresses(doc) for kind in _KINDS for name, doc in snapshot.of(kind).items()}
        for source in [source for source in self._of if source[0] and source not in wanted]:
            self._set(source, ())
        for source, addresses in wanted.items():
            self._set(source, addresses)

    def take(self, changes: Iterable[Change]) -> bool:
        """Whether something differs now."""
        before = self.number
        for change in changes:
            if change.kind in _KINDS:
                self._set((change.kind, change.name), _addresses(change.new))
        return self.number != before

    def message(self, told: int) -> pb.Guarded | None:
        """What is new since number `told` (0: nothing was told)."""
        if told == self.number:
            return None
        if told <= self._forgotten:
            return pb.Guarded(whole=True, added=sorted(self._added))
        added = [row[0] for row in takewhile(lambda row: row[1] > told, reversed(self._added.items()))]
        removed = [row[0] for row in takewhile(lambda row: row[1] > told, reversed(self._removed.items()))]
        return pb.Guarded(added=sorted(added), removed=sorted(removed))

    def _set(self, source: tuple[str, str], addresses: tuple[str, ...]) -> None:
        before = self._of.pop(source, ())
        if addresses:
            self._of[source] = addresses
        if before == addresses:
            return
        for address in addresses:
            self._count(address, 1)
        for address in before:
            self._count(address, -1)

    def _count(self, address: str, by: int) -> None:
        uses = self._uses.pop(address, 0)
        if uses + by:
            self._uses[address] = uses + by
        if bool(uses) == bool(uses + by):
            return
        self.number += 1
        gone, new = (self._added, self._removed) if by < 0 else (self._removed, self._added)
        gone.pop(address, None)
        new[address] = self.number
        while len(self._removed) > TOMBSTONES_MAX:
            self._forgotten = self._removed.pop(next(iter(self._removed)))


_KINDS: Final = ("status", "controllers")


def _addresses(document: Any) -> tuple[str, ...]:
    """Of a node's status or of a controller's document; None has none."""
    if document is None:
        return ()
    if hasattr(document, "info"):
        found: tuple[str, ...] = (document.info.address,)
    else:
        found = (host_port(document.api), document.dispatch)
    return tuple(dict.fromkeys(address for address in found if address))


def host_port(url: str) -> str:
    """`https://10.0.0.1:7443` as `10.0.0.1:7443`; IPv6 in brackets; empty when there is none in it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host and port else ""
