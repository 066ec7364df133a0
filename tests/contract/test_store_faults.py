"""What etcd and the network do to our client, for real: leader kill, cuts, compaction, no space, lost answers, old tokens."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest

from controller.store.etcd import EtcdStore
from controller.store.etcd_admin import EtcdAdmin
from controller.store.etcd_channel import EtcdTarget
from controller.store.maintenance import Maintenance, relief
from controller.store.mirror import Mirror
from model.store_port import (
    DeletePrefix,
    Entry,
    Event,
    Guard,
    Op,
    Put,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
    StoreUnknown,
)
from protos import etcd_pb2 as pb
from tests.contract.etcd_harness import Cluster, Proxy, eventually, free_port, proxied, target_of

pytestmark = pytest.mark.contract


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@asynccontextmanager
async def opened(target: EtcdTarget) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(target)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def single() -> Iterator[Cluster]:
    with Cluster() as made:
        yield made


async def collect(store: EtcdStore, prefix: str, start: int, into: list[Event]) -> None:
    async with aclosing(store.watch(prefix, start)) as batches:
        async for batch in batches:
            into.extend(batch.events)


@asynccontextmanager
async def watched(store: EtcdStore, prefix: str, start: int) -> AsyncIterator[list[Event]]:
    """The changes of `prefix` since `start`, growing."""
    events: list[Event] = []
    task = asyncio.create_task(collect(store, prefix, start, events))
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write_chain(store: EtcdStore, key: str, count: int) -> int:
    """Writes 0, 1, ... to `key`, each guarded by the one before and repeated until it stands; how many were UNKNOWN."""
    revision = unknown = 0
    for number in range(count):
        while True:
            try:
                done = await store.txn([Guard(key, revision)], [Put(key, b"%d" % number)])
                if done.ok:
                    revision = done.revision
                    break
            except StoreUnknown:
                unknown += 1
            except StoreUnavailable:
                continue
            entry = await read_through(store, key)
            if entry is not None and entry.value == b"%d" % number:
                revision = entry.mod_revision
                break
            assert (entry.mod_revision if entry else 0) == revision, "somebody else wrote"
    return unknown


async def read_through(store: EtcdStore, key: str) -> Entry | None:
    while True:
        try:
            return await store.get(key)
        except StoreUnavailable:
            continue


async def test_leader_kills_under_guarded_writes_and_a_watch_lose_and_double_nothing() -> None:
    with Cluster(3) as cluster:
        async with opened(cluster.target()) as writer, opened(cluster.target()) as reader:
            chain = asyncio.create_task(write_chain(writer, "/chain", 600))
            async with watched(reader, "/chain", 1) as events:
                for mark in (100, 300):
                    await eventually(lambda mark=mark: len(events) > mark, "writes go on")  # type: ignore[misc]
                    leader = await asyncio.to_thread(cluster.leader)
                    leader.kill()
                    seen = len(events)
                    await eventually(lambda seen=seen: len(events) > seen + 20, "writes go on without the old leader")  # type: ignore[misc]
                    cluster.restart(leader)
                await asyncio.wait_for(chain, 60)
                await eventually(lambda: len(events) >= 600, "the watch has had everything")
            assert [event.value for event in events] == [b"%d" % n for n in range(600)]
            assert [event.version for event in events] == list(range(1, 601))


async def eventually_read(store: EtcdStore) -> None:
    """Waits until the first member of the store's cluster answers, and makes it the one in use."""
    first = store.channel.members[0]
    request = pb.RangeRequest(key=b"k")
    while True:
        try:
            await store.channel.call(lambda at: at.kv.Range, request, member=first)
            break
        except StoreUnavailable:
            continue
    while store.channel.current is not first:
        store.channel.leave(store.channel.current)


async def test_a_member_that_hangs_costs_a_read_one_attempt_and_a_write_is_unknown() -> None:
    with Cluster(3) as cluster:
        follower = next(member for member in cluster.members if member is not cluster.leader())
        others = [member for member in cluster.members if member is not follower]
        async with opened(cluster.target(follower, *others, attempt_timeout_s=0.5)) as store:
            await store.txn([], [Put("/k", b"1")])
            follower.kill(signal.SIGSTOP)
            began = time.monotonic()
            entry = await store.get("/k")
            assert entry is not None
            assert time.monotonic() - began < 2
            assert (await store.txn([], [Put("/k", b"2")])).ok
        async with opened(cluster.target(follower, *others)) as fresh:
            assert (await fresh.txn([], [Put("/k", b"3")])).ok, "never connected: surely not sent, so the next member is asked"
        follower.kill(signal.SIGCONT)
        async with opened(cluster.target(follower, *others, call_timeout_s=0.5)) as store:
            await eventually_read(store)
            follower.kill(signal.SIGSTOP)
            with pytest.raises(StoreUnknown):
                await store.txn([], [Put("/k", b"4")])
            assert (await store.txn([], [Put("/k", b"5")])).ok


