"""One service in a pass: what it holds, what it needs from the scheduler, what was said about it.

Rules: `collect` reads, never decides. A service that cannot be placed at all says why in `blocked`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controller.decide.attached import fixed_of, networks_of
from controller.decide.batch import Batch
from controller.decide.index import amounts_of
from controller.decide.rollout import credible
from controller.decide.standing import Held, Key, Slots, Standing, has_ended, is_ok, is_short_of_disk, settle
from controller.decide.wording import replica_name
from model.constraints import parse_constraints, parse_spread
from model.documents import Assigned, ReplicaStatus, ServiceDoc, VolumeDoc
from model.errors import BadInput
from model.states import RUNNING
from scheduler import Group, NodeFacts
from scheduler.filters import static_reason

DISK_FULL_MS: Final = 60_000
"""So long a replica that cannot start for lack of disk stays on its node."""
GIVEN_UP_MS: Final = 75_000
"""Longer than an agent pauses between two starts."""
_SHARED_DRIVERS: Final = frozenset({"nfs", "nfs4", "cifs"})


@dataclass(slots=True)
class Work:
    doc: ServiceDoc
    group: Group
    blocked: str = ""
    volumes: tuple[str, ...] = ()
    networks: list[str] = field(default_factory=list)
    shut: tuple[tuple[str, frozenset[str]], ...] = ()
    """The part of `group.shun` for want of slices."""
    fixed: list[tuple[str, str]] = field(default_factory=list)
    """(network, address) that its spec asks for."""
    standing: Standing = field(default_factory=Standing)
    created_ms: int = 0
    missing: list[int] = field(default_factory=list)
    moves: dict[int, Held] = field(default_factory=dict)
    """Slots whose holder stays until the new one runs."""
    swaps: dict[int, Held] = field(default_factory=dict)
    """Slots whose holder goes when the new one has a node."""
    prefer: dict[int, str] = field(default_factory=dict)
    rolled: list[Key] = field(default_factory=list)
    lost_on: dict[int, str] = field(default_factory=dict)
    parts: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """Slots without any holder."""
    notes: list[str] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)
    """Slots that had to make room in this pass, and for whom: `shop_web.1 on n2`."""

    @property
    def priority(self) -> int:
        return self.doc.spec.priority

    @property
    def asks(self) -> bool:
        """Whether it wants something of the scheduler."""
        return bool(self.group.slots) or (self.everywhere and not self.blocked and not self.doc.stopped)

    @property
    def name(self) -> str:
        return self.doc.spec.name

    @property
    def everywhere(self) -> bool:
        return self.doc.spec.mode in ("global", "global-job")

    @property
    def tied(self) -> bool:
        """Cannot run beside itself somewhere else: its volume, its node or its address is fixed, or it is a job."""
        return bool(self.volumes or self.fixed or self.doc.spec.placement.node) or self.doc.spec.mode.endswith("job")

    def replica(self, slot: int, node: str = "") -> str:
        return replica_name(self.name, slot, node, everywhere=self.everywhere, single=self.doc.spec.single)

    def named(self, held: Held) -> str:
        return f"{self.replica(held.replica.slot, held.node)} ({held.node})"


def local_volumes(doc: ServiceDoc, volumes: Mapping[str, VolumeDoc]) -> tuple[str, ...]:
    """Names of the volumes that stand on one node; those on a network file system do not."""
    names = []
    for mount in doc.spec.container.mounts:
        if mount.type != "volume" or not mount.source:
            continue
        volume = volumes.get(mount.source)
        if volume and dict(volume.spec.options).get("type", "") in _SHARED_DRIVERS:
            continue
        names.append(mount.source)
    return tuple(dict.fromkeys(names))


def begin(batch: Batch, doc: ServiceDoc) -> Work:
    """The service's demands and standing."""
    work = demands(batch, doc)
    if not _is_calm(batch, work):
        _collect(batch, work)
    return work


def demands(batch: Batch, doc: ServiceDoc) -> Work:
    """What each of its replicas asks of a node."""
    spec = doc.spec
    work = Work(doc, Group(spec.name), volumes=local_volumes(doc, batch.view.volumes), networks=networks_of(doc))
    work.fixed = fixed_of(doc) if work.networks else []
    try:
        work.group = Group(
            service=spec.name, reserve=amounts_of(spec.reservations), constraints=parse_constraints(spec.placement.constraints),
            platform=spec.container.platform, node=spec.placement.node,
            spread=tuple(parse_spread(text) for text in spec.placement.spread),
            max_per_node=spec.placement.max_replicas_per_node, strategy=batch.settings.strategy,
            volumes=work.volumes, everywhere=work.everywhere, ports=batch.index.claims.get(spec.name, ()),
            generic=spec.reservations.generic,
        )  # fmt: skip
    except BadInput as error:
        work.blocked = str(error)
    return work


