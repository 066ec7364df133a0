"""The store in etcd: the Store port over our own asynchronous client.

Rules: keys are UTF-8; a list is read in pages that all stand at one revision, and a page's size follows the size of what is
in it; a write is never repeated here once it may have been sent (the caller knows whether it is still wanted).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from grpc import aio

from controller.store.checks import check_key, check_txn, prefix_end
from controller.store.etcd_channel import EtcdChannel, EtcdTarget, Member
from controller.store.etcd_errors import Kind
from controller.store.etcd_watch import Follower
from model.store_port import (
    Delete,
    Entry,
    Guard,
    Listing,
    Op,
    Put,
    StoreCompacted,
    StoreLeaseLost,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
)
from protos import etcd_pb2 as pb

PAGE_KEYS_FIRST: Final = 128
PAGE_KEYS_MAX: Final = 4096
PAGE_BYTES: Final = 4_000_000
LIST_TRIES: Final = 3
_Keeping = aio.StreamStreamCall[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]


class EtcdStore:
    """Implements model.store_port.Store. Make it inside the running loop; end it with close()."""

    def __init__(self, target: EtcdTarget) -> None:
        self.channel = EtcdChannel(target)
        self._keeping: tuple[Member, _Keeping] | None = None
        """A stream of keepalives on which every question was answered."""

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        response = await self.channel.call(lambda member: member.kv.Range, pb.RangeRequest(key=key.encode()))
        return entry_of(response.kvs[0]) if response.kvs else None

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        check_key(prefix)
        for _ in range(LIST_TRIES):
            try:
                return await self._list(prefix, revision)
            except StoreCompacted as error:
                if revision:
                    raise StoreCompacted(error.revision or revision + 1) from None
        raise StoreUnavailable(f"etcd: {prefix} was compacted away {LIST_TRIES} times while it was listed: compact less often")

    async def _list(self, prefix: str, revision: int) -> Listing:
        start, end, limit = prefix.encode(), prefix_end(prefix.encode()), PAGE_KEYS_FIRST
        entries: list[Entry] = []
        while True:
            request = pb.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
            page = await self.channel.call(lambda member: member.kv.Range, request)
            revision = revision or page.header.revision
            entries.extend(entry_of(kv) for kv in page.kvs)
            if not page.more or not page.kvs:
                return Listing(revision, tuple(entries))
            start = page.kvs[-1].key + b"\0"
            limit = page_keys(len(page.kvs), page.ByteSize())

    async def txn(self, guards: Sequence[Guard], ops: Sequence[Op]) -> TxnResult:
        check_txn(guards, ops)
        response = await self.channel.call(lambda member: member.kv.Txn, txn_request(guards, ops), write=True)
        return TxnResult(response.succeeded, response.header.revision)

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        check_key(prefix)
        return Follower(self.channel, prefix, from_revision).batches()

    async def lease_grant(self, ttl_s: int) -> int:
        request = pb.LeaseGrantRequest(TTL=ttl_s)
        return (await self.channel.call(lambda member: member.lease.LeaseGrant, request, write=True)).ID

    async def lease_keepalive(self, lease: int) -> int:
        deadline = asyncio.get_running_loop().time() + self.channel.target.call_timeout_s
        last = "no attempt"
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            member = self.channel.current
            try:
                async with asyncio.timeout(min(left, self.channel.target.attempt_timeout_s)):
                    ttl_s = await self._keepalive(member, lease)
            except TimeoutError:
                last = f"{member.address}: no answer"
            except aio.AioRpcError as error:
                verdict = self.channel.judge(error, member)
                if verdict.error is not None:
                    raise verdict.error from error
                last = verdict.text
                if verdict.kind is Kind.LOGIN:
                    self.channel.forget_token(await self.channel.metadata(member))
            else:
                if ttl_s <= 0:
                    raise StoreLeaseLost(f"etcd {member.address}: lease {lease} is gone: ask for a new one")
                return ttl_s
            self.channel.leave(member)
            await asyncio.sleep(0.05)
        raise StoreUnavailable(f"etcd does not answer ({last}): is it running and reachable?")

    async def _keepalive(self, member: Member, lease: int) -> int:
        """On a stream that stays open: beginning one takes several rounds of a busy loop. One with a question that was not
        answered is dropped: a late answer must not pass for that of the next."""
        kept, self._keeping = self._keeping, None
        if kept is not None and kept[0] is not member:
            kept[1].cancel()
            kept = None
        call = kept[1] if kept is not None else member.lease.LeaseKeepAlive(metadata=await self.channel.metadata(member))
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            response = await call.read()
            if not isinstance(response, pb.LeaseKeepAliveResponse):
                raise TimeoutError
        except BaseException:
            call.cancel()
            raise
        self._let_go()
        self._keeping = (member, call)
        return response.TTL

    def _let_go(self) -> None:
        if self._keeping is not None:
            self._keeping[1].cancel()

    async def lease_revoke(self, lease: int) -> None:
        try:
            await self.channel.call(lambda member: member.lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=lease), write=True)
        except StoreLeaseLost:
            return

    async def close(self) -> None:
        self._let_go()
        await self.channel.close()


def page_keys(keys: int, size_bytes: int) -> int:
    """How many keys the next page may have, after a page of `keys` keys and `size_bytes` bytes."""
    return max(16, min(PAGE_KEYS_MAX, 4 * keys, PAGE_BYTES * keys // max(1, size_bytes)))


def entry_of(kv: pb.KeyValue) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version)


def txn_request(guards: Sequence[Guard], ops: Sequence[Op]) -> pb.TxnRequest:
    """The transaction on the wire: every guard compares mod_revision (0 for a key that does not exist)."""
    compares = [
        pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=guard.key.encode(), mod_revision=guard.mod_revision)
        for guard in guards
    ]
    return pb.TxnRequest(compare=compares, success=[_request(op) for op in ops])


def _request(op: Op) -> pb.RequestOp:
    if isinstance(op, Put):
        return pb.RequestOp(request_put=pb.PutRequest(key=op.key.encode(), value=op.value, lease=op.lease))
    if isinstance(op, Delete):
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=op.key.encode()))
    key = op.prefix.encode()
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=prefix_end(key)))