async def test_a_member_that_lost_the_others_says_so_and_takes_no_write() -> None:
    with Cluster(3) as cluster:
        lonely, *others = cluster.members
        async with opened(cluster.target(lonely, call_timeout_s=1.5)) as store:
            assert (await store.txn([], [Put("/k", b"1")])).ok
            for other in others:
                other.kill()
            with pytest.raises((StoreUnavailable, StoreUnknown)):
                await store.txn([], [Put("/k", b"2")])
            with pytest.raises(StoreUnavailable, match="no leader"):
                await store.txn([], [Put("/k", b"3")])
            with pytest.raises(StoreUnavailable, match="no leader"):
                await store.get("/k")


async def test_cuts_while_catching_up_lose_nothing(single: Cluster) -> None:
    """More revisions than etcd gives to a late watcher at once (1,000), so it catches up in several batches."""
    total = 4000
    async with opened(single.target()) as direct, proxied(single.members[0]) as proxy:
        for start in range(0, total, 100):
            await asyncio.gather(*(direct.txn([], [Put(f"/n/{n:05}", b"x" * 200)]) for n in range(start, start + 100)))
        proxy.cut_at(10_000, 300_000, 30, 350_000, 1)
        async with opened(target_of([proxy.endpoint])) as store, watched(store, "/n/", 1) as events:
            await eventually(lambda: len(events) >= total // 2, "half is there")
            proxy.cut()
            await direct.txn([], [Put(f"/n/{total:05}", b"last")])
            await eventually(lambda: len(events) > total, "all is there")
        assert proxy.cuts >= 5
        truth = sorted((await direct.list("/n/")).entries, key=lambda entry: entry.mod_revision)
        assert [(event.mod_revision, event.key) for event in events] == [(one.mod_revision, one.key) for one in truth]


async def test_large_batches_come_in_fragments_and_arrive_whole_also_over_a_cut(single: Cluster) -> None:
    async with opened(single.target()) as direct, proxied(single.members[0]) as proxy:
        for round_ in range(4):
            await direct.txn([], [Put(f"/big/{round_}/{n}", bytes([n]) * 400_000) for n in range(3)])
        proxy.cut_at(2_600_000, 1_000_000)
        async with opened(target_of([proxy.endpoint])) as store, watched(store, "/big/", 1) as events:
            await eventually(lambda: len(events) == 12, "all is there")
            await direct.txn([], [Put(f"/big/x/{n}", b"y" * 450_000) for n in range(3)])
            await eventually(lambda: len(events) == 15, "a live one too")
        assert proxy.cuts >= 2
        assert [len(event.value) for event in events] == [400_000] * 12 + [450_000] * 3
        assert len((await direct.list("/big/")).entries) == 15


async def test_a_restart_of_etcd_is_an_outage_for_a_watch_and_nothing_more(single: Cluster) -> None:
    member = single.members[0]
    async with opened(single.target()) as store, watched(store, "/k", 1) as events:
        await store.txn([], [Put("/k", b"1")])
        await eventually(lambda: len(events) == 1, "the first change")
        for n in range(2):
            member.kill()
            with pytest.raises(StoreUnavailable, match="is it running"):
                await store.channel.call(lambda at: at.kv.Range, pb.RangeRequest(key=b"k"), timeout_s=0.3)
            single.restart(member)
            assert (await store.txn([], [Put("/k", b"after %d" % n)])).ok
            await eventually(lambda n=n: len(events) == n + 2, "the watch goes on")  # type: ignore[misc]


async def test_a_mirror_survives_cuts_with_compaction_behind_its_back(single: Cluster) -> None:
    async with opened(single.target()) as direct, proxied(single.members[0]) as proxy:  # noqa: SIM117
        async with opened(target_of([proxy.endpoint])) as store:
            seen: list[tuple[str, Entry | None]] = []
            mirror = Mirror(store, "/m/", RealClock(), lambda key, entry: seen.append((key, entry)))
            task = asyncio.create_task(mirror.run())
            await direct.txn([], [Put(f"/m/{n}", b"0") for n in range(50)])
            await eventually(lambda: len(list(mirror.items())) == 50, "the first listing")
            port = proxy.port
            await proxy.stop()
            await direct.txn([], [DeletePrefix("/m/1"), Put("/m/2", b"new")])
            for n in range(20):
                await direct.txn([], [Put("/other", bytes([n]))])
            last = (await direct.txn([], [Put("/m/3", b"new")])).revision
            await EtcdAdmin(direct.channel).compact(last)
            back = Proxy(single.members[0].client_port)
            back.port = port
            await back.start()
            await asyncio.wait_for(mirror.wait_for(last), 20)
            truth = (await direct.list("/m/")).entries
            assert [entry for _, entry in mirror.items()] == list(truth)
            assert len(seen) == 50 + 11 + 2
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await back.stop()


async def fill(store: EtcdStore, keys: int, size_bytes: int) -> None:
    """Writes `keys` keys over and over, until etcd has no space left."""
    while True:
        for n in range(keys):
            await store.txn([], [Put(f"/fat/{n}", b"z" * size_bytes)])


async def test_a_full_etcd_is_made_free_again_by_itself() -> None:
    quota = 16 * 1024 * 1024
    with Cluster(flags=[f"--quota-backend-bytes={quota}"]) as cluster:
        async with opened(cluster.target()) as store:
            with pytest.raises(StoreFull, match="out of space"):
                await fill(store, 5, 300_000)
            with pytest.raises(StoreFull):
                await store.lease_grant(10)
            said: list[str] = []
            upkeep = Maintenance(EtcdAdmin(store.channel), quota, RealClock(), said.append)
            task = asyncio.create_task(upkeep.run())
            await eventually(lambda: any("made free again" in text for text in said), f"space is made: {said}")
            assert (await store.txn([], [Put("/small", b"1")])).ok
            assert len((await store.list("/fat/")).entries) == 5
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await upkeep.run_once() == "nothing to do"
            assert (await EtcdAdmin(store.channel).space())[0].size_bytes < quota / 2


async def test_a_store_full_of_live_data_keeps_its_alarm_and_says_what_to_do() -> None:
    quota = 4 * 1024 * 1024
    with Cluster(flags=[f"--quota-backend-bytes={quota}"]) as cluster:
        async with opened(cluster.target()) as store:
            with pytest.raises(StoreFull):
                await fill(store, 100, 100_000)
            upkeep = Maintenance(EtcdAdmin(store.channel), quota, RealClock())
            assert "really full" in await upkeep.run_once()
            assert "nothing was removed since" in relief(await upkeep.look()).sentence
            assert (await store.txn([], [DeletePrefix("/fat/")])).ok
            assert "made free again" in await upkeep.run_once()
            assert (await store.txn([], [Put("/fat/1", b"1")])).ok


async def test_a_lost_answer_is_unknown_and_repeating_the_guarded_write_is_safe(single: Cluster) -> None:
    async with opened(single.target()) as direct, proxied(single.members[0]) as proxy:  # noqa: SIM117
        async with opened(target_of([proxy.endpoint], call_timeout_s=0.5)) as store:
            revision = (await store.txn([], [Put("/k", b"old")])).revision
            proxy.mute = True
            write: list[Op] = [Put("/k", b"new")]
            with pytest.raises(StoreUnknown, match="may or may not"):
                await store.txn([Guard("/k", revision)], write)
            proxy.mute = False
            proxy.cut()
            entry = await direct.get("/k")
            assert entry is not None
            assert (entry.value, entry.version) == (b"new", 2)
            assert not (await store.txn([Guard("/k", revision)], write)).ok
            assert await store.get("/k") == entry


async def test_nobody_there_means_surely_not_written() -> None:
    async with opened(target_of([f"http://127.0.0.1:{free_port()}"], call_timeout_s=0.5)) as store:
        for call in (
            store.get("/k"),
            store.list("/k"),
            store.txn([], [Put("/k", b"")]),
            store.lease_grant(5),
            store.lease_keepalive(7),
        ):
            with pytest.raises(StoreUnavailable, match="is it running"):
                await call


GONE = "deleted a simple token"


async def test_an_old_token_is_renewed_and_a_wrong_password_is_told() -> None:
    with Cluster(flags=["--auth-token-ttl=1", "--log-level=info"]) as cluster:
        member = cluster.members[0]
        for words in (("user", "add", "root:pw"), ("user", "grant-role", "root", "root"), ("auth", "enable")):
            await asyncio.to_thread(member.etcdctl, *words)
        async with opened(cluster.target(user="root", password="pw")) as store, watched(store, "/k", 1) as events:
            for n in range(3):
                assert (await store.txn([], [Put("/k", b"%d" % n)])).ok
                gone = member.log.count(GONE)
                await eventually(lambda gone=gone: member.log.count(GONE) > gone, "the token is old")  # type: ignore[misc]
            assert [entry.value for entry in (await store.list("/k")).entries] == [b"2"]
            await asyncio.gather(*(store.get("/k") for _ in range(20)))
            await eventually(lambda: len(events) == 3, "the watch has had everything")
            member.kill()
            cluster.restart(member)
            await store.get("/k")  # is tried again until it is back; a write into the lost connection would be unknown
            assert (await store.txn([], [Put("/k", b"3")])).ok
            await eventually(lambda: len(events) == 4, "the watch goes on with a new token")
        for target in (cluster.target(user="root", password="no"), cluster.target()):
            async with opened(target) as store:
                with pytest.raises(StoreDenied, match="password"):
                    await store.get("/k")
                with pytest.raises(StoreDenied, match="password"):
                    await anext(store.watch("/k", 1))
