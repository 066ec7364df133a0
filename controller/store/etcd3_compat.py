"""The store through the `etcd3` package: the optional second client, for administration and as a check on our own client.

Rules: every call runs in a thread (the package is synchronous); its watch is never used (it does not resume after a cut and
spins in an outage), nor are leases: whoever needs those takes EtcdStore. A write is never repeated once it may have been sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from controller.store.checks import check_key, check_txn, prefix_end
from controller.store.etcd import entry_of, txn_request
from controller.store.etcd3_loader import load_etcd3
from controller.store.etcd_channel import EtcdTarget, address_of
from controller.store.etcd_errors import Kind, judge
from model.store_port import (
    Entry,
    Guard,
    Listing,
    Op,
    StoreCompacted,
    StoreError,
    StoreUnavailable,
    StoreUnknown,
    TxnResult,
    WatchBatch,
)

PAGE_KEYS: Final = 1000
LIST_TRIES: Final = 3
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """One member of an etcd cluster as the cluster lists it."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    version: str
    db_size_bytes: int
    leader: bool
    raft_term: int


class Etcd3Store:
    """Implements get, list and txn of model.store_port.Store, and administration: members, status, snapshot, defragment."""

    def __init__(self, target: EtcdTarget) -> None:
        self._etcd3 = load_etcd3()
        self._target = target
        self._clients: dict[str, Any] = {}
        self._at = 0

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        page = await self._call(partial(_page, self._etcd3, key.encode(), b"", 0))
        return entry_of(page.kvs[0]) if page.kvs else None

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
        start, end = prefix.encode(), prefix_end(prefix.encode())
        entries: list[Entry] = []
        while True:
            page = await self._call(partial(_page, self._etcd3, start, end, revision))
            revision = revision or page.header.revision
            entries.extend(entry_of(kv) for kv in page.kvs)
            if not page.more or not page.kvs:
                return Listing(revision, tuple(entries))
            start = page.kvs[-1].key + b"\0"

    async def txn(self, guards: Sequence[Guard], ops: Sequence[Op]) -> TxnResult:
        check_txn(guards, ops)
        # The same bytes on the wire, read back into etcd3's own class.
        request = self._etcd3.etcdrpc.TxnRequest.FromString(txn_request(guards, ops).SerializeToString())
        done = await self._call(lambda client: _unary(client, client.kvstub.Txn, request), write=True)
        return TxnResult(done.succeeded, done.header.revision)

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        raise StoreError("the etcd3 package's watch loses events over a cut: use EtcdStore to watch")

    async def lease_grant(self, ttl_s: int) -> int:
        raise StoreError("leases are not offered through the etcd3 package: use EtcdStore")

    async def lease_keepalive(self, lease: int) -> int:
        raise StoreError("leases are not offered through the etcd3 package: use EtcdStore")

    async def lease_revoke(self, lease: int) -> None:
        raise StoreError("leases are not offered through the etcd3 package: use EtcdStore")

    # ---- administration

    async def members(self) -> tuple[MemberInfo, ...]:
        found = await self._call(lambda client: tuple(client.members))
        return tuple(MemberInfo(one.id, one.name, tuple(one.peer_urls), tuple(one.client_urls)) for one in found)

    async def status(self) -> MemberStatus:
        """Of the member that answers."""
        one = await self._call(lambda client: client.status())
        return MemberStatus(one.version, one.db_size, one.leader is not None, one.raft_term)

    async def snapshot(self, file: Path) -> int:
        """Writes the whole database to `file` (mode 0600, it holds every document); its size in bytes.

        It must be done within the target's `call_timeout_s`: give a large database a target with a longer one.
        """

        def take(client: Any) -> int:
            part = file.with_name(file.name + ".part")
            part.touch(mode=0o600)
            with part.open("wb") as out:
                client.snapshot(out)
            part.replace(file)
            return file.stat().st_size

        return await self._call(take)

    async def defragment(self) -> None:
        """Of the member that answers. It stands still meanwhile."""
        await self._call(lambda client: client.defragment())

    async def close(self) -> None:
        for client in self._clients.values():
            await asyncio.to_thread(client.close)
        self._clients.clear()

    # ---- plumbing

    async def _call(self, work: Callable[[Any], Result], *, write: bool = False) -> Result:
        """`work` on each endpoint in turn, at most twice round."""
        last = "no attempt"
        for _ in range(2 * len(self._target.endpoints)):
            endpoint = self._target.endpoints[self._at]
            sent = False
            try:
                client = await asyncio.to_thread(self._client, endpoint)
                sent = True
                return await asyncio.to_thread(work, client)
            except Exception as error:
                cause = error if isinstance(error, grpc.RpcError) else error.__context__
                if not isinstance(cause, grpc.RpcError):
                    raise
                verdict = judge(cause.code().name, cause.details() or "", endpoint, has_login=bool(self._target.user))
                if verdict.error is not None:
                    raise verdict.error from error
                last = verdict.text
                if verdict.kind is Kind.UNKNOWN and write and sent:
                    raise StoreUnknown(f"etcd {last}: the write may or may not have happened: read again") from error
                await self._drop(endpoint)
        raise StoreUnavailable(f"etcd does not answer ({last}): is it running and reachable?")

    async def _drop(self, endpoint: str) -> None:
        """The client of `endpoint` failed, or its token is gone: the next call makes a new one, of the next endpoint."""
        client = self._clients.pop(endpoint, None)
        if client is not None:
            await asyncio.to_thread(client.close)
        self._at = (self._at + 1) % len(self._target.endpoints)

    def _client(self, endpoint: str) -> Any:
        if endpoint not in self._clients:
            target = self._target
            host, _, port = address_of(endpoint).rpartition(":")
            self._clients[endpoint] = self._etcd3.client(
                host=host,
                port=int(port),
                ca_cert=str(target.ca_file) if target.ca_file else None,
                cert_cert=str(target.cert_file) if target.cert_file else None,
                cert_key=str(target.key_file) if target.key_file else None,
                timeout=target.call_timeout_s,
                user=target.user or None,
                password=target.password or None,
                grpc_options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
            )
        return self._clients[endpoint]


def _unary(client: Any, method: Any, request: Any) -> Any:
    return method(request, client.timeout, credentials=client.call_credentials, metadata=client.metadata)


def _page(etcd3: Any, key: bytes, end: bytes, revision: int, client: Any) -> Any:
    request = etcd3.etcdrpc.RangeRequest(key=key, range_end=end, limit=PAGE_KEYS, revision=revision)
    return _unary(client, client.kvstub.Range, request)
