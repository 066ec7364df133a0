"""How each known bug is put back: by patching the product's code for one test.

Rules: a patch breaks one promise, in as few lines as the bug would have taken. What is patched must be there: a name that has
gone fails the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import agent.network.memory
import agent.plan.adopt
import agent.plan.core
import agent.plan.drain
import agent.plan.ipam
import agent.plan.restart
import controller.api.context
import controller.decide.needs
import controller.decide.nodes
import controller.decide.rollout
import controller.decide.scales
import controller.decide.scaling.readings
import controller.decide.standing
import controller.decide.work
import controller.loops.dirty
import scheduler.filters
from agent.core.perform import Performer
from agent.core.runner import Runner
from agent.plan import effects as fx
from controller.api.context import Api
from controller.decide.addresses import SliceBook
from controller.decide.batch import Batch
from controller.decide.draft import Draft
from controller.decide.index import Index
from controller.decide.scaling.types import ScaleFacts
from controller.decide.types import Settings, View
from controller.dispatch.endpoints import EndpointBook
from controller.dispatch.floor import FloorBook
from controller.loops.writer import PlanWriter
from controller.samples.store import MemorySamples
from controller.store.mirror import Mirror
from model.documents import NodeDoc
from model.errors import Conflict
from model.store_port import Put, StoreUnknown
from scheduler import Load

# ---- networks


def removals_are_not_told(patch: pytest.MonkeyPatch) -> None:
    message = EndpointBook.message

    def without(self: EndpointBook, network: str, told: int | None) -> Any:
        found, number = message(self, network, told)
        if found is not None:
            del found.removed[:]
        return found, number

    patch.setattr(EndpointBook, "message", without)


def addresses_are_reused_at_once(patch: pytest.MonkeyPatch) -> None:
    choose = agent.plan.ipam.next_address
    patch.setattr(agent.plan.ipam, "next_address", lambda cidr, taken, last: choose(cidr, taken, ""))
    patch.setattr(FloorBook, "_reached", lambda self, newest: newest)


def nobody_drains(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent.plan.drain, "due", lambda life: False)


def addresses_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    async def forgotten(self: Performer, effect: fx.DetachNetwork) -> fx.Stimulus:
        return fx.Done(effect.replica, effect.token)

    patch.setattr(Performer, "detach", forgotten)


def slices_are_given_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SliceBook, "take", lambda self, found: None)


# ---- what runs where


def surplus_stays(patch: pytest.MonkeyPatch) -> None:
    settle = controller.decide.standing.settle

    def keep_all(holders: Any) -> Any:
        standing = settle(holders)
        standing.surplus.clear()
        return standing

    patch.setattr(controller.decide.work, "settle", keep_all)


def removed_nodes_count(patch: pytest.MonkeyPatch) -> None:
    state, facts = Batch.state, Batch.facts

    def present(self: Batch, node: str) -> str:
        found = state(self, node)
        return "ready" if found == "gone" else found

    def known(self: Batch, node: str) -> Any:
        return facts(self, node) if node in self.view.nodes else self.index.facts(self.view, NodeDoc(node, node))

    patch.setattr(Batch, "_bury_gone_nodes", lambda self: set())
    patch.setattr(Batch, "state", present)
    patch.setattr(Batch, "facts", known)


def silence_counts_from_the_beginning(patch: pytest.MonkeyPatch) -> None:
    def since(view: View, *_: object) -> dict[str, int]:
        heard = {name: session.last_heard_ms for name, session in view.sessions.items()}
        return {name: max(heard.get(name, 0), node.joined_ms) for name, node in view.nodes.items()}

    patch.setattr(controller.decide.nodes, "_silent_since", since)
    losing_most_is_no_sign(patch)


def losing_most_is_no_sign(patch: pytest.MonkeyPatch) -> None:
    silence = controller.decide.nodes._silence

    def unheeded(view: View, settings: Settings, now_ms: int) -> Any:
        return replace(silence(view, settings, now_ms), held=False, returning=False)

    patch.setattr(controller.decide.nodes, "_silence", unheeded)


def drained_nodes_take_more(patch: pytest.MonkeyPatch) -> None:
    rows = scheduler.filters.STATIC
    patch.setattr(scheduler.filters, "STATIC", (rows[0], *rows[2:]))
    patch.setattr(scheduler.filters, "usable", lambda node: node.state == "ready")
    patch.setattr(controller.decide.work, "_leaving", lambda work, facts: "")


def ports_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    def free(self: Batch, wanted: Any, without: str = "", on: str = "") -> dict[str, list[Any]]:
        return {node: [] for node in ([on] if on else self.view.nodes)}

    patch.setattr(Batch, "ports", free)


def a_new_leader_finds_all_nodes_empty(patch: pytest.MonkeyPatch) -> None:
    take = Index._take_assignments

    def forget(self: Index, assignments: Any) -> None:
        first = not self._assignments
        take(self, assignments)
        if first:
            for node in self.loads:
                self.loads[node] = Load()

    patch.setattr(Index, "_take_assignments", forget)


def volumes_are_left_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Draft, "nodes_of", lambda self, volume: ())


def nodes_that_come_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.loops.dirty, "EVERY_SERVICE", frozenset())
    patch.setattr(Batch, "mind_slices", lambda self, look: None)  # when slices come free everything is decided again


def lost_nodes_keep_what_is_removed(patch: pytest.MonkeyPatch) -> None:
    drop = Draft.drop

    def only_up(self: Draft, node: str, name: str, replica: Any) -> None:
        health = self._view.health.get(node)
        if name in self._view.services or (health is not None and health.state == "ready"):
            drop(self, node, name, replica)

    def listed(self: Batch, dirty: Any) -> list[str]:
        return sorted(self.view.services if dirty is None else dirty)

    patch.setattr(Draft, "drop", only_up)
    patch.setattr(Batch, "names", listed)


# ---- updates and restarts


def no_back_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent.plan.restart, "backoff_s", lambda failures: 0.0)


def failing_updates_go_on(patch: pytest.MonkeyPatch) -> None:
    step = controller.decide.rollout.next_step

    def tolerant(doc: Any, slots: Any, now_ms: int) -> Any:
        spec = replace(doc.spec, update=replace(doc.spec.update, failure_action="continue"))
        return step(replace(doc, spec=spec), slots, now_ms)

    patch.setattr(controller.decide.needs, "next_step", tolerant)


def agents_clocks_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.decide.rollout, "credible", lambda agent_ms, created_ms, now_ms: agent_ms)


# ---- agents that are restarted


def running_containers_are_not_adopted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent.plan.core, "adopted", lambda saved, found, now: replace(saved, stage="none", netns="", dirty=True))


def half_made_containers_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    adopted = agent.plan.adopt.adopted

    def unnoted(saved: Any, found: Mapping[str, Any], now: float) -> Any:
        return adopted(saved if saved.stage in ("running", "exited") else replace(saved, container_id=""), found, now)

    async def but_orphans(self: Runner, effect: fx.Effect) -> fx.Stimulus | None:
        return None if isinstance(effect, fx.DeleteOrphan) else await do(self, effect)

    do = Runner._do
    patch.setattr(agent.plan.core, "adopted", unnoted)
    patch.setattr(Runner, "_do", but_orphans)


def ended_jobs_begin_anew(patch: pytest.MonkeyPatch) -> None:
    adopted = agent.plan.adopt.adopted

    def again(saved: Any, found: Mapping[str, Any], now: float) -> Any:
        life = adopted(saved, found, now)
        return replace(life, stage="none", dirty=True, ended=False) if life.stage == "exited" else life

    patch.setattr(agent.plan.core, "adopted", again)


def unwritten_containers_are_orphans(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent.plan.core, "unrecorded", lambda found, known, wanted: [])


# ---- the autoscaler


def what_is_missing_is_nothing(patch: pytest.MonkeyPatch) -> None:
    read = controller.decide.scaling.readings._reading

    def blind(*facts: Any) -> Any:
        found = read(*facts)
        return replace(found, unknown="", failing=False, begins=False)

    patch.setattr(controller.decide.scaling.readings, "_reading", blind)


def silent_nodes_have_no_callers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemorySamples, "_silent", lambda self: "")


def starting_replicas_do_not_count(patch: pytest.MonkeyPatch) -> None:
    value = controller.decide.scaling.readings._value

    def again(found: Any, minute: Any, facts: ScaleFacts) -> None:
        value(found, minute, facts)
        found.wanted = facts.scale + found.wanted - facts.ready if found.wanted > facts.ready else found.wanted

    patch.setattr(controller.decide.scaling.readings, "_value", again)


def apply_sets_the_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.decide.scales, "applied", lambda before, spec: (spec.replicas, None))


# ---- the store


def the_key_guards_nothing(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: PlanWriter, wanted: Any, ops: Any, known: Any = None) -> int:
        result = await self._store.txn([], ops)
        self._picture.from_own_puts(((op.key, op.value) for op in ops if isinstance(op, Put)), result.revision, known)
        return result.revision

    patch.setattr(PlanWriter, "commit", commit)


def unknown_is_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    commit = Api.commit

    async def done(self: Api, guards: Any, ops: Any) -> int:
        try:
            return await commit(self, guards, ops)
        except StoreUnknown:
            return self.picture.changed_at["services"]

    patch.setattr(Api, "commit", done)


def unknown_is_taken_for_failed(patch: pytest.MonkeyPatch) -> None:
    commit = Api.commit

    async def failed(self: Api, guards: Any, ops: Any) -> int:
        try:
            return await commit(self, guards, ops)
        except StoreUnknown:
            raise Conflict("the store did not answer: nothing was changed") from None

    patch.setattr(Api, "commit", failed)


def what_is_edited_is_an_old_picture(patch: pytest.MonkeyPatch) -> None:
    read = Api.read

    async def old(self: Api, kind: str, name: str) -> tuple[Any, int]:
        document, revision = await read(self, kind, name)
        return self.snapshot().of(kind).get(name, document), revision

    patch.setattr(Api, "read", old)


def lost_changes_stay_lost(patch: pytest.MonkeyPatch) -> None:
    async def never(self: Mirror) -> None:
        await asyncio.Event().wait()

    patch.setattr(Mirror, "_compare", never)
