"""The queue, what is dirty after a change, and how a plan becomes transactions."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from controller.clock import RealClock
from controller.decide.types import Plan
from controller.dispatch.status import NodeStatus
from controller.dispatch.status_writer import StatusWriter
from controller.election import NotLeader, Reign
from controller.loops.dirty import EVERYTHING, dirty_nodes, dirty_services
from controller.loops.events import CHUNK, CHUNKS, in_order, joined, next_chunk
from controller.loops.picture import Change, Picture, Snapshot
from controller.loops.queue import DirtyQueue
from controller.loops.writer import PlanConflict, PlanWriter, operations, split
from controller.store.memory import MemoryStore
from model import codec
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    DecisionDoc,
    Event,
    EventChunkDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ScaleDoc,
    ServiceDoc,
    ServicePlanDoc,
    StatusDoc,
    VolumePlaceDoc,
    key,
)
from model.spec import ContainerSpec, ServiceSpec
from model.store_port import Delete, Guard, Put

# ---- the queue


async def test_the_first_key_comes_at_once_and_twice_is_once() -> None:
    queue = DirtyQueue()
    queue.add(["b", "a"])
    queue.add(["a"])
    assert await queue.take() == ("a", "b")
    assert len(queue) == 0


async def test_after_a_pass_keys_gather() -> None:
    queue = DirtyQueue()
    queue.passed(0.05)
    queue.add(["a"])
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(["b"])
    assert await taking == ("a", "b")


async def test_many_at_once_wait_until_a_moment_brings_no_more() -> None:
    queue = DirtyQueue()
    queue.add(f"s{number:03}" for number in range(99))
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(["s099"])
    assert len(await taking) == 100


async def test_waking_up_without_a_key() -> None:
    queue = DirtyQueue()
    assert await queue.take(asyncio.get_running_loop().time()) == ()


async def test_nothing_to_add_wakes_nobody() -> None:
    queue = DirtyQueue()
    queue.add([])
    assert await queue.take(asyncio.get_running_loop().time()) == ()


# ---- dirty


def snapshot(**kinds: dict[str, Any]) -> Snapshot:
    from controller.loops.picture import KINDS

    return Snapshot({kind: kinds.get(kind, {}) for kind in KINDS}, {}, 1)


ASSIGNED = AssignmentDoc("n1", 1, (AssignedService.of("id1", "web", (Assigned(1, 1, 5),)),))


def status(state: str, **more: Any) -> StatusDoc:
    return StatusDoc("n1", replicas=(ReplicaStatus("id1", 1, 1, 5, state),), **more)


def test_a_status_marks_only_the_services_that_changed() -> None:
    facts = snapshot(assignments={"n1": ASSIGNED})
    changed = Change("status", "n1", status("starting"), status("running"), 9)
    assert dirty_services([changed], facts) == ["web"]
    same = Change("status", "n1", status("running", generation=1), status("running", generation=2), 9)
    assert dirty_services([same], facts) == []
    (row,) = status("running").replicas
    named = StatusDoc("n1", replicas=(replace(row, container_id="c1", addresses=(("net", "10.0.0.5/24"),)),))
    assert dirty_services([Change("status", "n1", status("running"), named, 9)], facts) == [], "no decision reads that"
    for news in ({"health": "unhealthy"}, {"restarts": 1}, {"since_ms": 9}, {"created_ms": 6}, {"message": "disk full"}):
        told = StatusDoc("n1", replicas=(replace(row, **news),))
        assert dirty_services([Change("status", "n1", status("running"), told, 9)], facts) == ["web"]
    assert dirty_services([Change("status", "n1", status("running"), StatusDoc("n1"), 9)], facts) == ["web"]
    bigger = Change("status", "n1", status("running"), status("running", info=NodeInfo(cpus=4)), 9)
    assert dirty_services([bigger], facts) == [EVERYTHING]


def test_what_the_leader_wrote_itself_is_not_work() -> None:
    facts = snapshot()
    assert dirty_services([Change("assignments", "n1", None, ASSIGNED, 9)], facts) == ["web"]
    assert dirty_services([Change("assignments", "n1", None, ASSIGNED, 9, own=True)], facts) == []
    plan = ServicePlanDoc("a", "web")
    assert dirty_services([Change("svcplans", "web", plan, None, 9)], facts) == ["web"]
    assert dirty_services([Change("svcplans", "web", None, plan, 9, own=True)], facts) == []


def test_a_nodes_state_marks_everything_but_its_sentence_does_not() -> None:
    ready, down = NodeHealthDoc("n1", "ready"), NodeHealthDoc("n1", "down")
    assert dirty_services([Change("health", "n1", ready, down, 9, own=True)], snapshot()) == [EVERYTHING]
    talk = NodeHealthDoc("n1", "ready", 0, "still here")
    assert dirty_services([Change("health", "n1", ready, talk, 9, own=True)], snapshot()) == []
    drained = NodeDoc("n1", "x", availability="drain")
    assert dirty_services([Change("nodes", "n1", NodeDoc("n1", "x"), drained, 9)], snapshot()) == [EVERYTHING]
    carded = NodeDoc("n1", "x", generic=(("gpu", 1),))
    assert dirty_services([Change("nodes", "n1", NodeDoc("n1", "x"), carded, 9)], snapshot()) == [EVERYTHING]
    renewed = NodeDoc("n1", "x", serial="2")
    assert dirty_services([Change("nodes", "n1", NodeDoc("n1", "x"), renewed, 9)], snapshot()) == []
    assert dirty_nodes([Change("nodes", "n1", None, renewed, 9)]) == ["n1"]


# ---- events


def test_numbers_go_on_and_the_ring_is_bounded() -> None:
    chunks: dict[str, EventChunkDoc] = {}
    total = CHUNK * (CHUNKS + 3) + 7
    waiting = [Event(number, "x", "y", str(number)) for number in range(1, total + 1)]
    while waiting:
        name, chunk, taken = next_chunk(chunks, waiting)
        assert 0 < taken <= CHUNK
        chunks[name] = chunk
        del waiting[:taken]
    assert len(chunks) == CHUNKS
    found = in_order(chunks)
    assert [seq for seq, _ in found] == list(range(found[0][0], total + 1))
    assert all(event.sentence == str(seq) for seq, event in found)
    assert [seq for seq, _ in in_order(chunks, total - 2)] == [total - 1, total]


def test_a_join_is_told_once_from_the_document_whoever_took_it_in() -> None:
    first, again = NodeDoc("n1", "a", joined_ms=5), NodeDoc("n1", "b", joined_ms=9)
    labelled = replace(first, labels=(("zone", "x"),))
    changes = [Change("nodes", "n1", None, first, 1), Change("nodes", "n1", first, labelled, 2)]
    changes += [Change("nodes", "n1", labelled, again, 3), Change("nodes", "n1", again, None, 4)]
    assert [(event.at_ms, event.sentence) for event in joined(changes)] == [
        (5, "node n1 joined the cluster"), (9, "node n1 joined the cluster"),
    ]  # fmt: skip


# ---- transactions

PLAN = Plan(
    assignments=(ASSIGNED,),
    netplans=(NetworkPlanDoc("i", "net", 1, "10.0.0.0/16"),),
    places=(VolumePlaceDoc("data", ("n1",)),),
    health=(NodeHealthDoc("n1", "ready"),),
    decisions=(DecisionDoc("web"),),
    deletes=(key("status", "n9"),),
)


def test_places_and_networks_come_before_assignments_and_deletes_last() -> None:
    kinds = [getattr(op, "key", "").split("/")[3] for op in operations(PLAN)]
    assert kinds == ["places", "netplans", "assignments", "health", "decisions", "status"]
    assert isinstance([*operations(PLAN)][-1], Delete)


def test_a_big_plan_is_cut_by_number_and_by_size() -> None:
    ops = [Put(f"k{number}", b"x" * 10) for number in range(25)]
    assert [len(run) for run in split(ops, ops_max=10)] == [10, 10, 5]
    assert [op for run in split(ops, bytes_max=50) for op in run] == ops
    assert all(len(run) <= 4 for run in split(ops, bytes_max=50))
    assert list(split([])) == []
    assert [len(run) for run in split([Put("large", b"x" * 100)], bytes_max=50)] == [1], "alone, however large"


async def leading() -> tuple[MemoryStore, Picture, Reign]:
    store, now = MemoryStore(), 0.0
    result = await store.txn([], [Put(key("leader"), b"{}")])
    reign = Reign(Guard(key("leader"), result.revision), 1, "c", 1, 0, lambda: now, good_until=5.0)
    return store, Picture(lambda run: None), reign


async def test_a_plan_is_written_and_seen_at_once() -> None:
    store, picture, reign = await leading()
    revision = await PlanWriter(store, picture, reign).write(PLAN, picture.snapshot())
    assert picture.snapshot().revision(key("assignments", "n1")) == revision
    entry = await store.get(key("assignments", "n1"))
    assert entry is not None
    assert codec.decode(AssignmentDoc, entry.value) == ASSIGNED


async def test_an_old_picture_writes_nothing() -> None:
    store, picture, reign = await leading()
    await store.txn([], [Put(key("health", "n1"), b"{}")])
    with pytest.raises(PlanConflict):
        await PlanWriter(store, picture, reign).write(PLAN, picture.snapshot())
    assert await store.get(key("assignments", "n1")) is None


async def test_a_deposed_leader_writes_nothing() -> None:
    store, picture, reign = await leading()
    await store.txn([], [Put(key("leader"), b"another")])
    with pytest.raises(PlanConflict):
        await PlanWriter(store, picture, reign).write(PLAN, picture.snapshot())
    reign.good_until = 0.0
    with pytest.raises(NotLeader):
        await PlanWriter(store, picture, reign).write(PLAN, picture.snapshot())


async def test_what_the_autoscaler_decides_is_one_transaction_guarded_by_the_service() -> None:
    store, picture, reign = await leading()
    before = ServiceDoc("id", ServiceSpec("web", ContainerSpec("x")), 2)
    path, beside = key("services", "web"), key("scales", "web")
    made = await store.txn([], [Put(path, codec.encode(before))])
    picture.from_own_puts([(path, codec.encode(before))], made.revision)
    snapshot = picture.snapshot()
    known: ServiceDoc = snapshot.of("services")["web"]
    after, writer = replace(known, scale=6), PlanWriter(store, picture, reign)
    revision = await writer.write(Plan(scales=((ScaleDoc("id", "web", 6), after),)), snapshot)
    assert [entry.mod_revision for name in (path, beside) if (entry := await store.get(name))] == [revision, revision]

    now = picture.snapshot()
    await writer.write(Plan(scales=((ScaleDoc("id", "web", 7), now.of("services")["web"]),)), now)
    entry = await store.get(path)
    assert entry is not None
    assert entry.mod_revision == revision, "only read, so not written"

    now = picture.snapshot()
    await store.txn([], [Put(path, codec.encode(replace(after, stopped=True)))])
    with pytest.raises(PlanConflict):
        await writer.write(Plan(scales=((ScaleDoc("id", "web", 9), now.of("services")["web"]),)), now)
    entry = await store.get(beside)
    assert entry is not None
    assert codec.decode(ScaleDoc, entry.value).wanted == 7


async def test_one_node_that_says_too_much_does_not_hold_up_the_others() -> None:
    store, picture, reign = await leading()
    many = tuple(ReplicaStatus("s", slot, 1, 1, "running", message="x" * 900) for slot in range(2_000))
    told = {"n1": NodeStatus(StatusDoc("n1", replicas=many)), "n2": NodeStatus(StatusDoc("n2", generation=7))}
    nodes = await store.txn([], [Put(key("nodes", name), codec.encode(NodeDoc(name, name))) for name in told])
    picture.from_own_puts([(key("nodes", name), codec.encode(NodeDoc(name, name))) for name in told], nodes.revision)
    writer = StatusWriter(picture, RealClock(), told.get)
    for name in told:
        writer.mark(name)
    running = asyncio.create_task(writer.run(PlanWriter(store, picture, reign)))
    try:
        async with asyncio.timeout(10), aclosing(store.watch(key("status"), nodes.revision + 1)) as batches:
            batch = await anext(batches)
    finally:
        running.cancel()
    assert [event.key for event in batch.events] == [key("status", "n2")]
    assert await store.get(key("status", "n1")) is None
