"""Administration: through the etcd3 package (members, status, snapshot, defragment) and through our own client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store.etcd import EtcdStore
from controller.store.etcd3_compat import Etcd3Store
from controller.store.etcd_admin import EtcdAdmin
from model.store_port import Put, StoreCompacted, StoreError, StoreUnavailable, StoreUnknown
from tests.contract.etcd_harness import Cluster, free_port, proxied, target_of

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, tls=True) as made:
        yield made


async def test_members_status_and_defragment_through_the_etcd3_package(cluster: Cluster) -> None:
    store = Etcd3Store(cluster.target())
    try:
        members = await store.members()
        assert sorted(member.name for member in members) == ["m0", "m1", "m2"]
        assert sorted(url for member in members for url in member.client_urls) == sorted(
            one.endpoint for one in cluster.members
        )
        status = await store.status()
        assert status.version.startswith("3.4.")
        assert status.db_size_bytes > 0
        assert status.leader
        await store.defragment()
    finally:
        await store.close()


async def test_a_snapshot_is_a_whole_database_that_etcdctl_takes(cluster: Cluster, tmp_path: Path) -> None:
    store = Etcd3Store(cluster.target())
    try:
        for n in range(20):
            await store.txn([], [Put(f"/snap/{n}", b"x" * 10_000)])
        file = tmp_path / "snapshot.db"
        assert await store.snapshot(file) == file.stat().st_size
        assert file.stat().st_mode & 0o777 == 0o600
    finally:
        await store.close()
    restore = ["etcdctl", "snapshot", "restore", str(file), "--data-dir", str(tmp_path / "restored")]
    done = await asyncio.to_thread(subprocess.run, restore, env={"ETCDCTL_API": "3"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_what_the_etcd3_package_cannot_do_is_refused(cluster: Cluster) -> None:
    store = Etcd3Store(cluster.target())
    with pytest.raises(StoreError, match="use EtcdStore"):
        store.watch("/k", 1)
    for call in (store.lease_grant(5), store.lease_keepalive(1), store.lease_revoke(1)):
        with pytest.raises(StoreError, match="use EtcdStore"):
            await call


async def test_the_etcd3_package_goes_to_the_next_endpoint_and_tells_unknown_from_not_written() -> None:
    with Cluster() as single:
        dead = f"http://127.0.0.1:{free_port()}"
        store = Etcd3Store(target_of([dead, single.members[0].endpoint], call_timeout_s=2))
        assert (await store.txn([], [Put("/k", b"1")])).ok
        await store.close()
        alone = Etcd3Store(target_of([dead], call_timeout_s=0.5))
        with pytest.raises(StoreUnavailable):
            await alone.txn([], [Put("/k", b"1")])
        await alone.close()
        async with proxied(single.members[0]) as proxy:
            late = Etcd3Store(target_of([proxy.endpoint], call_timeout_s=0.5))
            await late.get("/k")
            proxy.mute = True
            with pytest.raises(StoreUnknown):
                await late.txn([], [Put("/k", b"2")])
            await late.close()


async def test_our_own_administration(cluster: Cluster) -> None:
    store = EtcdStore(cluster.target())
    try:
        admin = EtcdAdmin(store.channel)
        revision = (await store.txn([], [Put("/k", b"1")])).revision
        assert await admin.revision() >= revision
        space = await admin.space()
        assert len(space) == 3
        assert sum(member.leads for member in space) == 1
        assert all(0 < member.used_bytes <= member.size_bytes for member in space)
        assert await admin.full_members() == ()
        await admin.compact(revision)
        with pytest.raises(StoreCompacted):
            await admin.compact(revision)
        await admin.defragment(space[0].endpoint)
        with pytest.raises(StoreError, match="no member we know"):
            await admin.defragment("10.9.9.9:1")
    finally:
        await store.close()
