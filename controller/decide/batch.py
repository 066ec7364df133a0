"""What all services of one pass share: the view and its index, the drafts, and what was said.

Rules: nodes that were removed (no node document) leave nothing behind: their documents are deleted by the pass that sees
them, and their replicas count as never placed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from controller.decide.draft import Draft
from controller.decide.idle import SLICES, next_look_ms, unused, without_replicas
from controller.decide.index import index_of
from controller.decide.nets import Nets
from controller.decide.ports import own_ports, told_claims
from controller.decide.svcplans import ServicePlans
from controller.decide.types import Plan, Preempted, Settings, View
from controller.decide.wording import told
from model.documents import Assigned, DecisionDoc, Event, key
from scheduler import ClusterView, Load, NodeFacts, Pool, PortClaim

SENTENCES_MAX = 20
WAITING_MAX = 100

Waiting = tuple[tuple[int, str], ...]


class Batch:
    def __init__(self, view: View, settings: Settings, now_ms: int) -> None:
        self.view, self.settings, self.now_ms = view, settings, now_ms
        self.index = index_of(view)
        self.draft = Draft(view)
        self.nets = Nets(view, settings)
        self.answers = ServicePlans(view, self.index, self.nets)
        self._own: dict[str, list[PortClaim]] | None = None
        self._by_id: dict[str, str] | None = None
        self.events: list[Event] = []
        self._decisions: dict[str, DecisionDoc] = {}
        self._deletes: set[str] = set()
        self._wakes: dict[str, int] = {}
        self.preempted: list[Preempted] = []
        self.gone = self._bury_gone_nodes()

    def names(self, dirty: Collection[str] | None) -> list[str]:
        """Services to decide about, sorted."""
        if dirty is None:
            view = self.view
            return sorted(
                {*view.services, *self.index.placed, *view.decisions, *view.svcplans, *view.scales, *view.scale_orders}
            )
        on_gone = {name for name, nodes in self.index.placed.items() if self.gone & nodes.keys()} if self.gone else set()
        return sorted({*dirty, *on_gone})

    def waiting_names(self) -> list[str]:
        return [name for name, doc in self.view.decisions.items() if doc.waiting or doc.notes]

    def state(self, node: str) -> str:
        """`ready`, `unreachable`, `down`, or `gone`."""
        if node not in self.view.nodes:
            return "gone"
        health = self.view.health.get(node)
        return health.state if health else "unreachable"

    def facts(self, node: str) -> NodeFacts:
        return self.index.facts(self.view, self.view.nodes[node])

    def cluster(self, volumes: Iterable[str], ports: Collection[PortClaim]) -> ClusterView:
        """For the scheduler: loads less what this pass has removed so far, `volumes` as bound, which of `ports` are taken on
        each node."""
        loads = {**self.index.loads, **self._freed()}
        nodes = [self.facts(name) for name in sorted(self.view.nodes)]
        places = {name: self.draft.nodes_of(name) for name in volumes}
        return ClusterView(nodes, loads, places, self.ports(ports) if ports else {}, self._generic())

    def pool(self, volumes: Iterable[str], ports: Collection[PortClaim]) -> Pool:
        """The same on the account that the index keeps: `restore` it when the groups are placed."""
        pool = self.index.pool(self.view)
        places = {name: self.draft.nodes_of(name) for name in volumes}
        pool.begin(places, self.ports(ports) if ports else {}, self._generic())
        for node, load in self._freed().items():
            if node in pool.at:
                pool.lend(node, load)
        return pool

    def _generic(self) -> dict[str, Counter[str]]:
        """By node what services have of its generic resources."""
        given: dict[str, Counter[str]] = {}
        for service, counts in self.index.generic.items():
            for node, replicas in self.draft.standing(service, self.index.placed.get(service, {})).items():
                for kind, count in counts:
                    given.setdefault(node, Counter())[kind] += count * replicas
        return given

    def _freed(self) -> dict[str, Load]:
        """The loads of the nodes where this pass has removed something."""
        loads = self.index.loads
        return {
            node: Load(*(have - back for have, back in zip(loads.get(node, Load()), freed, strict=True)))
            for node, freed in self.draft.freed(self.index.amounts).items()
        }

    def ports(self, wanted: Iterable[PortClaim], without: str = "", on: str = "") -> dict[str, list[PortClaim]]:
        """By node who stands there in the way of `wanted`, shoal itself too; `without` one service, `on` one node."""
        taken = {node: list(self.own_ports().get(node, ())) for node in ([on] if on else self.view.nodes)}
        asked = self.index.taken(self.view).asked
        rivals = dict.fromkeys(name for port in wanted for name in asked.get((port.protocol, port.number), ()))
        for service in rivals:
            claims = self.index.claims.get(service, ())
            if service == without or not claims:
                continue
            for node in self.draft.standing(service, self.index.placed.get(service, {})):
                if node in taken:
                    taken[node] += claims
        for node, claimed in taken.items():
            claimed += self._of_older_versions(node, without)
        return taken

    def _of_older_versions(self, node: str, without: str) -> Iterator[PortClaim]:
        """What replicas that are still to be updated have, whatever their service asks for by now."""
        for row in self.index.with_ports(self.view, node):
            name = self._names().get(row.service_id, without)
            entry = self.index.placed.get(name, {}).get(node)
            if entry is None or name == without or row.version == self.view.services[name].version:
                continue
            if Assigned(row.slot, row.version, row.created_ms) in self.draft.on(node, entry):
                yield from told_claims(row)

    def _names(self) -> dict[str, str]:
        """Of services, by id."""
        if self._by_id is None:
            self._by_id = {doc.id: name for name, doc in self.view.services.items()}
        return self._by_id

    def own_ports(self) -> dict[str, list[PortClaim]]:
        """Shoal's, by node."""
        if self._own is None:
            self._own = {}
            for claim, _, node in own_ports(self.view):
                self._own.setdefault(node, []).append(claim)
        return self._own

    def wake(self, service: str, at_ms: int | None) -> None:
        """Decide about the service again at `at_ms` (its earliest wish counts)."""
        if at_ms is not None:
            self._wakes[service] = min(max(at_ms, self.now_ms + 1), self._wakes.get(service, at_ms + 1))

    def delete(self, kind: str, name: str) -> None:
        self._deletes.add(key(kind, name))

    def say(self, service: str, parts: list[tuple[str, str]], waiting: Waiting, notes: tuple[str, ...]) -> None:
        """One event of the service and pass, and its decision document when it changed."""
        event = None
        if parts:
            event = Event(self.now_ms, parts[0][0], f"service/{service}", told([text for _, text in parts]))
            self.events.append(event)
        before = self.view.decisions.get(service, DecisionDoc(service))
        sentences = (*before.sentences, event)[-SENTENCES_MAX:] if event else before.sentences
        after = DecisionDoc(service, sentences, waiting[:WAITING_MAX], notes[:SENTENCES_MAX])
        if after != before:
            self._decisions[service] = after

    def forget(self, service: str, sentence: str) -> None:
        """The service is gone: its decision goes too, the event stays."""
        if sentence:
            self.events.append(Event(self.now_ms, "removed", f"service/{service}", sentence))
        if service in self.view.decisions:
            self.delete("decisions", service)
        self.unscale(service)

    def unscale(self, service: str) -> None:
        """It does not scale itself any more: what the autoscaler knew, and what people said to it, goes."""
        for kind, known in (("scales", self.view.scales), ("scaleorders", self.view.scale_orders)):
            if service in known:
                self.delete(kind, service)

    def mind_slices(self, look: bool) -> None:
        """At a `look` slices nobody uses are given back, and who waits is decided again; then or soon there is another one."""
        if self.draft.frees and self.view.netplans:
            self.wake(SLICES, next_look_ms(self.settings, self.now_ms))
        if not look:
            return
        known, soon = unused(self.view, without_replicas(self.view, self.index))
        freed, due_ms = self.nets.give_back(known, self.now_ms)
        for name, nodes in freed.items():
            who = f"{len(nodes)} nodes give" if len(nodes) > 1 else f"{nodes[0]} gives"
            text = f"{who} back a slice that nobody has used for {self.settings.slice_idle_ms / 60_000:g} min"
            self.events.append(Event(self.now_ms, "network", f"network/{name}", text))
        if freed:
            waiting = {name for name, doc in {**self.view.decisions, **self._decisions}.items() if doc.waiting}
            for name in sorted(waiting):
                self.wake(name, self.now_ms)
        self.wake(SLICES, next_look_ms(self.settings, self.now_ms) if soon else due_ms)

    def plan(self) -> Plan:
        for name in self.nets.gone():
            self.delete("netplans", name)
        for name in self.answers.deleted:
            self.delete("svcplans", name)
        if self.gone:
            self.nets.drop_nodes(self.gone)
        for name in self.index.with_fixed(self.view):
            self.nets.drop_fixed(name, self.index.taken(self.view).fixed.get(name, {}))
        return Plan(
            assignments=self.draft.assignments(),
            netplans=self.nets.changed(),
            svcplans=self.answers.changed(),
            places=self.draft.changed_places(),
            decisions=tuple(self._decisions[name] for name in sorted(self._decisions)),
            deletes=tuple(sorted(self._deletes)),
            events=tuple(self.events),
            wake_at_ms=min(self._wakes.values(), default=None),
            wakes=tuple(sorted(self._wakes.items())),
            sentence="; ".join(event.sentence for event in self.events[:3]),
            preempted=tuple(self.preempted),
        )

    def _bury_gone_nodes(self) -> set[str]:
        gone: set[str] = set()
        for kind, documents in (
            ("assignments", self.view.assignments), ("status", self.view.statuses), ("health", self.view.health),
        ):  # fmt: skip
            for name in self.index.orphans(kind, documents, self.view.nodes):
                gone.add(name)
                self.delete(kind, name)
        return gone
