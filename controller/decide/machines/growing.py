"""Which machines are added, and for whom.

Rules: only replicas that cannot be placed add machines, never a figure of load. Machines on their way count as there. One that
is being drained is taken back before a new one is made. Of the groups that help, the one whose new machines would stand the
least idle is chosen; then it is asked again who still waits. Then every group is brought to its `min` and its `buffer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.decide.batch import Batch
from controller.decide.machines.lives import node_state, take_back
from controller.decide.machines.pending import NEW, Asking, Cluster, Fit, asking, imagined, refusal
from controller.decide.machines.types import Crew
from controller.decide.wording import counted, listed
from scheduler import Load, NodeFacts

Rows = dict[str, tuple[NodeFacts, Load]]


@dataclass(frozen=True, slots=True)
class _Option:
    """So many machines of a group, what fits then, and which share of them stands idle."""

    crew: Crew
    count: int
    fit: Fit
    waste: float


@dataclass(frozen=True, slots=True)
class _Need:
    """Who waits in a cluster, and who of them would find a node without anything more."""

    batch: Batch
    cluster: Cluster
    fit: Fit

    @property
    def lacking(self) -> int:
        return sum(len(row.group.slots) for row in self.cluster.rows) - self.fit.count


def grow(batch: Batch, crews: Sequence[Crew]) -> None:
    need = _take_back(crews, _need(batch, crews))
    fit = _for_those_who_wait(crews, need) if need.cluster.rows else need.fit
    for crew in crews:
        _to_least(batch, crew)
        _to_spare(batch, crew, need.cluster, fit)


def _need(batch: Batch, crews: Sequence[Crew]) -> _Need:
    cluster = Cluster(batch, crews, asking(batch))
    return _Need(batch, cluster, cluster.fit() if cluster.rows else Fit({}))


def _take_back(crews: Sequence[Crew], need: _Need) -> _Need:
    """Machines that are being drained stay when that helps those who wait. Who was to move from them need not move then."""
    for crew in crews:
        for machine in crew.of("draining") if not crew.group.removing else ():
            view = need.batch.view
            if not need.lacking or node_state(view, machine.node) != "ready" or crew.staying >= crew.limit:
                continue
            nodes = {**view.nodes, machine.node: replace(view.nodes[machine.node], availability="active")}
            better = _need(Batch(replace(view, nodes=nodes), need.batch.settings, need.batch.now_ms), crews)
            if better.lacking < need.lacking:
                take_back(view, crew, machine, f"{counted(need.lacking)} had no room")
                need = better
    return need


def _for_those_who_wait(crews: Sequence[Crew], need: _Need) -> Fit:
    batch, cluster, fit = need.batch, need.cluster, need.fit
    while any(fit.placed[row.name] < len(row.group.slots) for row in cluster.rows):
        options = [found for crew in crews if (found := _option(batch, crew, cluster, fit)) is not None]
        if not options:
            break
        best = min(options, key=lambda row: (row.waste, -row.fit.count, row.count, row.crew.spec.name))
        names = best.crew.add(best.count, _who(cluster.rows, fit, best.fit))
        cluster.extend({name: imagined(batch, best.crew, name) for name in names})
        fit = cluster.fit()
    _explain(batch, crews, cluster, fit)
    return fit


def _option(batch: Batch, crew: Crew, cluster: Cluster, before: Fit) -> _Option | None:
    """The fewest machines of the group with which as many find a node as with all it may have."""
    most = crew.room
    if not most:
        return None
    facts, load = imagined(batch, crew, NEW)

    def more(count: int) -> Rows:
        names = [f"{NEW}-{number:05d}" for number in range(1, count + 1)]
        return {name: (replace(facts, name=name, hostname=name), load) for name in names}

    most = min(most, sum(len(row.group.slots) - before.placed[row.name] for row in cluster.rows))
    best = cluster.fit(more(most))
    if best.count <= before.count:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        found = cluster.fit(more(middle))
        if found.count >= best.count:
            high, best = middle, found
        else:
            low = middle + 1
    return _Option(crew, high, best, _waste(cluster.rows, facts, high, before, best))


def _waste(rows: Sequence[Asking], facts: NodeFacts, count: int, before: Fit, after: Fit) -> float:
    """The mean share of the new machines' cpus and memory that nobody has asked for."""
    cpus = sum((after.placed[row.name] - before.placed[row.name]) * row.group.reserve.cpus for row in rows)
    memory = sum((after.placed[row.name] - before.placed[row.name]) * row.group.reserve.memory for row in rows)
    shares = [asked / (total * count) for asked, total in ((cpus, facts.total.cpus), (memory, facts.total.memory)) if total]
    return 1.0 - sum(min(1.0, share) for share in shares) / len(shares) if shares else 1.0


