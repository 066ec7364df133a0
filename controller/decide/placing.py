"""All services of a pass are given their nodes: the highest priority first, and room is made for it where there is none.

Rules:
- One account of the nodes for the whole pass. Services of one priority are one batch for the scheduler.
- Who has no room after that may take that of lower priorities (preempting.py). Their slots are placed when it is their turn,
  so what is decided again on the same facts is nothing.
- Why somebody waits is asked when all have been placed: asked again, the answer is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from controller.decide import needs, preempting
from controller.decide.batch import Batch
from controller.decide.standing import Held
from controller.decide.types import Preempted
from controller.decide.wording import listed, placed
from controller.decide.work import Work
from scheduler import Amounts, Eviction, PortClaim, Short, bound_since, explain_in, fill_in, give_back, make_room
from scheduler.types import Pairs

VICTIMS_MAX: Final = 500
"""About so many replicas are stopped for others in one pass; then the next one goes on."""
GO_ON_MS: Final = 1_000

Prepare = Callable[[list[str]], list[Work]]
"""Makes the works of services that are not in the pass yet."""


def place(batch: Batch, works: list[Work], prepare: Prepare) -> None:
    """Gives every service of the pass its nodes. Services that lose replicas by it join `works`."""
    if any(work.asks for work in works):
        _Placing(batch, works, prepare).run()


class _Placing:
    def __init__(self, batch: Batch, works: list[Work], prepare: Prepare) -> None:
        self.batch, self.works, self.prepare = batch, works, prepare
        self.by_name = {work.name: work for work in works}
        self.asked: dict[str, Work] = {}
        self.short: dict[str, Short | None] = {}
        self.stopped: dict[str, list[tuple[Preempted, Work]]] = {}
        self.took: dict[str, list[Preempted]] = {}
        self.placed: dict[str, Pairs] = {}
        """What the scheduler found in this pass, by service."""
        self.refused: dict[str, dict[tuple[int, str], str]] = {}
        """What the scheduler found and could not be had, and why, by service."""
        self.victims = 0
        self.freed = False

    def run(self) -> None:
        """Priority after priority."""
        self.pool = self.batch.pool(self._volumes(), self._ports())
        held = dict(self.pool.volumes)
        try:
            while now := self._next_priority():
                self._settle(now, self._make_room)
                while others := [work for work in now if self._may_go_elsewhere(work)]:
                    self._settle(others, self._make_room)
            while others := [work for work in self.asked.values() if self._may_go_elsewhere(work)]:
                self._settle(others)
            preempting.say(self.works, self.stopped)
            for work in self.asked.values():
                self._tell(work)
        finally:
            self.pool.restore()
        for volume, nodes in bound_since(self.pool, held).items():
            _say_emptied(self.batch, self.works, volume, nodes)
            self.batch.draft.bind(volume, nodes)

    def _settle(self, works: Sequence[Work], then: Callable[[Sequence[Work]], None] = lambda _: None) -> None:
        """Places them; `then` does what it can for those that are short."""
        places = dict(self.pool.volumes)
        self._fill(works)
        then(works)
        self._fill(self._short_of(bound_since(self.pool, places)))

    def _next_priority(self) -> list[Work]:
        """The services whose turn it is: global ones first."""
        waiting = [work for work in self.works if work.asks and work.name not in self.asked]
        highest = max((work.priority for work in waiting), default=0)
        now = sorted((work for work in waiting if work.priority == highest), key=lambda work: not work.everywhere)
        self.asked.update((work.name, work) for work in now)
        return now

    def _short_of(self, volumes: Mapping[str, tuple[str, ...]]) -> list[Work]:
        """Services that wait for a node with volumes that have just got a place: a global service's copies."""
        shorts = [work for work in self.asked.values() if self.short[work.name] is not None] if volumes else []
        return [work for work in shorts if any(name in volumes for name in work.group.volumes)]

    def _volumes(self) -> list[str]:
        return list(dict.fromkeys(name for work in self.works for name in work.group.volumes if work.asks))

    def _ports(self) -> list[PortClaim]:
        return list(dict.fromkeys(port for work in self.works for port in work.group.ports if work.asks))

    # -- placing -------------------------------------------------------------------------------------------------

    def _fill(self, works: Sequence[Work]) -> None:
        """As far as they find nodes; what is left stays in their groups."""
        if not works:
            return
        for work, (pairs, short) in zip(works, fill_in(self.pool, [work.group for work in works]), strict=True):
            self.short[work.name] = short
            refused = self._take(work, pairs)
            self.refused[work.name] = refused
            if short is not None or refused:
                left = [*(slot for slot, _ in refused), *(short.slots if short else ())]
                existing = Counter(dict(work.group.existing)) + Counter(pair[1] for pair in pairs if pair not in refused)
                work.group = replace(work.group, slots=left, existing=existing, prefer=())

    def _may_go_elsewhere(self, work: Work) -> bool:
        """It waits, and for want of slices it was kept from other nodes than it would be now: since its turn nodes were given
        slices, or filled."""
        waits = bool(work.networks) and (self.short[work.name] is not None or bool(self.refused[work.name]))
        return waits and needs.shut(self.batch, work, self._left)

    def _left(self, node: str) -> Amounts:
        alike = self.pool.where[self.pool.at[node]]
        return Amounts(alike.cpus, alike.memory, alike.pids)

    def _take(self, work: Work, pairs: Pairs) -> dict[tuple[int, str], str]:
        """Put what the scheduler found into the draft; what cannot be had, and why."""
        refusals: dict[tuple[int, str], str] = {}
        batch, draft, doc, name = self.batch, self.batch.draft, work.doc, work.name
        if work.networks or work.everywhere:
            refused = {node: why for node in dict.fromkeys(node for _, node in pairs) if (why := needs.wire(batch, work, node))}
            for slot, node in pairs if refused else ():
                if node in refused:
                    refusals[slot, node] = refused[node]
                    give_back(self.pool, node, batch.index.amounts(name))
            left = [pair for pair in pairs if pair[1] not in refused] if refused else ()
            pairs = Pairs([slot for slot, _ in left], [node for _, node in left]) if refused else pairs
        draft.extend(name, doc.id, doc.version, work.created_ms, pairs)
        for slot, _ in pairs if work.swaps else ():
            old = work.swaps.get(slot)
            if old is not None:
                draft.drop(old.node, name, old.replica)
        known = self.placed.get(name)
        self.placed[name] = Pairs([*known.slots, *pairs.slots], [*known.nodes, *pairs.nodes]) if known else pairs
        return refusals

    # -- making room ---------------------------------------------------------------------------------------------

    def _make_room(self, works: Sequence[Work]) -> None:
        """For those of one priority that are short, one after the other; what comes free beside is for all of them."""
        self.freed = False
        if not self.batch.index.ranks.any_below(works[0].priority):
            return
        for work in works:
            if self.short[work.name] is None:
                continue
            if self.freed:
                self._fill([work])
            if self.short[work.name] is not None and self.victims < VICTIMS_MAX:
                self._evict_for(work)
        if self.freed:
            for work in works:
                if self.short[work.name] is not None:
                    self._fill([work])
        if self.victims >= VICTIMS_MAX:
            self.batch.wake(works[0].name, self.batch.now_ms + GO_ON_MS)

    def _evict_for(self, work: Work) -> None:
        group = replace(work.group, slots=[slot for slot in work.group.slots if _is_needed(work, slot)])
        if not group.slots and not group.everywhere:
            return
        tenancy = preempting.Standing(self.batch, work)
        evictions = make_room(self.pool, group, tenancy, VICTIMS_MAX - self.victims)
        done = [row for row in evictions if not needs.wire(self.batch, work, row.node)]
        for eviction in done:
            self._evict(work, eviction)
        if not any(eviction.victims for eviction in done):
            return
        self.freed = True
        self.pool.full.clear()
        if ports := self._ports():
            self.pool.begin(self.pool.volumes, self.batch.ports(ports))
        nodes = {eviction.slot: eviction.node for eviction in done}
        if not work.everywhere:
            work.group = replace(work.group, prefer=tuple(nodes.get(slot, "") for slot in work.group.slots))
        self._fill([work])

    def _evict(self, work: Work, eviction: Eviction) -> None:
        by = work.replica(eviction.slot, eviction.node)
        for victim in eviction.victims:
            replica = preempting.found(self.batch, victim)
            loser = self._work_of(victim.service)
            if replica is None or loser is None:
                continue
            needs.lose(self.batch, loser, victim.node, replica, by, work.name)
            give_back(self.pool, victim.node, self.batch.index.amounts(victim.service))
            self.victims += 1
            name = loser.replica(victim.slot, victim.node)
            row = Preempted(name, loser.name, victim.slot, victim.node, by, victim.why)
            self.batch.preempted.append(row)
            self.stopped.setdefault(loser.name, []).append((row, work))
            self.took.setdefault(work.name, []).append(row)

    def _work_of(self, name: str) -> Work | None:
        """The victim's service, in the pass from now on."""
        work = self.by_name.get(name)
        if work is None:
            for fresh in self.prepare([name]):
                work = self.by_name[name] = fresh
                self.works.append(fresh)
                if fresh.parts:  # it gave something back that this pass has not counted
                    self.batch.wake(name, self.batch.now_ms + 1)
                for volume in fresh.volumes:
                    self.pool.volumes.setdefault(volume, self.batch.draft.nodes_of(volume))
        return work

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self, work: Work) -> None:
        _tell_placed(work, self.placed.get(work.name, Pairs()))
        if rows := self.took.get(work.name):
            work.parts.append(("placed", f"{listed([f'{row.replica} on {row.node}' for row in rows])} made room"))
        for (slot, _), why in self.refused[work.name].items():
            _refuse(work, slot, why, "")
        short = self.short[work.name]
        if short is not None:
            refusal = explain_in(self.pool, short)
            before = self.batch.view.decisions.get(work.name)
            said = dict(before.waiting) if before else {}
            for slot in refusal.slots:
                _refuse(work, slot, refusal.reason, preempting.head(work, slot, said))


