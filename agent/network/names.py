"""What the node knows of names: taken from the controller, kept over restarts, handed to the name server.

Rules: the newest state is written to a file a moment after a change, so that a restarted agent answers before it has
spoken to a controller. A network that was served and is no longer is forgotten; news of one that is yet to be served are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.network.dns import NameServer
from agent.plan.names import Client, EndpointsMessage, NetworkNames
from agent.plan.zone import Zone
from model import codec

log = logging.getLogger(__name__)
SAVE_AFTER_S: Final = 0.5


class NameBook:
    """`load`, then `take` messages and `serve` gateways in any order."""

    def __init__(self, file: Path, server: NameServer) -> None:
        self._file = file
        self._server = server
        self._known: dict[str, NetworkNames] = {}
        self._served: frozenset[str] = frozenset()
        self._clients: dict[str, Client] = {}
        self._saving: asyncio.TimerHandle | None = None

    def load(self) -> None:
        """What the last agent knew; nothing when there is no file or it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            saved = json.loads(self._file.read_text())
            self._known = {name: codec.from_plain(NetworkNames, row) for name, row in saved.items()}
        for name, names in self._known.items():
            self._server.zones.set(name, Zone(names))

    def take(self, message: EndpointsMessage) -> None:
        """Answers follow at once."""
        zone = Zone(self._known.get(message.network, NetworkNames()))
        zone.take(message)
        self._known[message.network] = zone.names()
        self._server.zones.set(message.network, zone)
        self._save_soon()

    def client(self, sandbox: str, client: Client | None) -> None:
        """Who may ask from which addresses, for one container of this node; None: it is gone."""
        if client is None:
            self._clients.pop(sandbox, None)
        else:
            self._clients[sandbox] = client

    async def serve(self, gateways: Mapping[str, str]) -> None:
        """Listen on these networks' gateways; forget the names of networks that were served until now."""
        for gone in sorted(self._served - gateways.keys()):
            self._known.pop(gone, None)
            self._server.zones.set(gone, None)
            self._save_soon()
        self._served = frozenset(gateways)
        await self._server.serve(gateways)

    async def close(self) -> None:
        await self._server.close()
        if self._saving is not None:
            self._saving.cancel()
            self._save()

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_AFTER_S, self._save)

    def _save(self) -> None:
        self._saving = None
        part = self._file.with_suffix(".part")
        try:
            part.write_text(json.dumps({name: codec.to_plain(names) for name, names in self._known.items()}))
            os.replace(part, self._file)
        except OSError as error:
            log.warning("names cannot be saved: %s", error.strerror)
