"""The shell around machines: calls of providers as tracked tasks, and what they said as facts for the decision.

Rules: what is to be called follows from the stored documents (decide/machines/calls.py), never from a decision directly: a name
is stored before its machine is asked for. A call ends in an `Outcome`, a failure too; what is under way ends with the reign.
Join tokens are made here, one a call, good for as long as the machine has to join.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from controller.decide.machines.calls import due
from controller.decide.machines.types import GROUP_LABEL, Asked, MachineFacts, Memory, Outcome, Report, Verb, token_prefix
from controller.decide.types import Settings, View
from controller.election import Reign
from controller.loops.picture import Change, Picture, Snapshot
from controller.loops.writer import PlanWriter
from controller.providers.port import Join, Order, Provider, ProviderError
from controller.steady import zero_ms
from model import codec
from model.autoscale import NodeGroupSpec
from model.documents import DecisionDoc, Machine, MachinesDoc, NodeGroupDoc, TokenDoc, key
from model.errors import ShoalError
from model.ports import Clock, Random
from model.store_port import Guard, Put
from model.tokens import Token

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
LIST_S_MAX: Final = 60.0
ALWAYS: Final = frozenset({"nodegroups", "nodes", "health", "decisions"})
LEAVING: Final = frozenset({"assignments", "status"})
"""Kinds of documents that matter only while a machine is being drained."""

MakeProvider = Callable[[NodeGroupSpec], Provider]


def concerns_machines(changes: Iterable[Change], snapshot: Snapshot) -> bool:
    """Whether any of the changes makes node groups worth deciding about."""
    kinds = {change.kind for change in changes if not _is_known(change)}
    if "nodegroups" in kinds or "machines" in kinds:
        return True
    if not snapshot.of("nodegroups"):
        return False
    return bool(kinds & ALWAYS) or bool(kinds & LEAVING and _drains(snapshot))


def _is_known(change: Change) -> bool:
    """What the decision has written itself, and sentences about services without anything new of who waits."""
    if change.own and change.kind in ("machines", "nodes"):
        return True
    if change.kind != "decisions":
        return False
    old: DecisionDoc = change.old or DecisionDoc(change.name)
    new: DecisionDoc = change.new or DecisionDoc(change.name)
    return (old.waiting, old.notes) == (new.waiting, new.notes)


def _drains(snapshot: Snapshot) -> bool:
    documents: Iterable[MachinesDoc] = snapshot.of("machines").values()
    return any(machine.state == "draining" for document in documents for machine in document.machines)


@dataclass(slots=True)
class _Group:
    """What is known of one group's provider in this reign."""

    provider: Provider
    spec: NodeGroupSpec
    id: str
    report: Report = field(default_factory=Report)
    outcomes: dict[Asked, Outcome] = field(default_factory=dict)
    calls: dict[Asked, asyncio.Task[None]] = field(default_factory=dict)
    listing: bool = False

    def memory(self) -> Memory:
        return Memory(self.report, dict(self.outcomes), frozenset(self.calls))