def _is_calm(batch: Batch, work: Work) -> bool:
    """Whether no replica has to be looked at. Then the standing is there."""
    index, name = batch.index, work.name
    entries, stamp = index.placed.get(name, {}), index.stamps.get(name, 0)
    picky = not work.tied and (work.group.constraints or work.group.platform or work.group.node)
    leaves = (lambda node: bool(_leaving(work, batch.facts(node)))) if picky else None
    calm = index.calms.of(batch.view, work.doc, work.volumes, entries, stamp, leaves)
    if calm is None:
        return False
    work.standing = Standing.of_calm(
        calm.held, calm.lost, lambda: index.calms.living(entries), lambda: _slots(batch, work)
    )
    work.created_ms = max(batch.now_ms, calm.newest_ms + 1)
    return True


def _slots(batch: Batch, work: Work) -> Slots:
    """Of a calm service after all."""
    whole = Work(work.doc, work.group, volumes=work.volumes, fixed=work.fixed)
    _collect(batch, whole)
    return whole.standing.slots


def _collect(batch: Batch, work: Work) -> None:
    """The standing, from every replica."""
    doc, newest = work.doc, 0
    holders: dict[Key, list[Held]] = {}
    several: dict[Key, None] = {}
    done: dict[Key, Held] = {}
    lost: list[tuple[int, str]] = []
    entries = batch.index.placed.get(work.name, {})
    for node in sorted(entries):
        state, entry = batch.state(node), entries[node]
        if state == "gone" or entry.service_id != doc.id:
            _drop_entry(batch, work, node)
            continue
        statuses = batch.index.statuses(batch.view, node, doc.id)
        leaving = _leaving(work, batch.facts(node))
        ready, find, restart = state == "ready", statuses.get, doc.spec.container.restart
        for replica in entry.replicas:
            newest = max(newest, replica.created_ms)
            status = find((replica.slot, replica.created_ms))
            key: Key = node if work.everywhere else replica.slot
            ended = status is not None and status.state != RUNNING and has_ended(status, restart)
            held = Held(node, replica, status, is_ok(status, ready), replica.version == doc.version)
            if state != "down":
                if not ended:
                    held.leaving = leaving or _disk_full(batch, work, node, status, replica)
                if key in holders:
                    holders[key].append(held)
                    several[key] = None
                else:
                    holders[key] = [held]
            elif ended or work.everywhere:
                held.frozen = True
                done[key] = held
            else:
                lost.append((replica.slot, node))
    holders.update((key, [held]) for key, held in done.items() if key not in holders)
    for key in several:
        _find_spent(batch, work, holders[key])
    work.standing = settle(holders.items())
    work.standing.lost = [(slot, node) for slot, node in sorted(lost) if slot not in holders]
    work.created_ms = max(batch.now_ms, newest + 1)


def _find_spent(batch: Batch, work: Work, holders: list[Held]) -> None:
    """A status does not say whether its agent tries again: who has failed for longer than any pause between two attempts is
    taken for spent."""
    restart = work.doc.spec.container.restart
    pause_ms = GIVEN_UP_MS + round((restart.delay_s or 0.0) * 1000)
    for held in holders:
        if held.status is None or not held.failed:
            continue
        at = credible(held.status.since_ms, held.replica.created_ms, batch.now_ms) + pause_ms
        held.spent = has_ended(held.status, restart) or batch.now_ms >= at
        if not held.spent:
            batch.wake(work.name, at)


def _drop_entry(batch: Batch, work: Work, node: str) -> None:
    for replica in batch.index.placed[work.name][node].replicas:
        batch.draft.drop(node, work.name, replica)
        if node in batch.gone:
            work.lost_on[replica.slot] = node


def _leaving(work: Work, facts: NodeFacts) -> str:
    if facts.availability == "drain":
        return f"{facts.name} is drained"
    group = work.group
    if work.tied or not (group.constraints or group.platform or group.node):
        return ""
    reason = static_reason(facts, group) if facts.state == "ready" and facts.availability == "active" else ""
    return f"{facts.name}: {reason}" if reason else ""


def _disk_full(batch: Batch, work: Work, node: str, status: ReplicaStatus | None, replica: Assigned) -> str:
    """Why a replica leaves whose node has had no disk for it for a while."""
    if status is None or work.tied or work.everywhere or not is_short_of_disk(status):
        return ""
    at = replica.created_ms + DISK_FULL_MS
    if batch.now_ms < at:
        batch.wake(work.name, at)
        return ""
    work.group = _shunning(work.group, node, "disk full")
    return f"disk of {node} is full"


def _shunning(group: Group, node: str, reason: str) -> Group:
    return replace(group, shun=(*group.shun, (reason, frozenset([node]))))
