"""The port between a session and whatever carries it to the controller: gRPC, or the simulation's wire."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from protos import node_pb2 as pb


class StreamBroken(Exception):
    """The stream cannot be opened, or is no more; the message says why."""


class ControllerStream(Protocol):
    """Messages arrive whole and in order, or the stream breaks: then both raise StreamBroken."""

    async def write(self, message: pb.FromNode) -> None:
        """Returns when there is room for more."""

    async def read(self) -> pb.ToNode | None:
        """The next message; None when the controller has closed the stream."""


Dial = Callable[[str], AbstractAsyncContextManager[ControllerStream]]
"""Opens a stream to `address`; leaving the context ends it."""