def _refuse(work: Work, slot: int, reason: str, head: str) -> None:
    """A slot without a node waits; one that has a holder stays with it. `head`: whom it made room for."""
    held = work.moves.get(slot) or work.swaps.get(slot)
    if held is None:
        work.waiting.append((slot, head + reason))
    else:
        name = work.replica(slot)
        work.notes.append(f"{name} stays on {held.node} ({held.leaving or f'version {held.replica.version}'}): {reason}")


def _is_needed(work: Work, slot: int) -> bool:
    """Whether others may be stopped for it: not for a replacement that is to be started first, its old one runs."""
    held = work.moves.get(slot)
    return held is None or bool(held.leaving)


def _say_emptied(batch: Batch, works: list[Work], volume: str, nodes: tuple[str, ...]) -> None:
    """A volume whose node was removed begins anew on another one: nobody may overlook that."""
    place = batch.view.places.get(volume)
    if place is None or not place.nodes or batch.draft.nodes_of(volume):
        return
    text = f"volume {volume} was on {' and '.join(place.nodes)}, which was removed: it begins empty on {' and '.join(nodes)}"
    for work in works:
        if volume in work.volumes:
            work.parts.append(("volume", text))


def _tell_placed(work: Work, found: Pairs) -> None:
    """One part for each cause: a lost node, a drained one, a new version, or simply wanted."""
    causes: dict[tuple[str, str], list[tuple[int, str]]] = {}
    if found and not (work.moves or work.swaps or work.lost_on):
        work.parts.append(("placed", placed(work.replica(*found[0]), found.nodes, "placed")))
        return
    for slot, node in found:
        held: Held | None = work.moves.get(slot) or work.swaps.get(slot)
        if held is not None and held.leaving:
            cause = ("moved", f"{held.leaving}: ")
        elif held is not None:
            cause = ("updated", f"update to version {work.doc.version}: ")
        elif slot in work.lost_on and not work.everywhere:
            cause = ("moved", f"{work.lost_on[slot]}: ")
        else:
            cause = ("placed", "")
        causes.setdefault(cause, []).append((slot, node))
    for (kind, why), pairs in causes.items():
        nodes = [node for _, node in pairs]
        verb = "started" if why else "placed"
        work.parts.append((kind, why + placed(work.replica(*pairs[0]), nodes, verb)))
