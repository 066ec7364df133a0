"""What may be asked of a store, checked before anything is sent. Pure; the same for every implementation.

Rule: limits and order follow etcd's own (`checkPutRequest`, `checkIntervals` of its v3rpc), so that memory refuses what etcd
would refuse and nobody learns of a limit only in production.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.store_port import (
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    Delete,
    Guard,
    Op,
    Put,
    StoreInvalid,
    StoreTooLarge,
)


def check_key(key: str) -> None:
    """An empty key or prefix would mean "everything" on the wire: refuse it."""
    if not key:
        raise StoreInvalid("store: an empty key or prefix: name one")


def check_txn(guards: Sequence[Guard], ops: Sequence[Op]) -> None:
    """Raises StoreTooLarge or StoreInvalid."""
    if len(ops) > MAX_TXN_OPS or len(guards) > MAX_TXN_OPS:
        raise StoreTooLarge(
            f"store: a transaction of {len(ops)} operations and {len(guards)} guards; at most {MAX_TXN_OPS} of each: split it"
        )
    size = sum(len(guard.key) for guard in guards)
    puts: set[str] = set()
    for op in ops:
        key = op.prefix if not isinstance(op, Put | Delete) else op.key
        check_key(key)
        size += len(key)
        if isinstance(op, Put):
            size += len(op.value)
            if key in puts:
                raise StoreInvalid(f"store: {key} is put twice in one transaction")
            puts.add(key)
    if size > MAX_TXN_BYTES:
        raise StoreTooLarge(f"store: a transaction of {size} bytes; at most {MAX_TXN_BYTES}: split it")
    _check_deletes(ops, puts)


def _check_deletes(ops: Sequence[Op], puts: set[str]) -> None:
    for op in ops:
        if isinstance(op, Put):
            continue
        if isinstance(op, Delete):
            clash = [op.key] if op.key in puts else []
        else:
            clash = [key for key in puts if key.startswith(op.prefix)]
        if clash:
            raise StoreInvalid(f"store: {min(clash)} is put and deleted in one transaction")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after every key that starts with `prefix` (etcd's `range_end`)."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return b"\0"  # etcd: "to the end of the key space"
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
