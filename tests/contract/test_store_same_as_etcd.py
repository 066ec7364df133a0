"""The store in memory does what etcd does: the same random transactions on both, every result, listing and event compared."""

from __future__ import annotations

import random
from contextlib import aclosing

import pytest

from controller.store.etcd import EtcdStore
from controller.store.memory import MemoryStore
from model.store_port import Delete, DeletePrefix, Event, Guard, Op, Put, Store, StoreInvalid, TxnResult
from tests.contract.etcd_harness import Cluster

pytestmark = pytest.mark.contract

KEYS = [f"/s/{folder}/{name}" for folder in "ab" for name in "123"]


def transaction(rng: random.Random, revision: int) -> tuple[list[Guard], list[Op]]:
    """Guards near the truth, operations that may clash."""
    guards = [Guard(rng.choice(KEYS), rng.choice([0, revision, revision - 1, revision - 2])) for _ in range(rng.randint(0, 1))]
    ops: list[Op] = []
    for _ in range(rng.randint(0, 4)):
        key = rng.choice(KEYS)
        choices: list[Op] = [Put(key, rng.randbytes(4)), Put(key, b""), Delete(key), DeletePrefix(key[:4])]
        ops.append(rng.choice(choices))
    return guards, ops


async def attempt(store: Store, guards: list[Guard], ops: list[Op]) -> TxnResult | str:
    try:
        return await store.txn(guards, ops)
    except StoreInvalid as error:
        return str(error)


async def events_since(store: Store, count: int) -> list[Event]:
    got: list[Event] = []
    async with aclosing(store.watch("/s/", 1)) as batches:
        async for batch in batches:
            got.extend(batch.events)
            if len(got) >= count:
                return got
    raise AssertionError


@pytest.mark.parametrize("seed", range(3))
async def test_the_same_transactions_have_the_same_results(seed: int) -> None:
    rng = random.Random(seed)
    memory = MemoryStore()
    with Cluster() as cluster:
        etcd = EtcdStore(cluster.target())
        done = 0
        for _ in range(300):
            at = (await memory.list("/s/")).revision
            guards, ops = transaction(rng, at)
            expected, result = await attempt(memory, guards, ops), await attempt(etcd, guards, ops)
            assert result == expected, (seed, guards, ops)
            done += isinstance(result, TxnResult) and result.ok
            assert await etcd.list("/s/") == await memory.list("/s/"), (seed, guards, ops)
            then = rng.randint(1, at)
            assert await etcd.list("/s/a/", revision=then) == await memory.list("/s/a/", revision=then)
        assert done > 50
        changes = len(memory._log)
        assert await events_since(etcd, changes) == await events_since(memory, changes)
        await etcd.close()
