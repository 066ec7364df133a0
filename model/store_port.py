"""The Store port: documents under text keys, guarded transactions, ordered watches. What every store promises.

Rules (the contract tests in tests/contract/test_store_contract.py hold every implementation to them):
- One revision counter for the whole store. A transaction that changes something takes ONE new revision for all its changes;
  a transaction that changes nothing takes none.
- `get` and `list` are linearizable: they show every transaction that was acknowledged before they were called.
- A failed guard writes nothing and is no error: `TxnResult.ok` is False.
- StoreUnknown means "may have been written": read again. StoreUnavailable means "surely not written".
- A watch gives every change of its prefix from its first revision on, in order, each once, also over reconnects. It is still
  only a hint (etcd 3.4 has known lost events): whoever needs the truth compares with `list` now and then (the Mirror does).
- Leases are for the leader key only. Nothing infers a node's death from a lease.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from model.errors import StoreCompacted, StoreError, StoreFull, StoreUnavailable, StoreUnknown

__all__ = [
    "MAX_TXN_BYTES",
    "MAX_TXN_OPS",
    "Delete",
    "DeletePrefix",
    "Entry",
    "Event",
    "Guard",
    "Listing",
    "Op",
    "Put",
    "Store",
    "StoreCompacted",
    "StoreDenied",
    "StoreError",
    "StoreFull",
    "StoreInvalid",
    "StoreLeaseLost",
    "StoreTooLarge",
    "StoreUnavailable",
    "StoreUnknown",
    "TxnResult",
    "WatchBatch",
]

MAX_TXN_OPS: Final = 128
"""Most operations, and most guards, of one transaction (etcd's default `--max-txn-ops`)."""

MAX_TXN_BYTES: Final = 1_500_000
"""Most bytes of keys and values in one transaction; etcd's default `--max-request-bytes` is 1,572,864 with the framing."""


class StoreTooLarge(StoreError):
    """The transaction has too many operations or bytes. Nothing was written: split it."""

    status = 413
    code = "store_too_large"


class StoreInvalid(StoreError):
    """The transaction makes no sense (an empty key, one key written twice). Nothing was written."""

    status = 400
    code = "store_invalid"


class StoreDenied(StoreError):
    """The store does not take our certificate, user or password. Nothing was written."""

    status = 502
    code = "store_denied"


class StoreLeaseLost(StoreError):
    """The lease has expired or was revoked; every key that hung on it is gone."""

    code = "store_lease_lost"


@dataclass(frozen=True, slots=True)
class Entry:
    """One document as it stood at `mod_revision`. `version` counts its writes since it was created, from 1."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    version: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    prefix: str


Op: TypeAlias = Put | Delete | DeletePrefix


@dataclass(frozen=True, slots=True)
class Guard:
    """The transaction happens only if `key` was last changed at exactly `mod_revision`; 0: if it does not exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`ok` False: a guard failed and nothing was written. `revision` is the store's after the transaction."""

    ok: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Every entry of a prefix, sorted by key, as they all stood at `revision`."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. Of a delete only `key` and `mod_revision` (the revision that deleted it) mean something."""

    kind: Literal["put", "delete"]
    key: str
    value: bytes
    mod_revision: int
    create_revision: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in order. Every change of the prefix up to and with `revision` has now been given. No events: progress only."""

    revision: int
    events: tuple[Event, ...]


class Store(Protocol):
    """Every call raises StoreUnavailable when the store cannot be reached in time, StoreDenied when it refuses us."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Every entry under `prefix` at one revision: the newest, or the given one (StoreCompacted when it is gone)."""
        ...

    async def txn(self, guards: Sequence[Guard], ops: Sequence[Op]) -> TxnResult:
        """All of `ops` if every guard holds, else nothing.

        Raises StoreUnknown (may have happened), StoreUnavailable (did not), StoreFull, StoreTooLarge, StoreInvalid,
        StoreLeaseLost (a Put names a lease that is gone).
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Changes of `prefix` with mod_revision >= `from_revision` (0: from now on), for ever.

        Raises StoreCompacted when changes that were not given yet are compacted away, StoreDenied. An outage is no error:
        the watch goes on when the store is back. Close it (aclose) when it is not wanted any more.
        """
        ...

    async def lease_grant(self, ttl_s: int) -> int:
        """A new lease of `ttl_s` seconds; its id. After StoreUnknown a lease may exist: it runs out by itself."""
        ...

    async def lease_keepalive(self, lease: int) -> int:
        """Renews the lease; its new time to live in seconds. Raises StoreLeaseLost."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """Ends the lease and deletes its keys. A lease that is already gone is no error."""
        ...

    async def close(self) -> None: ...
