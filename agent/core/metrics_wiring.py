"""The agent's metrics put together; nothing of it is loaded unless `--metrics` was said: it takes 5 MB."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.core.report import Reporter
from agent.core.runner import Runner
from agent.core.stream import Dial
from agent.plan.core import Core
from agent.settings import Settings
from model.documents import NodeInfo
from model.ports import Clock

if TYPE_CHECKING:
    from agent.core.metrics_images import WatchedImageStore
    from agent.images.peers import Peers
    from agent.images.records import RegistryConfig
    from agent.images.store import ImageStore


class Watch(Protocol):
    """What stands in for an agent's parts so that they are counted."""

    reporter: Reporter

    def dial(self, dial: Dial) -> Dial: ...

    def images(self, folder: Path, config: RegistryConfig, peers: Peers) -> ImageStore: ...

    async def serve(self, settings: Settings, info: NodeInfo, runner: Runner, stack: AsyncExitStack) -> NodeInfo:
        """Tell the metrics until the stack ends; what the node says of itself, with where. Raises Unavailable."""


def watching(settings: Settings, core: Core, clock: Clock) -> Watch | None:
    return _Watch(core, clock) if settings.metrics is not None else None


class _Watch:
    def __init__(self, core: Core, clock: Clock) -> None:
        from agent.core.metrics import AgentMetrics, WatchedReporter

        self._metrics, self._clock = AgentMetrics(), clock
        self.reporter: Reporter = WatchedReporter(self._metrics, lambda replica: core.lives.get(replica))
        self._store: WatchedImageStore | None = None

    def dial(self, dial: Dial) -> Dial:
        from agent.core.metrics import watched

        return watched(dial, self._metrics)

    def images(self, folder: Path, config: RegistryConfig, peers: Peers) -> ImageStore:
        from agent.core.metrics_images import WatchedImageStore

        self._store = WatchedImageStore(folder, config=config, metrics=self._metrics, clock=self._clock, peers=peers)
        return self._store

    async def serve(self, settings: Settings, info: NodeInfo, runner: Runner, stack: AsyncExitStack) -> NodeInfo:
        from agent.core.metrics_page import Page
        from agent.core.metrics_server import MetricsServer, is_loopback, tls_context

        assert settings.metrics is not None
        assert self._store is not None
        host, port = settings.metrics
        server = MetricsServer(Page(self._metrics, runner, info, self._store.stored_bytes).text, runner)
        loopback = is_loopback(host)
        found = await server.start(host, port, None if loopback else tls_context(settings.data_dir / "pki"))
        stack.push_async_callback(server.close)
        return info if loopback else replace(info, metrics=f"{info.underlay}:{found}")
