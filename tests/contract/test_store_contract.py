"""The promises of model/store_port.py, kept by every store: memory, our etcd client, the etcd3 package (get, list, txn),
and by the simulation's way to the one in memory."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from controller.store.etcd import EtcdStore
from controller.store.etcd3_compat import Etcd3Store
from controller.store.memory import MemoryStore
from model.store_port import (
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    Delete,
    DeletePrefix,
    Entry,
    Event,
    Guard,
    Op,
    Put,
    Store,
    StoreCompacted,
    StoreError,
    StoreInvalid,
    StoreLeaseLost,
    StoreTooLarge,
    TxnResult,
)
from protos import etcd_pb2 as pb
from sim.store import StoreSide
from tests.contract.etcd_harness import Cluster

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(tls=True) as made:
        yield made


class Nobody:
    """Of the process and the trace of a simulation what its store needs."""

    def __init__(self) -> None:
        self.on_death: list[Callable[[], None]] = []

    def add(self, kind: str, about: str, text: str = "") -> None:
        """Not kept."""


def simulated() -> StoreSide:
    loop = asyncio.get_running_loop()
    return StoreSide(MemoryStore(now=loop.time), "c1", Nobody(), loop, random.Random(1), Nobody())


async def _open(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    store: Store
    if kind == "memory":
        store = MemoryStore()
    elif kind == "sim":
        store = simulated()
    else:
        target = request.getfixturevalue("cluster").target()
        store = EtcdStore(target) if kind == "etcd" else Etcd3Store(target)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["memory", "sim", "etcd", "etcd3"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async for made in _open(request.param, request):
        yield made


@pytest.fixture(params=["memory", "sim", "etcd"])
async def whole_store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store that also watches and leases."""
    async for made in _open(request.param, request):
        yield made


@pytest.fixture
def at() -> str:
    """A prefix of this test's own."""
    return f"/t/{uuid.uuid4().hex}/"


async def put(store: Store, key: str, value: bytes) -> int:
    done = await store.txn([], [Put(key, value)])
    assert done.ok
    return done.revision


async def test_get_of_a_missing_key_is_none(store: Store, at: str) -> None:
    assert await store.get(at + "none") is None


async def test_put_then_get_shows_value_revisions_and_version(store: Store, at: str) -> None:
    first = await put(store, at + "a", b"one")
    second = await put(store, at + "a", b"\x00\xff")
    assert second > first
    assert await store.get(at + "a") == Entry(at + "a", b"\x00\xff", second, first, 2)


async def test_one_transaction_takes_one_revision_for_all_its_changes(store: Store, at: str) -> None:
    before = await put(store, at + "gone", b"x")
    done = await store.txn([], [Put(at + "a", b"1"), Put(at + "b", b"2"), Delete(at + "gone")])
    assert done == TxnResult(True, before + 1)
    listing = await store.list(at)
    assert listing.revision == before + 1
    assert [(entry.key, entry.mod_revision) for entry in listing.entries] == [(at + "a", before + 1), (at + "b", before + 1)]


async def test_a_transaction_that_changes_nothing_takes_no_revision(store: Store, at: str) -> None:
    before = await put(store, at + "a", b"1")
    assert await store.txn([], [Delete(at + "none"), DeletePrefix(at + "no/")]) == TxnResult(True, before)
    assert await store.txn([Guard(at + "a", before)], []) == TxnResult(True, before)


async def test_a_failed_guard_writes_nothing(store: Store, at: str) -> None:
    revision = await put(store, at + "a", b"1")
    for guard in (Guard(at + "a", revision - 1), Guard(at + "a", 0), Guard(at + "none", revision)):
        done = await store.txn([Guard(at + "none", 0), guard], [Put(at + "b", b"x"), DeletePrefix(at + "a")])
        assert done == TxnResult(False, revision)
    assert [entry.key for entry in (await store.list(at)).entries] == [at + "a"]


async def test_a_guard_of_zero_means_must_not_exist(store: Store, at: str) -> None:
    assert (await store.txn([Guard(at + "a", 0)], [Put(at + "a", b"1")])).ok
    assert not (await store.txn([Guard(at + "a", 0)], [Put(at + "a", b"2")])).ok
    await store.txn([], [Delete(at + "a")])
    assert (await store.txn([Guard(at + "a", 0)], [Put(at + "a", b"3")])).ok


