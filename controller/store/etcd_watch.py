"""A watch that survives: it goes on from its own revision over cuts, restarts and members, in order, each change once.

Rules:
- The place to go on from moves only when a whole batch has been given: one cut off between two fragments is asked for again.
- Only a batch's own last change, or a progress notification, says how far we are. The header of a batch does not: etcd puts its
  newest revision there also while the watcher is still catching up.
- The revision we stand at being compacted is the caller's business (StoreCompacted); an outage is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from grpc import aio

from controller.store.checks import prefix_end
from controller.store.etcd_channel import EtcdChannel, Member, Metadata
from controller.store.etcd_errors import Kind
from model.store_port import Event, StoreCompacted, StoreDenied, StoreError, WatchBatch
from protos import etcd_pb2 as pb

PAUSE_S: Final = 0.05
PAUSE_S_MAX: Final = 1.0
LOGINS_MAX: Final = 3
TOKEN_REASONS: Final = ("permission denied", "auth token", "user name is empty")


class Canceled(Exception):
    """The server ended this watch; `reason` is its text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Assembler:
    """Puts responses together to whole batches. Pure. `next_revision`: the first change not given yet; 0: not known."""

    def __init__(self, next_revision: int) -> None:
        self.next_revision = next_revision
        self._parts: list[pb.Event] = []

    def restart(self) -> None:
        """The stream was cut: what came of an unfinished batch is dropped."""
        self._parts.clear()

    def feed(self, response: pb.WatchResponse) -> WatchBatch | None:
        """The batch that this response completes, if any. Raises StoreCompacted, Canceled."""
        if response.compact_revision:
            raise StoreCompacted(response.compact_revision)
        if response.canceled:
            raise Canceled(response.cancel_reason)
        if response.created:
            self.next_revision = self.next_revision or response.header.revision + 1
            return None
        self._parts.extend(response.events)
        if response.fragment:
            return None
        parts, self._parts = self._parts, []
        events = tuple(_event(part) for part in parts if part.kv.mod_revision >= self.next_revision)
        revision = parts[-1].kv.mod_revision if parts else response.header.revision
        if revision < self.next_revision:
            return None
        self.next_revision = revision + 1
        return WatchBatch(revision, events)


def _event(part: pb.Event) -> Event:
    kv = part.kv
    if part.type == pb.Event.DELETE:
        return Event("delete", kv.key.decode(), b"", kv.mod_revision)
    return Event("put", kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version)


_Call = aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]


class Follower:
    """One watch of one prefix."""

    def __init__(self, channel: EtcdChannel, prefix: str, from_revision: int) -> None:
        self._channel = channel
        self._key = prefix.encode()
        self._assembler = Assembler(from_revision)
        self._logins = 0
        self._pause_s = PAUSE_S

    async def batches(self) -> AsyncGenerator[WatchBatch, None]:
        """For ever; close it (aclose) or cancel its reader to end the watch."""
        while True:
            member = self._channel.current
            call: _Call | None = None
            metadata: Metadata = ()
            try:
                metadata = await self._channel.metadata(member)
                call = await self._open(member, metadata)
                while True:
                    batch = self._assembler.feed(await _read(call))
                    self._logins, self._pause_s = 0, PAUSE_S
                    if batch is not None:
                        yield batch
            except aio.AioRpcError as error:
                verdict = self._channel.judge(error, member)
                self._failed(member, metadata, verdict.kind is Kind.LOGIN, verdict.text, verdict.error)
            except Canceled as end:
                token = any(sign in end.reason for sign in TOKEN_REASONS)
                self._failed(member, metadata, token, f"{member.address}: {end.reason}", None)
            except TimeoutError:
                self._failed(member, metadata, False, f"{member.address}: no answer to a watch", None)
            finally:
                if call is not None:
                    call.cancel()
            self._assembler.restart()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(PAUSE_S_MAX, 2 * self._pause_s)

    async def _open(self, member: Member, metadata: Metadata) -> _Call:
        """Starts the watch and waits until the server says it stands."""
        call: _Call = member.watch.Watch(metadata=metadata)
        request = pb.WatchCreateRequest(
            key=self._key,
            range_end=prefix_end(self._key),
            start_revision=self._assembler.next_revision,
            progress_notify=True,
            fragment=True,
        )
        try:
            async with asyncio.timeout(self._channel.target.attempt_timeout_s):
                await call.write(pb.WatchRequest(create_request=request))
                self._assembler.feed(await _read(call))
        except BaseException:
            call.cancel()
            raise
        return call

    def _failed(self, member: Member, used: Metadata, token: bool, text: str, error: StoreError | None) -> None:
        """Decides whether to go on: returns to try again, raises when that is hopeless."""
        if isinstance(error, StoreDenied):
            raise error
        if token and self._channel.target.user:
            self._logins += 1
            if self._logins > LOGINS_MAX:
                raise StoreDenied(f"etcd {text}: the watch is still refused after logging in again")
            self._channel.forget_token(used)
        elif token:
            raise StoreDenied(f"etcd {text}: the watch is refused: configure a user and password with the right role")
        else:
            self._channel.leave(member)


async def _read(call: _Call) -> pb.WatchResponse:
    response = await call.read()
    if isinstance(response, pb.WatchResponse):
        return response
    raise Canceled("the server closed the stream")
