"""What every handler of the API may use, and how it writes.

Rules: a write is read - change - guarded transaction, tried again when someone else was quicker; an unknown outcome is told to
the caller, who reads again. What was written is visible to the next read on this controller before the answer is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.requests import Request

from controller.agents import Agents
from controller.api.digests import Digests
from controller.api.gone import GoneServices
from controller.api.tally import Tally
from controller.certificates import Peer
from controller.decide.index import Index
from controller.decide.serving import ServingCounts
from controller.decide.types import Settings, View
from controller.dispatch.server import Dispatch
from controller.images_held import HeldImages
from controller.loops.measuring import Measuring
from controller.loops.picture import KINDS, Picture, Snapshot
from controller.loops.views import view_of
from controller.metrics import STORE_SECONDS
from controller.pki import Pki
from controller.samples.port import Samples
from controller.sealing import NoSeals, Seals
from model import codec
from model.documents import key
from model.errors import Conflict, StoreUnknown
from model.ports import Clock, Random
from model.store_port import Delete, Guard, Op, Put, Store

WRITE_TRIES: Final = 8
T = TypeVar("T")


class Changed(Conflict):
    """A guard failed: somebody else wrote in between."""


@dataclass(slots=True)
class Board:
    """The newest row of what is measured, as everybody gets it, and how many read it."""

    at_ms: int = 0
    event: bytes = b""
    readers: int = 0


@dataclass(slots=True)
class Api:
    """`shown(revision)` waits until the picture shows it."""

    store: Store
    picture: Picture
    shown: Callable[[int], Awaitable[None]]
    clock: Clock
    random: Random
    pki: Pki
    agents: Agents
    dispatch: Dispatch
    settings: Settings
    name: str
    api_address: str
    dispatch_address: str
    gone: GoneServices
    samples: Samples
    measuring: Measuring
    board: Board = field(default_factory=Board)
    index_cache: Index = field(default_factory=Index)
    serving: ServingCounts = field(default_factory=ServingCounts)
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    tally: Tally = field(default_factory=Tally)
    digests: Digests | None = None
    """Who says what an image's name stands for; None: nobody."""
    seals: Seals = field(default_factory=NoSeals)

    def snapshot(self) -> Snapshot:
        return self.picture.snapshot()

    def view(self) -> View:
        """Of now, for the event loop's thread only."""
        return view_of(self.snapshot(), self.index_cache)

    def held(self) -> HeldImages:
        """Who has which image; of the leader only, others know nothing."""
        return self.dispatch.images

    def now_ms(self) -> int:
        return int(self.clock.now() * 1000)

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        """One transaction; its revision. Raises Conflict when a guard fails, StoreError."""
        with STORE_SECONDS.labels("txn").time():
            result = await self.store.txn(guards, ops)
        if not result.ok:
            raise Changed("it changed meanwhile: look again and repeat")
        self.picture.from_own_puts(((op.key, op.value) for op in ops if isinstance(op, Put)), result.revision)
        if any(not isinstance(op, Put) for op in ops):
            await self.shown(result.revision)
        return result.revision

    async def read(self, kind: str, name: str) -> tuple[Any, int]:
        """The newest document (None: there is none) and its mod_revision, from the store itself."""
        entry = await self.store.get(key(kind, name))
        return (None, 0) if entry is None else (codec.decode(KINDS[kind], entry.value), entry.mod_revision)

    async def edit(self, kind: str, name: str, change: Callable[[Any], Any]) -> tuple[Any, Any, int]:
        """Writes `change(old)` (the same object: nothing to write; None: delete). Answers (old, new, revision).

        `change` raises NotFound when it is given None and needs something.
        """
        unknown = False
        for attempt in range(WRITE_TRIES):
            old, revision = await self.read(kind, name)
            if old is None and unknown:
                return None, None, revision  # the delete whose answer was lost had happened
            new = change(old)
            if new is old:
                return old, new, revision
            path = key(kind, name)
            op: Op = Delete(path) if new is None else Put(path, codec.encode(new))
            try:
                return old, new, await self.commit([Guard(path, revision)], [op])
            except Changed:
                pass
            except StoreUnknown:  # a change may be asked for twice: the second time it finds nothing to do
                unknown = new is None
            await asyncio.sleep(self.random.uniform(0.0, 0.01 * 2**attempt))
        raise Conflict(f"{kind} {name}: others change it all the time: try again")

    def index(self, kinds: Sequence[str]) -> int:
        """The newest revision at which one of the kinds changed; at least 1."""
        return max(1, *(self.picture.changed_at[kind] for kind in kinds))

    async def wait_after(self, kinds: Sequence[str], index: int, within_s: float) -> None:
        """Until one of the kinds has changed after `index`, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.index(kinds) <= index:
                    await self.picture.changed()


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `path` and `query` as text (query already checked), `body` parsed by the route's model."""

    request: Request
    peer: Peer | None
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None
