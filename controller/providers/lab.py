"""The lab this controller stands in makes machines: asked over the socket of its helper on the host.

Rules: one request and one answer a connection, a line of JSON each. The controller is in namespaces of its own and could not
make a machine; the helper (lab/helper.py) does what `shoal lab add-node` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

from controller.decide.machines.types import Listed
from controller.providers import wire
from controller.providers.port import Join, Order, ProviderError

LINE_MAX: Final = 1 << 20
NO_LAB: Final = "provider lab: this controller is in no lab: use exec or ssh"


class LabProvider:
    """Implements Provider. `socket`: the helper's; empty: this controller is in no lab."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def missing(self) -> tuple[str, ...]:
        return () if self._socket else (NO_LAB,)

    async def create(self, order: Order, join: Join) -> str:
        return wire.made("lab", await self._ask(wire.told("create", order, join)))

    async def delete(self, order: Order) -> None:
        await self._ask(wire.told("delete", order))

    async def list(self, cluster: str, group: str) -> tuple[Listed, ...]:
        return wire.listed("lab", await self._ask(wire.told_list(cluster, group)))

    async def _ask(self, line: bytes) -> bytes:
        if not self._socket:
            raise ProviderError(NO_LAB, begun=False)
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=LINE_MAX)
        except OSError as error:
            raise ProviderError(f"the lab's helper cannot be reached at {self._socket}: {error.strerror or error}") from None
        try:
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
        except (OSError, ValueError) as error:
            raise ProviderError(f"the lab's helper broke off: {error}") from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return _checked(answer)


def _checked(answer: bytes) -> bytes:
    """What it answered, unless that is an error."""
    with contextlib.suppress(ValueError):
        found = json.loads(answer)
        if isinstance(found, dict) and "error" in found:
            raise ProviderError(f"lab: {found['error']}")
        return answer
    raise ProviderError("the lab's helper broke off: see helper.log of the lab")