class MachineKeeper:
    """`run` lives as long as the reign; `facts` for the decision. `ca_sha256`: what join tokens pin."""

    def __init__(self, picture: Picture, clock: Clock, random: Random, make: MakeProvider, ca_sha256: str) -> None:
        self._picture, self._clock, self._random, self._make, self._ca_sha256 = picture, clock, random, make, ca_sha256
        self._groups: dict[str, _Group] = {}
        self._changed = asyncio.Event()
        self._decide: Callable[[], None] = lambda: None

    def facts(self, view: View, settings: Settings) -> MachineFacts:
        memories = {name: group.memory() for name, group in tuple(self._groups.items())}
        return MachineFacts(view, settings, memories, tuple(self._picture.snapshot().of("tokens")))

    async def run(self, writer: PlanWriter, reign: Reign, decide: Callable[[], None]) -> None:
        """For ever: until cancelled. `decide` is called when there is something new to decide on."""
        self._groups, self._decide = {}, decide
        started_ms = int(zero_ms(self._clock) + reign.started_s * 1000)
        unsubscribe = self._picture.subscribe(self._on_changes)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._changed.clear()
                    wake_ms = self._start(tasks, writer, reign.cluster_id, started_ms)
                    await self._wait(wake_ms)
        finally:
            unsubscribe()
            self._groups = {}

    def _on_changes(self, changes: list[Change]) -> None:
        if any(change.kind in ("nodegroups", "machines") for change in changes):
            self._changed.set()

    async def _wait(self, wake_ms: int | None) -> None:
        within_s = None if wake_ms is None else max(0.01, wake_ms / 1000 - self._clock.now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()

    # -- what is due -----------------------------------------------------------------------------------------------

    def _start(self, tasks: asyncio.TaskGroup, writer: PlanWriter, cluster: str, started_ms: int) -> int | None:
        """Starts what is due; when something else will be."""
        snapshot, wakes = self._picture.snapshot(), []
        documents: dict[str, NodeGroupDoc] = dict(snapshot.of("nodegroups"))
        for name in sorted(self._groups.keys() - documents.keys()):
            _end(self._groups.pop(name))
        for _, document in sorted(documents.items()):
            group = self._group(document)
            machines = _machines(snapshot, document)
            _forget(group, machines)
            found = due(document.spec, machines, group.memory(), started_ms, self._now_ms())
            for machine in found.delete:
                self._call(tasks, group, "delete", machine, partial(self._delete, group, _order(cluster, document, machine)))
            for machine in found.create:
                order = _order(cluster, document, machine)
                self._call(tasks, group, "create", machine, partial(self._create, group, order, writer))
            if found.list and not group.listing:
                group.listing = True
                tasks.create_task(self._list(group, cluster))
            if found.wake_at_ms is not None:
                wakes.append(found.wake_at_ms)
        return min(wakes, default=None)

    def _group(self, document: NodeGroupDoc) -> _Group:
        known = self._groups.get(document.spec.name)
        if known is None or known.id != document.id or known.spec.provider != document.spec.provider:
            if known is not None:
                _end(known)
            known = self._groups[document.spec.name] = _Group(self._make(document.spec), document.spec, document.id)
        known.spec = document.spec
        return known

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(
        self, tasks: asyncio.TaskGroup, group: _Group, verb: Verb, machine: Machine, doing: Callable[[], Awaitable[str]]
    ) -> None:
        asked: Asked = (verb, machine.node)
        group.calls[asked] = tasks.create_task(self._outcome(group, asked, doing))

    async def _outcome(self, group: _Group, asked: Asked, doing: Callable[[], Awaitable[str]]) -> None:
        tries = 1 + (group.outcomes[asked].tries if asked in group.outcomes else 0)
        try:
            async with asyncio.timeout(group.spec.provider.timeout_s):
                machine_id = await doing()
            group.outcomes[asked] = Outcome(self._now_ms(), True, machine_id, "", tries)
        except ProviderError as error:
            group.outcomes[asked] = Outcome(self._now_ms(), False, "", str(error), tries, error.begun)
        except TimeoutError:
            said = f"{asked[0]} {asked[1]}: no answer within {group.spec.provider.timeout_s:g} s"
            group.outcomes[asked] = Outcome(self._now_ms(), False, "", said, tries)
        except ShoalError as error:  # the store's, when the token was written: not the provider's fault
            log.info("machines: %s %s: %s", *asked, error)
            await self._clock.sleep(RETRY_S)
        except Exception as error:
            log.exception("machines: %s %s failed", *asked)
            said = f"fault of shoal itself: {type(error).__name__}: {error}"
            group.outcomes[asked] = Outcome(self._now_ms(), False, "", said, tries)
        finally:
            group.calls.pop(asked, None)
            self._changed.set()
            self._decide()

    async def _create(self, group: _Group, order: Order, writer: PlanWriter) -> str:
        return await group.provider.create(order, await self._join(group, order.node, writer))

    async def _delete(self, group: _Group, order: Order) -> str:
        making = group.calls.get(("create", order.node))
        if making is not None:
            making.cancel()
            await asyncio.wait({making})
        await group.provider.delete(order)
        return order.id

    async def _list(self, group: _Group, cluster: str) -> None:
        asked_ms, before, within_s = self._now_ms(), group.report, min(LIST_S_MAX, group.spec.provider.timeout_s)
        failed = replace(before, tried_ms=asked_ms, missing=group.provider.missing())
        try:
            async with asyncio.timeout(within_s):
                found = await group.provider.list(cluster, group.spec.name)
            group.report = replace(failed, at_ms=asked_ms, machines=found, problem="")
        except ProviderError as error:
            group.report = replace(failed, problem=str(error))
        except TimeoutError:
            group.report = replace(failed, problem=f"list: no answer within {within_s:g} s")
        except Exception as error:
            log.exception("machines: the list of %s failed", group.spec.name)
            group.report = replace(failed, problem=f"fault of shoal itself: {type(error).__name__}: {error}")
        finally:
            _tell(group.spec.name, before, group.report)
            group.listing = False
            self._changed.set()
            self._decide()

    async def _join(self, group: _Group, node: str, writer: PlanWriter) -> Join:
        """A token for this machine alone. Raises StoreError, PlanConflict, NotLeader."""
        token_id = token_prefix(group.id, node) + self._random.token_hex(4)
        token = Token(self._ca_sha256, token_id, self._random.token_hex(24))
        expires_ms = self._now_ms() + round(group.spec.provision_s * 1000)
        document = TokenDoc(token.id, token.secret_sha256(), "worker", expires_ms)
        await writer.commit([Guard(key("tokens", token.id), 0)], [Put(key("tokens", token.id), codec.encode(document))])
        snapshot = self._picture.snapshot()
        known = [snapshot.one("leader"), *(row for _, row in sorted(snapshot.of("controllers").items()))]
        return Join(tuple(dict.fromkeys(row.api for row in known if row is not None and row.api)), token.text())

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _machines(snapshot: Snapshot, group: NodeGroupDoc) -> MachinesDoc:
    found: MachinesDoc | None = snapshot.of("machines").get(group.spec.name)
    return found if found is not None and found.id == group.id else MachinesDoc(group.id, group.spec.name)


def _order(cluster: str, group: NodeGroupDoc, machine: Machine) -> Order:
    labels = {**dict(group.spec.template.labels), GROUP_LABEL: group.spec.name}
    return Order(cluster, group.spec.name, machine.node, group.spec.template, tuple(sorted(labels.items())), machine.id)


def _forget(group: _Group, document: MachinesDoc) -> None:
    """What was said of machines that are gone."""
    names = {machine.node for machine in document.machines}
    for asked in [asked for asked in group.outcomes if asked[1] not in names]:
        del group.outcomes[asked]


def _tell(name: str, before: Report, now: Report) -> None:
    """Into the log, once, what has begun to go wrong."""
    for said in {now.problem, *now.missing} - {"", before.problem, *before.missing}:
        log.warning("node group %s: %s", name, said)


def _end(group: _Group) -> None:
    for task in tuple(group.calls.values()):
        task.cancel()
