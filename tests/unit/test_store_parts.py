"""The pure parts of the store: what an error means, how watch responses make batches, upkeep, limits, the etcd command."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.checks import prefix_end
from controller.store.etcd import page_keys
from controller.store.etcd_admin import MemberSpace
from controller.store.etcd_channel import EtcdTarget, address_of
from controller.store.etcd_command import EtcdFiles, EtcdSettings, back_off_s, etcd_command, etcd_environment
from controller.store.etcd_errors import Kind, judge
from controller.store.etcd_watch import Assembler, Canceled
from controller.store.maintenance import Compact, Defragment, Disarm, Space, disarming, relief
from controller.store.memory import Fault, MemoryStore
from model.store_port import (
    Put,
    StoreCompacted,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreLeaseLost,
    StoreTooLarge,
    StoreUnavailable,
    StoreUnknown,
)
from protos import etcd_pb2 as pb


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: refused", Kind.NOT_DONE),
        ("UNAVAILABLE", "etcdserver: no leader", Kind.NOT_DONE),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Kind.NOT_DONE),
        ("UNAVAILABLE", "Socket closed", Kind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: request timed out", Kind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to previous leader failure", Kind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: leader changed", Kind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: server stopped", Kind.UNKNOWN),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Kind.UNKNOWN),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Kind.LOGIN),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", Kind.LOGIN),
    ],
)
def test_only_what_surely_was_not_proposed_counts_as_not_done(code: str, details: str, kind: Kind) -> None:
    verdict = judge(code, details, "10.0.0.1:2379", has_login=True)
    assert verdict.kind is kind
    assert verdict.error is None
    assert "10.0.0.1:2379" in verdict.text


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", StoreFull),
        ("NOT_FOUND", "etcdserver: requested lease not found", StoreLeaseLost),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", StoreCompacted),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", StoreTooLarge),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (2098213 vs. 2097152)", StoreTooLarge),
        ("PERMISSION_DENIED", "etcdserver: permission denied", StoreDenied),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", StoreDenied),
        ("UNAVAILABLE", "Ssl handshake failed: TSI_DATA_CORRUPTED: bad certificate", StoreDenied),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision", StoreError),
    ],
)
def test_what_stays_true_on_a_second_try_is_raised(code: str, details: str, error: type[StoreError]) -> None:
    verdict = judge(code, details, "10.0.0.1:2379", has_login=False)
    assert verdict.kind is Kind.FATAL
    assert type(verdict.error) is error


def response(revision: int, *revisions: int, **more: bool) -> pb.WatchResponse:
    events = [pb.Event(kv=pb.KeyValue(key=b"k%d" % number, mod_revision=number)) for number in revisions]
    return pb.WatchResponse(header=pb.ResponseHeader(revision=revision), events=events, **more)  # type: ignore[arg-type]


def test_fragments_make_one_batch_and_a_cut_between_them_loses_none() -> None:
    assembler = Assembler(5)
    assert assembler.feed(response(90, created=True)) is None
    assert assembler.feed(response(90, 5, 6, fragment=True)) is None
    assembler.restart()
    assert assembler.next_revision == 5
    assert assembler.feed(response(90, 5, 6, fragment=True)) is None
    batch = assembler.feed(response(90, 6, 7))
    assert batch is not None
    assert [event.mod_revision for event in batch.events] == [5, 6, 6, 7]
    assert (batch.revision, assembler.next_revision) == (7, 8)


def test_the_header_of_a_batch_is_no_progress_but_a_notification_is() -> None:
    assembler = Assembler(5)
    batch = assembler.feed(response(90, 5))
    assert batch is not None
    assert (batch.revision, assembler.next_revision) == (5, 6)
    batch = assembler.feed(response(90))
    assert batch is not None
    assert (batch.revision, batch.events, assembler.next_revision) == (90, (), 91)
    assert assembler.feed(response(90)) is None
    assert assembler.feed(response(90, 88, 90)) is None


def test_a_watch_from_now_on_starts_after_the_revision_it_was_made_at() -> None:
    assembler = Assembler(0)
    assembler.feed(response(41, created=True))
    assembler.feed(response(77, created=True))
    assert assembler.next_revision == 42


def test_compaction_and_the_end_of_a_watch_are_told() -> None:
    with pytest.raises(StoreCompacted) as caught:
        Assembler(1).feed(pb.WatchResponse(canceled=True, compact_revision=9))
    assert caught.value.revision == 9
    with pytest.raises(Canceled, match="no leader"):
        Assembler(1).feed(pb.WatchResponse(canceled=True, cancel_reason="etcdserver: no leader"))


def space(
    size: int, used: int, alarmed: tuple[int, ...] = (), revision: int = 5000, tried: int = 0, compacted: int = 0
) -> Space:
    return Space((MemberSpace("a:1", 7, size, used, "3.4", True),), alarmed, revision, 100, tried, compacted)


def test_upkeep_does_nothing_without_need() -> None:
    assert relief(space(50, 1)).steps == ()
    assert relief(space(90, 90, revision=1900)).steps == ()
    assert relief(space(90, 90, compacted=3500)).steps == ()
    assert disarming(space(99, 99)).steps == ()


def test_upkeep_before_it_is_full_keeps_what_watchers_may_need() -> None:
    assert relief(space(60, 59)).steps == (Compact(4000),)
    assert relief(space(60, 20)).steps == (Compact(4000), Defragment("a:1"))


def test_upkeep_when_full_drops_all_and_disarms_only_when_that_helped() -> None:
    assert relief(space(100, 100, (7,))).steps == (Compact(5000), Defragment("a:1"))
    assert relief(space(100, 100, (7,), tried=5000)).steps == ()
    assert disarming(space(20, 20, (7, 8))).steps == (Disarm(7), Disarm(8))
    full = disarming(space(96, 96, (7,)))
    assert full.steps == ()
    assert "raise its quota" in full.sentence


def test_pages_grow_with_small_entries_and_shrink_with_large_ones() -> None:
    assert page_keys(128, 128 * 100) == 512
    assert page_keys(4000, 4000 * 100) == 4096
    assert page_keys(128, 128 * 100_000) == 40
    assert page_keys(128, 128 * 1_400_000) == 16


@pytest.mark.parametrize(("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0")])
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def test_endpoints_are_read_as_people_write_them() -> None:
    assert address_of("https://10.0.0.1:2379") == "10.0.0.1:2379"
    assert address_of("https://etcd.example") == "etcd.example:2379"
    assert address_of("https://[::1]:2379") == "[::1]:2379"
    assert address_of("10.0.0.1:2379") == "10.0.0.1:2379"
    with pytest.raises(StoreError, match="write it like"):
        address_of("ftp://10.0.0.1")


def test_a_password_is_in_no_text() -> None:
    assert "hush" not in repr(EtcdTarget(("a:1",), user="me", password="hush"))


def test_the_etcd_child_listens_on_loopback_only_and_wants_a_certificate_everywhere() -> None:
    files = EtcdFiles(*(Path(f"/pki/{name}") for name in ("sca", "sc", "sk", "cca", "cc", "ck")))
    command = etcd_command(EtcdSettings(Path("/data"), 1111, 2222, files))
    assert command[:4] == ["/usr/bin/setpriv", "--pdeathsig", "KILL", "/usr/bin/etcd"]
    urls = [word for word in command if "-urls=" in word]
    assert len(urls) == 4
    assert all("=https://127.0.0.1:" in word for word in urls)
    assert {"--client-cert-auth=true", "--trusted-ca-file=/pki/cca", "--peer-client-cert-auth=true"} <= set(command)
    assert "--data-dir=/data/db" in command
    assert etcd_environment("x86_64") == {"PATH": "/usr/bin:/bin"}
    assert etcd_environment("aarch64")["ETCD_UNSUPPORTED_ARCH"] == "arm64"


def test_back_off_grows_to_five_seconds() -> None:
    assert [back_off_s(deaths) for deaths in (0, 1, 2, 5, 50)] == [0.0, 0.1, 0.2, 1.6, 5.0]


async def test_faults_of_the_memory_store() -> None:
    fault: list[Fault | None] = [None]
    store = MemoryStore(fault=lambda call: fault[0])
    for broken, error, written in (
        (Fault.UNAVAILABLE, StoreUnavailable, False),
        (Fault.UNKNOWN_LOST, StoreUnknown, False),
        (Fault.FULL, StoreFull, False),
        (Fault.UNKNOWN_WRITTEN, StoreUnknown, True),
    ):
        fault[0] = broken
        with pytest.raises(error):
            await store.txn([], [Put("/k", b"1")])
        fault[0] = None
        assert (await store.get("/k") is not None) is written


async def test_leases_of_the_memory_store_follow_the_time_they_are_given() -> None:
    now = 100.0
    store = MemoryStore(now=lambda: now)
    lease = await store.lease_grant(10)
    await store.txn([], [Put("/leader", b"me", lease)])
    now = 109.0
    await store.lease_keepalive(lease)
    now = 118.0
    assert await store.get("/leader") is not None
    now = 119.0
    assert await store.get("/leader") is None
    with pytest.raises(StoreLeaseLost):
        await store.lease_keepalive(lease)
