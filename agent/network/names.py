"""What the node knows of names: taken from the controller, kept over restarts, handed to the name server.

Rules: answers follow in the same turn of the loop. The newest state is written to a file a moment after a change, so that a
restarted agent answers before it has spoken to a controller; in a thread, and the more there is to write, the seldomer. A
network that was served and is no longer is forgotten; news of one that is yet to be served are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from agent.network.dns import NameServer
from agent.plan.names import Client, EndpointsMessage, NetworkNames, ServiceNames
from agent.plan.network import LOCAL_BRIDGE
from agent.plan.zone import Zone
from model import codec

log = logging.getLogger(__name__)
SAVE_AFTER_S: Final = 0.5
SAVE_AFTER_MAX_S: Final = 5.0
SAVE_SHARE: Final = 10
"""Saving takes at most one part in so many of the time."""
NAMELESS: Final = ("ingress", LOCAL_BRIDGE)
"""Networks whose names nobody gets: published ports are not names, and the node's own bridge has addresses only."""

_Saved = dict[str, tuple[str, dict[str, ServiceNames]]]
"""Network -> (prefix6, services by id)"""


class NameBook:
    """`load`, then `take` messages, tell of `client`s and `serve` gateways in any order."""

    def __init__(self, file: Path, server: NameServer) -> None:
        self._file = file
        self.server = server
        self._zones: dict[str, Zone] = {}
        self._served: frozenset[str] = frozenset()
        self._loaded: set[str] = set()
        self._saver = _Saver(file)
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._again = False

    def load(self) -> None:
        """What the last agent knew; nothing when there is no file or it cannot be read."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            saved = json.loads(self._file.read_text())
            self._zones = {name: Zone(codec.from_plain(NetworkNames, row)) for name, row in saved.items()}
        self._loaded = set(self._zones)
        for name, zone in self._zones.items():
            self.server.zones.set(name, zone)

    def take(self, message: EndpointsMessage) -> None:
        """Answers follow at once."""
        if message.network in NAMELESS:
            return
        self._loaded.discard(message.network)
        zone = self._zones.get(message.network)
        if zone is None:
            zone = self._zones[message.network] = Zone()
            self.server.zones.set(message.network, zone)
        if zone.take(message):
            self.server.zones.changed()
            self._save_soon()

    def client(self, sandbox: str, client: Client | None) -> None:
        """Who may ask from which addresses, for one container of this node; None: it is gone."""
        self.server.zones.client(sandbox, client)

    async def serve(self, gateways: Mapping[str, str], internal: Collection[str] = ()) -> None:
        """Listen on these networks' gateways; forget the names of networks that were served until now, by this agent or the
        last one. `internal`: those of them that have no way out."""
        gone_ones, self._loaded = (self._served | self._loaded) - gateways.keys(), set()
        for gone in sorted(gone_ones):
            self._zones.pop(gone, None)
            self.server.zones.set(gone, None)
            self._save_soon()
        self._served = frozenset(gateways)
        self.server.zones.internal(internal)
        await self.server.serve(gateways)

    async def close(self) -> None:
        await self.server.close()
        if self._saving is not None:
            await self._saving
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.to_thread(self._saver.save, self._state())

    def _save_soon(self) -> None:
        if self._saving is not None:
            self._again = True
        elif self._timer is None:
            wait_s = min(SAVE_AFTER_MAX_S, max(SAVE_AFTER_S, SAVE_SHARE * self._saver.last_s))
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin_save)

    def _begin_save(self) -> None:
        self._timer = None
        self._saving = asyncio.ensure_future(asyncio.to_thread(self._saver.save, self._state()))
        self._saving.add_done_callback(self._saved)

    def _saved(self, _: asyncio.Task[None]) -> None:
        self._saving = None
        if self._again:
            self._again = False
            self._save_soon()

    def _state(self) -> _Saved:
        return {name: (zone.prefix6, dict(zone.services)) for name, zone in self._zones.items()}


class _Saver:
    """Writes the file; only services that changed since the last time are put into words anew. Not for two threads at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._texts: dict[str, dict[str, tuple[ServiceNames, str]]] = {}
        self.last_s = 0.0

    def save(self, state: _Saved) -> None:
        begin = time.monotonic()
        part = self._file.with_suffix(".part")
        try:
            part.write_text(self._text(state))
            os.replace(part, self._file)
        except OSError as error:
            log.warning("names cannot be saved: %s", error.strerror)
        self.last_s = time.monotonic() - begin

    def _text(self, state: _Saved) -> str:
        """What `codec` would make of each network's NetworkNames."""
        before, self._texts = self._texts, {}
        networks = []
        for network, (prefix6, services) in state.items():
            known, texts = before.get(network, {}), self._texts.setdefault(network, {})
            for key, service in services.items():
                row = known.get(key)
                texts[key] = row if row is not None and row[0] is service else (service, codec.encode(service).decode())
            rows = ",".join(texts[key][1] for key in sorted(texts))
            networks.append(f'{json.dumps(network)}:{{"services":[{rows}],"prefix6":{json.dumps(prefix6)}}}')
        return "{" + ",".join(networks) + "}"
