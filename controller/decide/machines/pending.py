"""Replicas that cannot be placed, and whether they could with other machines: asked of the real scheduler.

Rules: what waits comes from the same decision that places (`needs.find`), on a draft that nobody writes. A machine that does
not exist yet is an empty node with the template's amounts and labels, less what global services will take of it, and less
what the newest that has joined lacks of the template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.decide import needs
from controller.decide.batch import Batch
from controller.decide.machines.lives import node_state, template_labels
from controller.decide.machines.types import Crew
from controller.decide.work import Work, begin, demands
from scheduler import Amounts, ClusterView, Group, Load, NodeFacts, Pool, explain_in, fill_in, micro
from scheduler.filters import static_passes

NEW: Final = "~new"
"""Begins the names of nodes that are only imagined; no node's name can."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One service with replicas that need a node."""

    work: Work
    group: Group

    @property
    def name(self) -> str:
        return self.work.name


@dataclass(frozen=True, slots=True)
class Fit:
    """`placed`: by service how many found a node."""

    placed: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.placed.values())


def asking(batch: Batch) -> list[Asking]:
    """The services that wait for room, highest priority first. Global ones ask for no machines: they run where some are."""
    works = []
    for name in sorted(batch.waiting_names()):
        doc = batch.view.services.get(name)
        if doc is None or doc.stopped:
            continue
        work = begin(batch, doc)
        needs.find(batch, work)
        if work.group.slots and not work.blocked and not work.everywhere:
            works.append(Asking(work, work.group))
    return sorted(works, key=lambda row: -row.work.priority)


def imagined(batch: Batch, crew: Crew, name: str) -> tuple[NodeFacts, Load]:
    """An empty machine of the group, as it will be when it has joined."""
    template = crew.spec.template
    total = Amounts(int(micro(template.cpus) * crew.seen[0]), int(template.memory_bytes * crew.seen[1]))
    facts = NodeFacts(name, labels=template_labels(crew), hostname=name, total=total)
    return facts, _everywhere_on(batch, facts)


def _everywhere_on(batch: Batch, facts: NodeFacts) -> Load:
    """What global services take of a new node."""
    replicas = cpus = memory = pids = 0
    for doc in batch.view.services.values():
        if doc.spec.mode != "global" or doc.stopped:
            continue
        group = demands(batch, doc).group
        if static_passes(facts, group):
            replicas, cpus, memory = replicas + 1, cpus + group.reserve.cpus, memory + group.reserve.memory
            pids += group.reserve.pids
    return Load(replicas, cpus, memory, pids)


class Cluster:
    """The nodes there are, with those that are on their way as if they had come; and what would fit with more."""

    def __init__(self, batch: Batch, crews: Iterable[Crew], rows: Sequence[Asking]) -> None:
        self.batch, self.rows = batch, rows
        volumes = list(dict.fromkeys(name for row in rows for name in row.group.volumes))
        ports = list(dict.fromkeys(port for row in rows for port in row.group.ports))
        self._base = batch.cluster(volumes, ports)
        self._extra: dict[str, tuple[NodeFacts, Load]] = {}
        for crew in crews:
            for machine in crew.of("creating", "joining"):
                if node_state(batch.view, machine.node) != "ready":
                    self._extra[machine.node] = imagined(batch, crew, machine.node)

    def extend(self, rows: Mapping[str, tuple[NodeFacts, Load]]) -> None:
        """These are there from now on too."""
        self._extra.update(rows)

    def fit(self, more: Mapping[str, tuple[NodeFacts, Load]] | None = None, without: Sequence[str] = ()) -> Fit:
        """Who would find a node, with these nodes besides, and without those."""
        pool = Pool(self._with({**self._extra, **(more or {})}, without))
        placed: dict[str, int] = {}
        for rows in _by_priority(self.rows):
            for row, (pairs, _) in zip(rows, fill_in(pool, [row.group for row in rows]), strict=True):
                placed[row.name] = len(pairs)
        return Fit(placed)

    def _with(self, extra: Mapping[str, tuple[NodeFacts, Load]], without: Sequence[str]) -> ClusterView:
        nodes = [row for row in self._base.nodes if row.name not in extra] + [facts for facts, _ in extra.values()]
        loads = {**self._base.loads, **{name: load for name, (_, load) in extra.items()}}
        nodes = sorted((row for row in nodes if row.name not in without), key=lambda row: row.name)
        return replace(self._base, nodes=nodes, loads=loads)


def refusal(batch: Batch, row: Asking, crew: Crew) -> str:
    """Why even an empty machine of the group takes no replica of the service; empty when it does."""
    held = [name for name in row.group.volumes if batch.draft.nodes_of(name)]
    if held:
        return f"volume {held[0]} is on {' and '.join(batch.draft.nodes_of(held[0]))}"
    facts, load = imagined(batch, crew, NEW)
    pool = Pool(ClusterView([facts], {NEW: load}))
    one = replace(row.group, slots=row.group.slots[:1], existing={}, prefer=())
    ((_, short),) = fill_in(pool, [one])
    return "" if short is None else explain_in(pool, short).reason.removeprefix("1 node: ")


def _by_priority(rows: Sequence[Asking]) -> Iterable[list[Asking]]:
    """One batch for each priority, as the placing does it."""
    found: dict[int, list[Asking]] = {}
    for row in rows:
        found.setdefault(row.work.priority, []).append(row)
    return found.values()
