"""The node's image store, counted: what was asked of it, what came from registries, what was there."""

from __future__ import annotations

from pathlib import Path

from agent.core.metrics import AgentMetrics
from agent.images.peers import Peers
from agent.images.records import Credentials, Image, ProgressSink, PullPolicy, PullProgress, RegistryConfig
from agent.images.store import ImageStore
from model.ports import Clock


class WatchedImageStore(ImageStore):
    """Two pulls of one reference at a time are one, and are counted as one fetch."""

    def __init__(
        self, root: Path, *, config: RegistryConfig, metrics: AgentMetrics, clock: Clock, peers: Peers | None = None
    ) -> None:
        super().__init__(root, config=config, peers=peers)
        self._metrics, self._clock = metrics, clock
        self._fetching: set[str] = set()

    def stored_bytes(self) -> int:
        """Of all layers."""
        return self._layers.size_bytes(self._layers.known())

    async def pull(
        self,
        ref: str,
        *,
        digest: str = "",
        auth: Credentials | None = None,
        progress: ProgressSink | None = None,
        policy: PullPolicy = "missing",
    ) -> Image:
        key = f"{ref} {digest}"
        if key in self._fetching or self._is_present(ref, digest, policy):
            image = await super().pull(ref, digest=digest, auth=auth, progress=progress, policy=policy)
            self._metrics.pulls.labels("present").inc()
            return image
        self._fetching.add(key)
        try:
            return await self._fetch(ref, digest, auth, progress, policy)
        finally:
            self._fetching.discard(key)

    async def _fetch(
        self, ref: str, digest: str, auth: Credentials | None, progress: ProgressSink | None, policy: PullPolicy
    ) -> Image:
        reports: list[PullProgress] = []

        def told(report: PullProgress) -> None:
            reports[1:] = [report]  # the first says what was there before
            if progress is not None:
                progress(report)

        started = self._clock.monotonic()
        try:
            image = await super().pull(ref, digest=digest, auth=auth, progress=told, policy=policy)
        except BaseException:
            self._metrics.pulls.labels("failed").inc()
            raise
        finally:
            if reports:
                self._metrics.fetched_bytes.inc(reports[-1].bytes_done - reports[-1].bytes_of_peers)
                self._metrics.peers_bytes.inc(reports[-1].bytes_of_peers)
        self._metrics.pulls.labels("fetched").inc()
        self._metrics.pull_seconds.observe(self._clock.monotonic() - started)
        there, total = (reports[0].layers_done, reports[0].layers_total) if reports else (len(image.layers), len(image.layers))
        self._metrics.layers.labels("cache").inc(there)
        of_peers = reports[-1].layers_of_peers if reports else 0
        self._metrics.layers.labels("peer").inc(of_peers)
        self._metrics.layers.labels("registry").inc(total - there - of_peers)
        return image
