"""The shell around machines: called is what is stored, once; a provider that hangs or fails is a fact; a new leader goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from controller.clock import RealClock, RealRandom
from controller.decide.machines.types import Memory, token_prefix
from controller.decide.types import Settings, View
from controller.election import Reign
from controller.loops.machines import MachineKeeper, concerns_machines
from controller.loops.picture import Change, Picture
from controller.loops.writer import PlanWriter
from controller.providers.memory import MemoryProvider
from controller.store.memory import MemoryStore
from controller.store.mirror import Mirror
from model import codec
from model.autoscale import NodeGroupSpec, ProviderSpec
from model.documents import PREFIX, DecisionDoc, Event, LeaderDoc, Machine, MachinesDoc, NodeGroupDoc, TokenDoc, key
from model.store_port import Guard, Put
from model.tokens import parse_token

pytestmark = [pytest.mark.contract, pytest.mark.timeout(30)]

SPEC = NodeGroupSpec("burst", ProviderSpec("exec", timeout_s=0.2), max=3)
GROUP = NodeGroupDoc("g1", SPEC)
CA = "ab" * 32


class Leader:
    """One reign over a store in memory, with a provider that outlives it."""

    def __init__(self, store: MemoryStore, provider: MemoryProvider) -> None:
        self.store, self.provider = store, provider
        self.picture = Picture(asyncio.get_running_loop().call_soon)
        self.decided = asyncio.Event()
        self.keeper = MachineKeeper(self.picture, RealClock(), RealRandom(), lambda spec: provider, CA)

    async def run(self) -> None:
        mirror = Mirror(self.store, PREFIX, RealClock(), self.picture.from_mirror, on_listed=self.picture.listed)
        self.picture.mirror_revision = lambda: mirror.revision
        async with asyncio.TaskGroup() as group:
            group.create_task(mirror.run())
            await mirror.wait_for(1)
            entry = await self.store.get(key("leader"))
            assert entry is not None
            now = RealClock().monotonic()
            reign = Reign(Guard(key("leader"), entry.mod_revision), 1, "c1", 1, now, RealClock().monotonic, float("inf"))
            group.create_task(self.keeper.run(PlanWriter(self.store, self.picture, reign), reign, self.decided.set))

    def memory(self) -> Memory:
        return self.keeper.facts(View(), Settings()).memories.get("burst", Memory())

    async def until(self, true: object) -> None:
        """Looks again after whatever the keeper says; `true` is asked."""
        assert callable(true)
        async with asyncio.timeout(10):
            while not true():
                self.decided.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self.decided.wait()


@contextlib.asynccontextmanager
async def leading(store: MemoryStore, provider: MemoryProvider) -> AsyncIterator[Leader]:
    leader = Leader(store, provider)
    running = asyncio.create_task(leader.run())
    try:
        yield leader
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def a_store() -> MemoryStore:
    store = MemoryStore()
    await store.txn([], [Put(key("leader"), codec.encode(LeaderDoc("c1", 1, "https://10.0.0.1:7443")))])
    await store.txn([], [Put(key("nodegroups", "burst"), codec.encode(GROUP))])
    return store


async def put(store: MemoryStore, *machines: Machine) -> None:
    document = MachinesDoc("g1", "burst", machines, number=9)
    await store.txn([], [Put(key("machines", "burst"), codec.encode(document))])


def machine(state: str, name: str = "burst-1") -> Machine:
    return replace(Machine(name, "creating", int(RealClock().now() * 1000)), state=state)  # type: ignore[arg-type]


async def test_what_is_stored_is_asked_for_once_with_a_token_of_its_own() -> None:
    store, joins = await a_store(), []
    provider = MemoryProvider(lambda order, join: joins.append((order, join)))
    async with leading(store, provider) as leader:
        await put(store, machine("creating"))
        await leader.until(lambda: ("create", "burst-1") in leader.memory().outcomes)
        await put(store, machine("joining"))
        await asyncio.sleep(0)
        outcome = leader.memory().outcomes["create", "burst-1"]
    assert (outcome.ok, outcome.id, outcome.tries) == (True, "m-burst-1", 1)
    ((order, join),) = joins
    assert (order.cluster, order.group, order.node) == ("c1", "burst", "burst-1")
    assert dict(order.labels) == {"shoal.group": "burst"}
    assert join.urls == ("https://10.0.0.1:7443",)
    token = parse_token(join.token)
    assert (token.ca_sha256, token.id[:12]) == (CA, token_prefix("g1", "burst-1"))
    entry = await store.get(key("tokens", token.id))
    assert entry is not None
    stored = codec.decode(TokenDoc, entry.value)
    assert (stored.secret_sha256, stored.role) == (token.secret_sha256(), "worker")
    assert stored.expires_ms <= RealClock().now() * 1000 + SPEC.provision_s * 1000


async def test_failures_and_silence_are_facts(caplog: pytest.LogCaptureFixture) -> None:
    store, provider = await a_store(), MemoryProvider()
    provider.faults.update({"create": "fail", "delete": "hang", "list": "fail"})
    async with leading(store, provider) as leader:
        await put(store, machine("creating"), machine("deleting", "burst-2"))
        await leader.until(lambda: len(leader.memory().outcomes) == 2)
        memory = leader.memory()
    assert memory.outcomes["create", "burst-1"].message == "create: out of machines"
    assert memory.outcomes["delete", "burst-2"].message == "delete burst-2: no answer within 0.2 s"
    assert memory.report.problem == "list: out of machines"
    assert memory.report.at_ms == 0
    assert "node group burst: list: out of machines" in caplog.messages


async def test_a_new_leader_asks_the_list_before_it_asks_again() -> None:
    store, provider = await a_store(), MemoryProvider()
    before = replace(machine("creating"), since_ms=int(RealClock().now() * 1000) - 5_000)
    async with leading(store, provider) as leader:
        await put(store, machine("creating"))
        await leader.until(lambda: bool(provider.there))
    await put(store, before)
    provider.calls.clear()
    async with leading(store, provider) as leader:
        await leader.until(lambda: leader.memory().report.at_ms > 0)
        assert [row.node for row in leader.memory().report.machines] == ["burst-1"]
    assert provider.calls == [("list", "burst")]


async def whose_creation_hangs() -> tuple[MemoryStore, MemoryProvider]:
    """A group whose provider does not come back for ten minutes from making a machine."""
    store, provider = await a_store(), MemoryProvider()
    provider.faults["create"] = "hang"
    slow = replace(GROUP, spec=replace(SPEC, provider=ProviderSpec("exec", timeout_s=600.0)))
    await store.txn([], [Put(key("nodegroups", "burst"), codec.encode(slow))])
    return store, provider


async def test_what_a_reign_had_under_way_ends_with_it() -> None:
    store, provider = await whose_creation_hangs()
    async with leading(store, provider) as leader:
        await put(store, machine("creating"))
        await leader.until(lambda: ("create", "burst-1") in leader.memory().calling)
    assert leader.memory() == Memory()
    assert len(asyncio.all_tasks()) == 1


async def test_a_machine_that_is_given_up_while_it_is_made_is_deleted_after_that_was_broken_off() -> None:
    store, provider = await whose_creation_hangs()
    async with leading(store, provider) as leader:
        await put(store, machine("creating"))
        await leader.until(lambda: ("create", "burst-1") in provider.calls)
        await put(store, machine("failed"))
        await leader.until(lambda: ("delete", "burst-1") in leader.memory().outcomes)
        assert leader.memory().calling == frozenset()
    assert [verb for verb, _ in provider.calls if verb != "list"] == ["create", "delete"]


async def test_what_matters_for_machines() -> None:
    picture = Picture(lambda run: None)

    def change(kind: str, *, own: bool = False) -> list[Change]:
        return [Change(kind, "x", None, object(), 1, own)]

    assert concerns_machines(change("nodegroups"), picture.snapshot())
    assert not concerns_machines(change("nodes"), picture.snapshot()), "there is no group"
    picture.from_own_puts([(key("nodegroups", "burst"), codec.encode(GROUP))], 1)
    snapshot = picture.snapshot()
    assert concerns_machines(change("nodes"), snapshot)
    said = DecisionDoc("web", (Event(1, "placed", "service/web", "web.1 placed on n1"),))
    waits = DecisionDoc("web", waiting=((1, "full"),))
    assert not concerns_machines([Change("decisions", "web", None, said, 1, True)], snapshot), "nobody waits"
    assert concerns_machines([Change("decisions", "web", said, waits, 1, True)], snapshot)
    assert concerns_machines([Change("decisions", "web", waits, None, 1, True)], snapshot)
    assert not concerns_machines(change("machines", own=True), snapshot)
    assert not concerns_machines(change("status"), snapshot), "nothing is being drained"
    drained = MachinesDoc("g1", "burst", (machine("draining"),))
    picture.from_own_puts([(key("machines", "burst"), codec.encode(drained))], 2)
    assert concerns_machines(change("status"), picture.snapshot())
