"""What a service's standing lacks: scale-in, evictions, moves, the next rollout step, missing slots, networks.

Rules: removals are definite and happen here; everything that needs a node is collected in ONE group for the scheduler. A
replacement on the same node changes no load, so it is done here without asking, when the node still fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, filterfalse, islice
from itertools import count as numbers
from typing import Final

from controller.decide import victims
from controller.decide.batch import Batch
from controller.decide.fixed import address_problem
from controller.decide.rollout import next_step
from controller.decide.standing import Held, Key, Slot
from controller.decide.wording import counted, listed
from controller.decide.work import Work
from model.documents import Assigned
from scheduler import Amounts, Group, Load
from scheduler.filters import static_passes, static_reason
from scheduler.pool import PLENTY
from scheduler.ports import first_taken

_LOWEST: Final = tuple(range(1, 16_385))
"""Slots' numbers, the same objects in all services."""


def find(batch: Batch, work: Work) -> None:
    """Fills the work's group; drops what must go; says why."""
    _evict(batch, work)
    _scale_in(batch, work)
    _wire_networks(batch, work)
    _roll(batch, work)
    _number_missing(batch, work)
    _fill_group(batch, work)


def lose(batch: Batch, work: Work, node: str, replica: Assigned, by: str, service: str) -> None:
    """Take away one holder, to make room for the replica `by` of `service`; a slot without another one needs a node again."""
    batch.draft.drop(node, work.name, replica)
    slot = work.standing.slots.get(replica.slot)
    if slot is None or work.everywhere:
        return
    rolled = replica.slot in work.rolled
    gone = [held for held in slot.holders if held.node == node and (rolled or held.replica.created_ms == replica.created_ms)]
    slot.holders = [held for held in slot.holders if held not in gone]
    for waiting in (work.moves, work.swaps):
        if waiting.get(replica.slot) in gone:
            del waiting[replica.slot]
    work.prefer.pop(replica.slot, None)
    work.stopped[replica.slot] = f"{by} on {node}"
    if slot.holders:
        slot.primary = slot.holders[0]
        return
    del work.standing.slots[replica.slot]
    if not work.doc.stopped:
        work.lost_on[replica.slot] = f"stopped for {service}"
        work.waiting.clear()
        _number_missing(batch, work)
        _fill_group(batch, work)


def _evict(batch: Batch, work: Work) -> None:
    """What cannot be started elsewhere first leaves a drained (or, global, no longer fitting) node at once."""
    if not (work.tied or work.everywhere):
        return
    if work.standing.calm:
        return
    slots = work.standing.slots
    leaving = [key for key, slot in slots.items() if slot.primary.leaving]
    for key in leaving:
        held = slots[key].primary
        _drop_slot(batch, work, key)
        if not work.everywhere:
            work.lost_on[held.replica.slot] = held.leaving
    if leaving and work.everywhere:
        work.parts.append(
            ("removed", f"{counted(len(leaving))} removed: {listed([str(key) for key in leaving])}: not eligible")
        )


def _drop_slot(batch: Batch, work: Work, key: Key) -> list[Held]:
    slot = work.standing.slots.pop(key)
    for held in slot.holders:
        batch.draft.drop(held.node, work.name, held.replica)
    return slot.holders


def _scale_in(batch: Batch, work: Work) -> None:
    excess = 0 if work.everywhere else len(work.standing) - work.doc.scale
    if excess <= 0:
        return
    slots = work.standing.slots
    chosen = victims.choose(slots, excess, batch.index.loads, batch.view.busy.get(work.name, {}))
    gone = [_drop_slot(batch, work, key)[0] for key in chosen]
    names = listed([work.named(held) for held in sorted(gone, key=lambda held: held.replica.slot)])
    work.parts.append(("scaled", f"scaled in to {counted(work.doc.scale)}: removed {names}"))


def _wire_networks(batch: Batch, work: Work) -> None:
    """Plans for the service's networks; a network that cannot be had blocks new replicas."""
    if work.blocked or (not work.everywhere and not work.doc.scale):
        return
    for network in work.networks:
        why, fresh = batch.nets.ensure(network)
        if why:
            work.blocked = why
            return
        if fresh or work.doc.networks is not None:
            _slice_where_held(batch, work, network)
    for network, address in work.fixed:
        why = address_problem(batch, work.doc, network, address)
        if why:
            work.blocked = why
            return


def _slice_where_held(batch: Batch, work: Work, network: str) -> None:
    """For a network that came to running containers: nothing moves and nothing restarts for it."""
    for node in work.standing.by_node():
        if why := batch.nets.slice(network, node):
            work.notes.append(f"{node}: {why}")


def wire(batch: Batch, work: Work, node: str) -> str:
    """Slices of the service's networks, all or none, and (global services) the volumes' copies, for the node; else why not."""
    for network in work.networks[1:]:
        if why := batch.nets.refusal(network, node):
            return why
    for network in work.networks:
        if why := batch.nets.slice(network, node):
            return why
    if work.everywhere:
        for volume in work.volumes:
            have = batch.draft.nodes_of(volume)
            if node not in have:
                batch.draft.bind(volume, tuple(sorted((*have, node))))
    return ""