async def test_repeating_a_guarded_write_writes_it_once(store: Store, at: str) -> None:
    ops = [Put(at + "a", b"1")]
    results = [await store.txn([Guard(at + "a", 0)], ops) for _ in range(3)]
    assert [result.ok for result in results] == [True, False, False]
    entry = await store.get(at + "a")
    assert entry is not None
    assert entry.version == 1


async def test_of_concurrent_guarded_writers_each_round_has_one_winner(store: Store, at: str) -> None:
    revision = 0
    for _ in range(5):
        tries = [store.txn([Guard(at + "k", revision)], [Put(at + "k", bytes([n]))]) for n in range(4)]
        results = await asyncio.gather(*tries)
        assert sum(result.ok for result in results) == 1
        revision = max(result.revision for result in results)
    entry = await store.get(at + "k")
    assert entry is not None
    assert (entry.version, entry.mod_revision) == (5, revision)


async def test_a_list_is_sorted_and_holds_only_its_prefix(store: Store, at: str) -> None:
    await store.txn([], [Put(at + key, key.encode()) for key in ("b", "a/2", "a/1", "a", "c", "a0", "ä")])
    assert [entry.key[len(at) :] for entry in (await store.list(at + "a/")).entries] == ["a/1", "a/2"]
    assert [entry.key[len(at) :] for entry in (await store.list(at)).entries] == ["a", "a/1", "a/2", "a0", "b", "c", "ä"]
    assert (await store.list(at + "zzz")).entries == ()


async def test_a_list_of_many_pages_stands_at_one_revision(store: Store, at: str) -> None:
    for start in range(0, 3000, 100):
        await store.txn([], [Put(f"{at}{n:05}", b"v" * 100) for n in range(start, start + 100)])
    writing = True
    both_ends: list[Op] = [Put(f"{at}{n:05}", b"new") for n in (0, 2999)]
    await store.txn([], both_ends)

    async def churn() -> None:
        while writing:
            await store.txn([], both_ends)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as both:
        both.create_task(churn())
        for _ in range(5):
            listing = await store.list(at)
            assert [entry.key for entry in listing.entries] == [f"{at}{n:05}" for n in range(3000)]
            assert listing.entries[0].mod_revision == listing.entries[2999].mod_revision <= listing.revision
            await asyncio.sleep(0)
        writing = False


async def test_a_list_of_an_old_revision_shows_what_stood_then(store: Store, at: str) -> None:
    await put(store, at + "b", b"1")
    then = await put(store, at + "a", b"1")
    await store.txn([], [Put(at + "a", b"2"), Delete(at + "b"), Put(at + "c", b"2")])
    await put(store, at + "b", b"3")
    old = await store.list(at, revision=then)
    assert (old.revision, [(entry.key, entry.value) for entry in old.entries]) == (then, [(at + "a", b"1"), (at + "b", b"1")])
    with pytest.raises(StoreError):
        await store.list(at, revision=then + 1000)


async def test_delete_prefix_deletes_all_under_it(store: Store, at: str) -> None:
    await store.txn([], [Put(at + key, b"") for key in ("x/1", "x/2", "xy", "y/1")])
    await store.txn([], [DeletePrefix(at + "x/"), Put(at + "z", b"")])
    assert [entry.key[len(at) :] for entry in (await store.list(at)).entries] == ["xy", "y/1", "z"]


async def test_a_transaction_of_the_allowed_size_passes_and_a_larger_one_is_refused(store: Store, at: str) -> None:
    assert (await store.txn([], [Put(f"{at}{n}", b"") for n in range(MAX_TXN_OPS)])).ok
    guards = [Guard(f"{at}no/{n}", 0) for n in range(MAX_TXN_OPS)]
    assert (await store.txn(guards, [Put(at + "big", b"x" * (MAX_TXN_BYTES - 20_000))])).ok
    for many in ([Put(f"{at}{n}", b"") for n in range(MAX_TXN_OPS + 1)], [Put(at + "big", b"x" * MAX_TXN_BYTES)]):
        with pytest.raises(StoreTooLarge, match="split"):
            await store.txn([], many)


async def test_a_senseless_transaction_is_refused(store: Store, at: str) -> None:
    senseless: list[list[Op]] = [
        [Put(at + "a", b"1"), Put(at + "a", b"2")],
        [Put(at + "a", b"1"), Delete(at + "a")],
        [DeletePrefix(at), Put(at + "a", b"1")],
        [Put("", b"")],
        [DeletePrefix("")],
    ]
    for ops in senseless:
        with pytest.raises(StoreInvalid):
            await store.txn([], ops)
    assert (await store.list(at)).entries == ()


