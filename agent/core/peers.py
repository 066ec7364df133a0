"""The other nodes as a source of blobs: the controller says who has what, the peer's agent is asked over mutual TLS.

Rules: asking never holds a pull up for long: without a session, or when the controller does not answer, the registry is next. A
peer that says next to nothing for `SILENCE_S` has failed; who can reach no peer asks the registry for a while. Who waits is
told to wait, and says every two seconds that he still does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import grpc
from grpc import aio

from agent.core.tls import NodePki
from agent.images.peers import Peer, PeerFailed, Want
from model.pki_names import node_server_name
from model.ports import Clock
from protos import node_pb2 as pb
from protos import node_pb2_grpc

log = logging.getLogger(__name__)

ANSWER_S: Final = 2.0
AGAIN_S: Final = 2.0
QUIET_S: Final = 6.0
"""Who was told to wait hears that again each time he asks; after so long without it the controller is away."""
SILENCE_S: Final = 5.0
PACE_BYTES: Final = 64 << 10
"""Who gives less in that time is as good as silent, and might be for ever."""
UNREACHED_MAX: Final = 3
ALONE_S: Final = 60.0
"""A node that reaches none of so many others in a row is walled off from them: for so long it asks registries only."""
MUTE_S: Final = 10.0
"""A controller that left one question without an answer is asked again after so long, or when it has said something."""
CHANNELS_MAX: Final = 8
"""That are kept for the next blob."""


class PeerBlobs:
    """See agent.images.peers.Peers. The session passes on `news` and gives `take` what it hears. `close()` it."""

    def __init__(self, pki: NodePki, clock: Clock, answer_s: float = ANSWER_S, silence_s: float = SILENCE_S) -> None:
        self._pki = pki
        self._clock = clock
        self.answer_s = answer_s
        self._silence_s = silence_s
        self._wants: dict[str, _Wanted] = {}
        self._turns: dict[str, _Turn] = {}
        self._outbox: list[pb.BlobWanted] = []
        self._moved = asyncio.Event()
        self.is_online = False
        self._channels: dict[Peer, tuple[aio.Channel, int]] = {}
        self._unreached: dict[str, None] = {}
        self._alone_until = self._mute_until = 0.0

    # the session

    async def news(self) -> AsyncGenerator[pb.BlobWanted]:
        """What the controller is to hear, for as long as a session is open."""
        self._outbox = []
        self.is_online, self._mute_until = True, 0.0
        again = self._clock.monotonic()
        try:
            while True:
                if self._clock.monotonic() >= again:
                    again = self._clock.monotonic() + AGAIN_S
                    self._outbox += [want.message() for want in self._wants.values() if want.is_open()]
                while self._outbox:
                    yield self._outbox.pop(0)
                self._moved.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if self._wants else None):
                        await self._moved.wait()
        finally:
            self._go_offline()

    def take(self, source: pb.BlobSource) -> None:
        self._mute_until = 0.0
        want = self._wants.get(source.digest)
        if want is not None:
            want.take(source)

    def say(self, message: pb.BlobWanted) -> None:
        if self.is_online:
            self._outbox.append(message)
            self._moved.set()

    def _go_offline(self) -> None:
        self.is_online = False
        for want in self._wants.values():
            want.heard.set()

    async def close(self) -> None:
        """Who waits goes on without peers."""
        self._go_offline()
        channels, self._channels = self._channels, {}
        for channel, _ in channels.values():
            await channel.close()

    # the store

    @asynccontextmanager
    async def want(self, digest: str, size_bytes: int) -> AsyncIterator[Want]:
        """One at a time for each blob: the next one finds it here, or asks for himself."""
        turn = self._turns.setdefault(digest, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                want = self._wants[digest] = _Wanted(self, digest, size_bytes)
                try:
                    yield want
                finally:
                    del self._wants[digest]
                    want.end()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[digest]

    async def read(self, peer: Peer, digest: str, offset: int) -> AsyncGenerator[bytes]:
        channel = self._borrow(peer)
        try:
            call = node_pb2_grpc.AgentStub(channel).Blob(pb.BlobRequest(digest=digest, offset=offset))
            left_s, owed = self._silence_s, PACE_BYTES
            try:
                while True:
                    begun = self._clock.monotonic()
                    async with asyncio.timeout(left_s):
                        chunk = await call.read()
                    self._unreached.clear()
                    if not isinstance(chunk, pb.Chunk):
                        return
                    owed -= len(chunk.data)
                    left_s -= self._clock.monotonic() - begun
                    if owed <= 0:
                        left_s, owed = self._silence_s, PACE_BYTES
                    yield chunk.data
            finally:
                call.cancel()
        except TimeoutError:
            self._not_reached(peer)
            raise PeerFailed(f"node {peer.node} says next to nothing for {self._silence_s:g} s") from None
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._not_reached(peer)
            raise PeerFailed(f"node {peer.node}: {error.code().name.lower()} {error.details() or ''}".strip()) from None
        finally:
            await self._give_back(peer)

    def _not_reached(self, peer: Peer) -> None:
        self._unreached[peer.node] = None
        if len(self._unreached) >= UNREACHED_MAX:
            names = ", ".join(self._unreached)
            log.warning("%s: none can be reached: images come from registries only for %g s", names, ALONE_S)
            self._unreached.clear()
            self._alone_until = self._clock.monotonic() + ALONE_S

    def asks(self) -> bool:
        """Whether others are asked now."""
        return self.is_online and self._clock.monotonic() >= max(self._alone_until, self._mute_until)

    def not_answered(self) -> None:
        self._mute_until = self._clock.monotonic() + MUTE_S

    def _borrow(self, peer: Peer) -> aio.Channel:
        channel, users = self._channels.pop(peer, (None, 0))
        if channel is None:
            options = (
                ("grpc.ssl_target_name_override", node_server_name(peer.node)),
                ("grpc.enable_http_proxy", 0),
                ("grpc.enable_retries", 0),
                ("grpc.max_receive_message_length", 8 << 20),
                ("grpc.http2.max_frame_size", 1 << 20),  # a sixth less work than with 16 kB
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            )
            channel = aio.secure_channel(peer.address, self._pki.client(), options=options)
        self._channels[peer] = (channel, users + 1)  # newest last
        return channel

    async def _give_back(self, peer: Peer) -> None:
        if peer not in self._channels:  # closed meanwhile
            return
        channel, users = self._channels[peer]
        self._channels[peer] = (channel, users - 1)
        idle = [each for each, (_, count) in self._channels.items() if not count]
        gone = [self._channels.pop(each)[0] for each in idle[: max(0, len(self._channels) - CHANNELS_MAX)]]
        for old in gone:  # nobody borrows them any more
            await old.close()


@dataclass(slots=True)
class _Turn:
    """`users`: who has it, and who waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class _Wanted:
    """See agent.images.peers.Want."""

    def __init__(self, own: PeerBlobs, digest: str, size_bytes: int) -> None:
        self._own = own
        self._digest = digest
        self._size_bytes = size_bytes
        self._phase = ""
        self._failed: list[str] = []
        self._answer: pb.BlobSource | None = None
        self.heard = asyncio.Event()

    def message(self) -> pb.BlobWanted:
        return pb.BlobWanted(digest=self._digest, size_bytes=self._size_bytes, phase=self._phase, failed=self._failed)

    def take(self, source: pb.BlobSource) -> None:
        if self._phase == "wanted" and source.node not in self._failed:
            if source.node or source.registry:
                self._answer = source
            self.heard.set()

    async def source(self, failed: Collection[str]) -> Peer | None:
        if not self._own.asks():
            self.end()
            return None
        self._failed, self._answer = list(failed), None
        self._say("wanted")
        patience_s = self._own.answer_s
        while self._own.asks():
            self.heard.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self.heard.wait()
            except TimeoutError:
                self._own.not_answered()
                break
            if self._is_told():
                return self._begin()
            patience_s = QUIET_S
        self._say("gave_up")
        return None

    def _is_told(self) -> bool:
        return self._answer is not None

    def _begin(self) -> Peer | None:
        assert self._answer is not None
        self._say("fetching")
        return None if self._answer.registry else Peer(self._answer.node, self._answer.address)

    def got(self) -> None:
        if self._phase != "got":
            self._say("got")

    def end(self) -> None:
        if self.is_open():
            self._say("gave_up")

    def is_open(self) -> bool:
        """The controller knows of it and counts on news."""
        return self._phase in ("wanted", "fetching")

    def _say(self, phase: str) -> None:
        self._phase = phase
        self._own.say(self.message())