def _roll(batch: Batch, work: Work) -> None:
    """The next rollout step, and moves of replicas that leave."""
    if work.standing.calm:
        return
    slots = work.standing.slots
    for key, slot in slots.items():
        if slot.primary.leaving and isinstance(key, int) and not slot.primary.frozen:
            work.moves[key] = slot.primary
    step = next_step(work.doc, _replaceable(batch, work), batch.now_ms)
    batch.wake(work.name, step.wake_at_ms)
    if step.paused:
        work.notes.append(step.paused)
    if work.blocked:
        return
    start_first = work.doc.spec.update.order == "start-first" and not (work.everywhere or work.tied or work.group.ports)
    for key in step.replace:
        held = slots[key].primary
        if start_first and isinstance(key, int):
            work.moves[key], work.prefer[key] = held, held.node
        elif _fits_in_place(batch, work, held):
            batch.draft.drop(held.node, work.name, held.replica)
            fresh = Assigned(held.replica.slot, work.doc.version, work.created_ms)
            batch.draft.add(held.node, work.name, work.doc.id, fresh)
            work.rolled.append(key)
        elif isinstance(key, int):
            work.swaps[key] = held
    if work.rolled:
        left = sum(not slot.primary.current for slot in slots.values()) - len(work.rolled)
        names = listed([work.named(slots[key].primary) for key in work.rolled])
        work.parts.append(("updated", f"update to version {work.doc.version}: replaced {names}; {counted(left)} left"))


def _replaceable(batch: Batch, work: Work) -> Mapping[Key, Slot]:
    """Without the outdated replicas of a global service on nodes that take nothing now (paused, or drained and the job there
    done): they can be replaced nowhere else, and the rollout goes on without them."""
    slots = work.standing.slots
    if not work.everywhere or all(slot.primary.current for slot in slots.values()):
        return slots
    found: dict[Key, Slot] = {}
    for key, slot in slots.items():
        held = slot.primary
        why = "" if held.current or held.frozen or held.leaving else static_reason(batch.facts(held.node), work.group)
        if why:
            work.notes.append(f"{work.named(held)} stays at version {held.replica.version}: {why}")
        else:
            found[key] = slot
    return found


def _fits_in_place(batch: Batch, work: Work, held: Held) -> bool:
    facts, group = batch.facts(held.node), work.group
    load, want = batch.index.loads.get(held.node, Load()), group.reserve
    crowded = (want.cpus and load.cpus > facts.total.cpus) or (want.memory and load.memory > facts.total.memory)
    if not static_passes(facts, group) or crowded:
        return False
    if group.ports and first_taken(group.ports, batch.ports(group.ports, work.name, held.node)[held.node]):
        return False
    volumes = () if work.everywhere else group.volumes
    for volume in volumes:
        nodes = batch.draft.nodes_of(volume)
        if nodes and held.node not in nodes:
            return False
    for volume in volumes:
        if not batch.draft.nodes_of(volume):
            batch.draft.bind(volume, (held.node,))
    return not wire(batch, work, held.node)


def _number_missing(batch: Batch, work: Work) -> None:
    """Which slots have no holder: the lost, the evicted and those that wait first, then the lowest free numbers."""
    if work.everywhere:
        return
    want = work.doc.scale - len(work.standing)
    if want <= 0:
        return
    held = work.standing.numbers()
    for slot, node in work.standing.lost:
        work.lost_on.setdefault(slot, f"{node} is down")
    for slot, where in work.lost_on.items():
        work.lost_on[slot] = f"{where} was removed" if where in batch.gone else where
    before = batch.view.decisions.get(work.name)
    named = {*work.lost_on, *(slot for slot, _ in (before.waiting if before else ()))}
    vacant = [slot for slot in sorted(named) if slot not in held][:want]
    taken = {*held, *vacant}
    fresh = filterfalse(taken.__contains__, chain(_LOWEST, numbers(len(_LOWEST) + 1)))
    work.missing = sorted([*vacant, *islice(fresh, want - len(vacant))])


def _fill_group(batch: Batch, work: Work) -> None:
    wanted = sorted({*work.missing, *work.moves, *work.swaps})
    if work.blocked:
        work.waiting += [(slot, work.blocked) for slot in work.missing]
        if work.everywhere or _is_to_change(work):
            work.notes.append(work.blocked)
        return
    if not wanted and not work.everywhere:
        return
    have = work.standing.by_node()
    for held in work.swaps.values():
        have[held.node] -= 1
    group = replace(work.group, slots=wanted, existing=dict(have))
    if any(slot in work.prefer for slot in wanted):
        group = replace(group, prefer=tuple(work.prefer.get(slot, "") for slot in wanted))
    work.group = group
    shut(batch, work, partial(_left, batch))


def _is_to_change(work: Work) -> bool:
    standing = work.standing
    return not standing.calm and any(not slot.primary.current or slot.primary.leaving for slot in standing.slots.values())


def shut(batch: Batch, work: Work, left: Callable[[str], Amounts]) -> bool:
    """Keeps new replicas from nodes that get no slice of the service's networks; whether these are others than before. `left`:
    what a node has for them: those that have not enough need no slice."""
    if not work.networks:
        return False
    others = tuple(row for row in work.group.shun if row not in work.shut)
    takes = partial(_takes, batch, replace(work.group, shun=others), left)
    found = (row for network in work.networks if (row := batch.nets.shut_to(network, takes)) is not None)
    rows = tuple(dict.fromkeys(found))
    if rows == work.shut:
        return False
    work.group = replace(work.group, shun=tuple(dict.fromkeys((*others, *rows))))
    work.shut = rows
    return True


def _takes(batch: Batch, group: Group, left: Callable[[str], Amounts], node: str) -> bool:
    """Whether the node could take one more replica."""
    room = zip(group.reserve, left(node), strict=True)
    return static_passes(batch.facts(node), group) and all(not wants or wants <= has for wants, has in room)


def _left(batch: Batch, node: str) -> Amounts:
    """As the view says."""
    total, used = batch.facts(node).total, batch.index.loads.get(node, Load())
    pids = total.pids - used.pids if total.pids else PLENTY
    return Amounts(total.cpus - used.cpus, total.memory - used.memory, pids)
