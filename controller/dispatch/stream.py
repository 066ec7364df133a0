"""The port between the dispatch and whatever carries an agent's session: gRPC, or the simulation's wire."""

from __future__ import annotations

from enum import Enum
from typing import NoReturn, Protocol

from controller.certificates import Peer
from protos import node_pb2 as pb


class Refusal(Enum):
    """Why a session is refused, for whoever counts and classifies."""

    BAD_MESSAGE = "bad message"
    NOT_AUTHENTICATED = "not authenticated"
    NOT_ALLOWED = "not allowed"
    UNAVAILABLE = "unavailable"


class NodeStream(Protocol):
    """One agent's side of a session. Messages arrive whole and in order, or the stream breaks."""

    async def identify(self) -> Peer | None:
        """Who this is by its certificate; None: it showed none, or one that cannot be read."""

    async def read(self) -> pb.FromNode | None:
        """The next message; None at the end."""

    async def write(self, message: pb.ToNode | bytes) -> None:
        """Returns when there is room for more. Bytes are an encoded ToNode."""

    async def refuse(self, why: Refusal, text: str) -> NoReturn:
        """Ends the session with the reason."""

    def where(self) -> str:
        """Where it comes from, for the log."""