async def test_a_watch_gives_every_change_from_its_revision_in_order(whole_store: Store, at: str) -> None:
    await put(whole_store, at + "before", b"")
    first = await put(whole_store, at + "a", b"1")
    second = (await whole_store.txn([], [Put(at + "a", b"2"), Put(at + "b", b"2")])).revision
    watch = whole_store.watch(at, first)
    got: list[Event] = []
    async for batch in watch:
        got.extend(batch.events)
        if batch.events:
            assert batch.revision >= batch.events[-1].mod_revision
        if len(got) == 3:
            third = (await whole_store.txn([], [Delete(at + "a"), Put(at + "b", b"3")])).revision
            await put(whole_store, "/elsewhere" + at, b"")
        if len(got) == 5:
            break
    assert got == [
        Event("put", at + "a", b"1", first, first, 1),
        Event("put", at + "a", b"2", second, first, 2),
        Event("put", at + "b", b"2", second, second, 1),
        Event("delete", at + "a", b"", third),
        Event("put", at + "b", b"3", third, second, 2),
    ]


async def test_two_watches_do_not_disturb_each_other(whole_store: Store, at: str) -> None:
    start = (await whole_store.list(at)).revision + 1

    async def first_three(prefix: str) -> list[str]:
        keys: list[str] = []
        async for batch in whole_store.watch(prefix, start):
            keys.extend(event.key for event in batch.events)
            if len(keys) >= 3:
                return keys
        raise AssertionError

    async with asyncio.TaskGroup() as group:
        left = group.create_task(first_three(at + "l/"))
        right = group.create_task(first_three(at + "r/"))
        for n in range(3):
            await put(whole_store, f"{at}l/{n}", b"")
            await put(whole_store, f"{at}r/{n}", b"")
    assert left.result() == [f"{at}l/{n}" for n in range(3)]
    assert right.result() == [f"{at}r/{n}" for n in range(3)]


async def compact(store: Store, revision: int) -> None:
    if isinstance(store, MemoryStore | StoreSide):
        (store.shared if isinstance(store, StoreSide) else store).compact(revision)
    else:
        assert isinstance(store, EtcdStore)
        request = pb.CompactionRequest(revision=revision, physical=True)
        await store.channel.call(lambda member: member.kv.Compact, request)


async def test_a_watch_and_a_list_of_compacted_revisions_say_so(whole_store: Store, at: str) -> None:
    old = await put(whole_store, at + "a", b"1")
    new = [await put(whole_store, at + "a", bytes([n])) for n in range(5)]
    await compact(whole_store, new[-1])
    with pytest.raises(StoreCompacted) as caught:
        await anext(whole_store.watch(at, old))
    assert caught.value.revision == new[-1]
    with pytest.raises(StoreCompacted):
        await whole_store.list(at, revision=old)
    async for batch in whole_store.watch(at, new[-1]):
        assert [event.value for event in batch.events] == [b"\x04"]
        break


async def test_keys_on_a_lease_go_with_it(whole_store: Store, at: str) -> None:
    lease = await whole_store.lease_grant(60)
    assert 0 < await whole_store.lease_keepalive(lease) <= 60
    start = (await whole_store.txn([], [Put(at + "leader", b"me", lease), Put(at + "other", b"")])).revision
    await whole_store.lease_revoke(lease)
    await whole_store.lease_revoke(lease)
    assert [entry.key for entry in (await whole_store.list(at)).entries] == [at + "other"]
    async for batch in whole_store.watch(at, start + 1):
        assert [(event.kind, event.key) for event in batch.events] == [("delete", at + "leader")]
        break
    with pytest.raises(StoreLeaseLost):
        await whole_store.lease_keepalive(lease)
    with pytest.raises(StoreLeaseLost):
        await whole_store.txn([], [Put(at + "leader", b"me", lease)])


async def test_a_key_put_again_without_its_lease_stays(whole_store: Store, at: str) -> None:
    lease = await whole_store.lease_grant(60)
    await whole_store.txn([], [Put(at + "k", b"1", lease)])
    await whole_store.txn([], [Put(at + "k", b"2")])
    await whole_store.lease_revoke(lease)
    entry = await whole_store.get(at + "k")
    assert entry is not None
    assert entry.value == b"2"
