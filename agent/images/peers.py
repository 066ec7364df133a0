"""The port to the other nodes that may have a blob: who is to be asked, and what he gives.

Rules: asynchronous, for one event loop. No byte of a peer is trusted: who reads compares digest and size.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class PeerFailed(Exception):
    """It did not deliver; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node, and where its agent listens."""

    node: str
    address: str


class Want(Protocol):
    """A blob this node lacks, for as long as it is being fetched; left without `got` it is given up."""

    async def source(self, failed: Collection[str]) -> Peer | None:
        """Who gives it now; None: the registry. Takes as long as others bring it. `failed`: nodes that did not deliver."""

    def got(self) -> None:
        """It is here, and can be given to others."""


class Peers(Protocol):
    def want(self, digest: str, size_bytes: int) -> AbstractAsyncContextManager[Want]:
        """`size_bytes` 0: not known, but small."""

    def read(self, peer: Peer, digest: str, offset: int) -> AsyncGenerator[bytes]:
        """What the peer keeps, from `offset` on. Raises PeerFailed, also when it says next to nothing for a while."""


class NoPeers:
    """Nobody to ask: everything comes from registries."""

    @asynccontextmanager
    async def want(self, digest: str, size_bytes: int) -> AsyncIterator[Want]:
        yield _Alone()

    async def read(self, peer: Peer, digest: str, offset: int) -> AsyncGenerator[bytes]:
        for piece in list[bytes]():
            yield piece
        raise PeerFailed("there are no peers")


class _Alone:
    async def source(self, failed: Collection[str]) -> Peer | None:
        return None

    def got(self) -> None:
        """Nobody wants to know."""
