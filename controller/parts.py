"""What decides in a controller, put together: everything between the store and the servers.

Rules: no sockets, no files, no thread but the one for large decisions. The wiring makes one for a process, the simulation many.
"""

from __future__ import annotations

import contextlib
from asyncio import get_running_loop, timeout
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from controller.api.gone import GoneServices
from controller.decide.types import Settings
from controller.dispatch.floor import LATE_S
from controller.dispatch.server import Dispatch
from controller.election import LEADER_KEY, TTL_S, Election
from controller.lead import Leadership
from controller.loops.measuring import Measuring
from controller.loops.picture import Picture
from controller.prometheus.port import Prometheus
from controller.prometheus.queries import Queries
from controller.samples.store import MemorySamples
from controller.store.mirror import Mirror
from model import codec
from model.documents import PREFIX, LeaderDoc, NodeDoc, key
from model.errors import StoreError
from model.ports import Clock, Random
from model.store_port import Store

REFRESH_S: Final = 2.0


class Parts:
    """`close()` when nothing of it runs any more. `guarded`: addresses of the cluster's own that no document names.
    `prometheus_url`: who is asked for metrics that name no other."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        random: Random,
        settings: Settings,
        prometheus: Prometheus,
        guarded: Iterable[str] = (),
        late_s: float = LATE_S,
        prometheus_url: str = "",
    ) -> None:
        self.store, self.clock, self.random, self.settings = store, clock, random, settings
        self.picture = Picture(get_running_loop().call_soon)
        self.mirror = Mirror(
            store, PREFIX, clock, self.picture.from_mirror, keep_values=False, on_listed=self.picture.listed
        )
        self.picture.mirror_revision = lambda: self.mirror.revision
        self.samples = MemorySamples(clock)
        queries = Queries(prometheus, clock, prometheus_url, settings.scale_every_ms / 1000)
        self.measuring = Measuring(self.samples, queries)
        self.leadership = Leadership(
            store, self.picture, clock, settings, self.mirror.wait_for, _refresher(store, self.mirror),
            self.mirror.compared, self.samples, queries, self.measuring,
        )  # fmt: skip
        self.samples.woken = self.leadership.woken
        self.dispatch = Dispatch(
            self.picture, clock, heartbeat_s(settings.node_timeout_ms / 1000), _node_reader(store),
            self.leadership.node_facts_changed, self.leadership.say, guarded, late_s, self.samples,
        )  # fmt: skip
        self.leadership.dispatch = self.dispatch
        self.gone = GoneServices()
        self.picture.subscribe(self.gone.take)

    def election(self, me: LeaderDoc) -> Election:
        """`me`: how others reach this controller; run it with `leadership.lead`."""
        return Election(self.store, self.picture, self.clock, self.random, me, lease_s(self.settings.node_timeout_ms / 1000))

    def close(self) -> None:
        self.leadership.close()


def heartbeat_s(node_timeout_s: float) -> float:
    """How often a node says that it lives. A short timeout leaves less room for a late one, a long one is for many nodes."""
    return node_timeout_s / (6 if node_timeout_s <= 5 else 4)


def lease_s(node_timeout_s: float) -> int:
    """How long the leader may be silent. A controller with many thousand sessions has seconds in which it gets nothing else
    done, and losing the lead then costs far more than waiting: a long node timeout, which is for many nodes, lengthens it."""
    return max(TTL_S, int(node_timeout_s / 3))


def _node_reader(store: Store) -> Callable[[str], Awaitable[NodeDoc | None]]:
    async def read(name: str) -> NodeDoc | None:
        entry = await store.get(key("nodes", name))
        return None if entry is None else codec.decode(NodeDoc, entry.value)

    return read


def _refresher(store: Store, mirror: Mirror) -> Callable[[], Awaitable[None]]:
    async def refresh() -> None:
        """After an unknown outcome: until the mirror shows what the store says now. Guards catch what is later still."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with timeout(REFRESH_S):
                await mirror.wait_for((await store.list(LEADER_KEY)).revision)

    return refresh
