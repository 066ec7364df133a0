"""Counting the bytes of pulls and pushes in several threads, telling about them on the event loop, not too often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator

from agent.images.records import LayerPush, ProgressSink, PullProgress, PushProgress, PushSink, PushState

_EVERY_S = 0.1


class ProgressMeter:
    """`start` once, then `count` what is read and `layer_done` for each layer; `sink` is called on the loop."""

    def __init__(self, ref: str, sink: ProgressSink) -> None:
        self._ref = ref
        self._sink = sink
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._layers_total = self._layers_done = self._bytes_total = self._bytes_done = 0
        self._peers_layers = self._peers_bytes = 0
        self._told_at = 0.0

    def start(self, loop: asyncio.AbstractEventLoop, layers_total: int, layers_done: int, bytes_total: int) -> None:
        self._loop = loop
        self._layers_total, self._layers_done, self._bytes_total = layers_total, layers_done, bytes_total
        self._tell(force=True)

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            with self._lock:
                self._bytes_done += len(piece)
            self._tell(force=False)
            yield piece

    def add(self, size: int) -> None:
        """From a peer; less than 0: it was not good for anything."""
        with self._lock:
            self._bytes_done += size
            self._peers_bytes += size
        self._tell(force=False)

    def layer_done(self, *, from_peer: bool = False) -> None:
        with self._lock:
            self._layers_done += 1
            self._peers_layers += from_peer
        self._tell(force=True)

    def _tell(self, *, force: bool) -> None:
        now = time.monotonic()
        with self._lock:
            if self._loop is None or not (force or now - self._told_at >= _EVERY_S):
                return
            self._told_at = now
            report = PullProgress(
                self._ref, self._layers_done, self._layers_total, self._bytes_done, self._bytes_total, self._peers_layers,
                self._peers_bytes,
            )  # fmt: skip
        self._loop.call_soon_threadsafe(self._sink, report)


class PushMeter:
    """What each layer of a push has come to, from several threads; `sink` is called on the loop."""

    def __init__(self, ref: str, layers: Iterable[tuple[str, int]], sink: PushSink | None) -> None:
        self._ref = ref
        self._sink = sink
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._layers = {digest: LayerPush(digest, "waiting", 0, size) for digest, size in layers}
        self._told_at = 0.0

    def tell(self, digest: str, state: PushState, bytes_done: int | None = None) -> None:
        """`bytes_done` None: all of it."""
        with self._lock:
            known = self._layers.get(digest)
            if known is None or self._sink is None:
                return
            done = known.bytes_total if bytes_done is None else bytes_done
            self._layers[digest] = LayerPush(digest, state, done, known.bytes_total)
            now = time.monotonic()
            if bytes_done and now - self._told_at < _EVERY_S:
                return
            self._told_at = now
            report = PushProgress(self._ref, tuple(self._layers.values()))
        self._loop.call_soon_threadsafe(self._sink, report)