def _who(rows: Sequence[Asking], before: Fit, after: Fit) -> str:
    """`3 replicas of shop_web had no room`."""
    more = [(row, after.placed[row.name] - before.placed[row.name]) for row in rows]
    return f"{listed([_those(row, number) for row, number in more if number > 0])} had no room"


def _to_least(batch: Batch, crew: Crew) -> None:
    for machine in crew.of("draining"):
        if crew.staying < crew.least and node_state(batch.view, machine.node) == "ready":
            take_back(batch.view, crew, machine, f"the group keeps at least {crew.least}")
    missing = min(crew.least - crew.staying, crew.room)
    if missing > 0:
        crew.add(missing, f"the group keeps at least {crew.least}")


def _to_spare(batch: Batch, crew: Crew, cluster: Cluster, fit: Fit) -> None:
    """Those who wait must find their places without the `buffer` machines that stay empty."""
    empty = [row.node for row in crew.of("creating", "joining", "ready") if row.state != "ready" or is_spare(batch, row.node)]
    missing = max(0, crew.spare - len(empty))
    while missing < crew.spare and cluster.rows:
        if cluster.fit(without=empty[: crew.spare - missing]).count >= fit.count:
            break
        missing += 1
    if count := min(missing, crew.room):
        crew.add(count, f"{counted(crew.spare, 'machine')} of it {'stays' if crew.spare == 1 else 'stay'} spare")


def is_spare(batch: Batch, node: str) -> bool:
    """Whether it takes replicas and has none but those that run everywhere."""
    document = batch.view.nodes.get(node)
    if document is None or document.availability != "active" or node_state(batch.view, node) != "ready":
        return False
    assigned = batch.view.assignments.get(node)
    names = [entry.name for entry in assigned.services] if assigned else []
    services = batch.view.services
    return not any(name in services and not services[name].spec.mode.startswith("global") for name in names)


def _explain(batch: Batch, crews: Sequence[Crew], cluster: Cluster, fit: Fit) -> None:
    """To every group, why it does not help those who still wait."""
    for row in cluster.rows:
        missing = len(row.group.slots) - fit.placed[row.name]
        for crew in crews if missing else ():
            why = refusal(batch, row, crew)
            if why:
                crew.refused.append((row.name, f"{_those(row, missing)} would not fit an empty machine either: {why}"))
            elif not crew.room:
                crew.refused.append((row.name, f"{_those(row, missing)} {'waits' if missing == 1 else 'wait'}: {_full(crew)}"))


def _those(row: Asking, count: int) -> str:
    """`3 replicas of shop_web`; where only one asks, its name."""
    return row.work.replica(row.group.slots[0]) if len(row.group.slots) == 1 else f"{counted(count)} of {row.name}"


def _full(crew: Crew) -> str:
    if crew.group.removing:
        return "the group is being removed"
    if crew.now_ms < crew.back_off_until_ms:
        left = (crew.back_off_until_ms - crew.now_ms) / 1000
        return f"after {counted(crew.failures, 'failure')} the next machine is made in {left:.0f} s"
    going = len(crew.machines) - crew.staying
    more = f" ({going} of them going)" if going else ""
    return f"the group has {counted(len(crew.machines), 'machine')} of at most {crew.limit}{more}"
