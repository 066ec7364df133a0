"""A cluster of plain dicts with node groups: every second the cloud, the agents, the services and the machines get their turn.

Rules: no clock but `now_ms`. The cloud makes a machine `boot_s` after it was asked; what it does wrong is said in `lies`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from controller.decide.machines.calls import due
from controller.decide.machines.decide import decide_machines
from controller.decide.machines.types import Asked, Listed, MachineFacts, MachinesStep, Memory, Outcome, Report
from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec
from model.documents import PREFIX, MachinesDoc, NodeDoc, NodeGroupDoc, NodeInfo
from tests.scenarios.model_cluster import ModelCluster

GIB = 1 << 30
QUICK: dict[str, Any] = {"idle_s": 30.0, "after_add_s": 20.0, "provision_s": 60.0, "back_off_s": 20.0}


def group(name: str = "burst", **changes: Any) -> NodeGroupSpec:
    return NodeGroupSpec(name, **{
        "provider": ProviderSpec("exec", ("make",), ("delete",), ("list",)), "max": 4,
        "template": MachineTemplate(4.0, 8 * GIB), **QUICK, **changes,
    })  # fmt: skip


@dataclass
class Cloud:
    """`lies`: `create` fails, `mute` makes nothing and says that it did, `omit` lists nothing, `keep` deletes nothing and says
    that it did, `no-list` and `no-delete` fail."""

    boot_s: float = 5.0
    lies: set[str] = field(default_factory=set)
    there: dict[str, int] = field(default_factory=dict)
    """Machines by name, and when they join: Unix ms."""
    made: int = 0
    deleted: list[str] = field(default_factory=list)


class World:
    def __init__(self, *specs: NodeGroupSpec, nodes: int = 2) -> None:
        self.cluster = ModelCluster()
        self.groups = {spec.name: NodeGroupDoc(f"id-{spec.name}", spec) for spec in specs}
        self.machines: dict[str, MachinesDoc] = {}
        self.clouds = {spec.name: Cloud() for spec in specs}
        self.outcomes: dict[str, dict[Asked, Outcome]] = {spec.name: {} for spec in specs}
        self.reports = {spec.name: Report() for spec in specs}
        self.reign_ms = self.now_ms
        self.step = MachinesStep(decide_machines(self.facts(), self.now_ms).plan, {})
        self.said: list[str] = []
        self._served: list[Any] = []
        for number in range(1, nodes + 1):
            self.cluster.node(f"n{number}")

    @property
    def now_ms(self) -> int:
        return self.cluster.now_ms

    def facts(self) -> MachineFacts:
        view = replace(self.cluster.view(), groups=dict(self.groups), machines=dict(self.machines))
        memories = {name: Memory(self.reports[name], dict(self.outcomes[name])) for name in self.groups}
        return MachineFacts(view, self.cluster.settings, memories)

    def new_leader(self) -> None:
        """Who leads next remembers nothing."""
        self.reign_ms = self.now_ms
        self.outcomes = {name: {} for name in self.groups}
        self.reports = {name: Report() for name in self.groups}

    def names(self, name: str = "burst", *states: str) -> list[str]:
        rows = self.machines[name].machines if name in self.machines else ()
        return [row.node for row in rows if not states or row.state in states]

    def run(self, seconds: int) -> World:
        for _ in range(seconds):
            self.second()
        return self

    def second(self) -> None:
        cluster = self.cluster
        cluster.now_ms += 1_000
        for name, cloud in self.clouds.items():
            for node, at_ms in cloud.there.items():
                if self.now_ms >= at_ms and node not in cluster.docs["nodes"] and at_ms:
                    template = self.groups[name].spec.template
                    cluster.node(node, NodeInfo(cpus=template.cpus, memory_bytes=template.memory_bytes))
                    cloud.there[node] = 0  # joins once
        cluster.hear(*(name for name in cluster.docs["nodes"] if name not in cluster.dead))
        cluster.decide_nodes()
        self._serve()
        self.decide()
        for name in list(self.groups):
            self._ask(name)

    def _serve(self) -> None:
        """Services are decided and agents obey when anything is another document than it was."""
        docs = self.cluster.docs
        now = [doc for kind in sorted(docs) for _, doc in sorted(docs[kind].items())]
        if len(now) != len(self._served) or any(one is not other for one, other in zip(now, self._served, strict=True)):
            self.cluster.decide()
            self.cluster.agents()
            self._served = now

    def decide(self) -> MachinesStep:
        self.step = decide_machines(self.facts(), self.now_ms)
        self._apply()
        self.said += [event.sentence for event in self.step.plan.events]
        again = decide_machines(self.facts(), self.now_ms).plan
        assert again.empty(), f"twice is once, but: {again}"
        return self.step

    def _apply(self) -> None:
        plan = self.step.plan
        self.machines.update((doc.group, doc) for doc in plan.machines)
        self.cluster.docs["nodes"].update((doc.name, doc) for doc in plan.nodes)
        for path in plan.deletes:
            kind, _, name = path[len(PREFIX) :].partition("/")
            if kind == "nodes":
                self._forget(name)
            elif kind in ("nodegroups", "machines"):
                (self.groups if kind == "nodegroups" else self.machines).pop(name, None)

    def _forget(self, node: str) -> None:
        for rows in (self.cluster.docs["nodes"], self.cluster.sessions, self.cluster.running):
            rows.pop(node, None)

    def _ask(self, name: str) -> None:
        document = self.machines.get(name)
        if document is None:
            return
        spec, cloud = self.groups[name].spec, self.clouds[name]
        memory = Memory(self.reports[name], self.outcomes[name])
        found = due(spec, document, memory, self.reign_ms, self.now_ms)
        for machine in found.create:
            self._answer(name, "create", machine.node, self._create(cloud, machine.node))
        for machine in found.delete:
            self._answer(name, "delete", machine.node, self._delete(cloud, machine.node))
        if found.list:
            rows = tuple(Listed(node, f"id-{node}") for node in cloud.there) if "omit" not in cloud.lies else ()
            before = self.reports[name]
            self.reports[name] = (
                replace(before, problem="no answer", tried_ms=self.now_ms + 1)
                if "no-list" in cloud.lies
                else Report(self.now_ms + 1, rows, "", self.now_ms + 1)
            )

    def _answer(self, name: str, verb: Any, node: str, problem: str) -> None:
        tries = 1 + (self.outcomes[name][verb, node].tries if (verb, node) in self.outcomes[name] else 0)
        self.outcomes[name][verb, node] = Outcome(self.now_ms, not problem, f"id-{node}", problem, tries)

    def _create(self, cloud: Cloud, node: str) -> str:
        if "create" in cloud.lies:
            return "quota exceeded"
        cloud.made += 1
        if "mute" not in cloud.lies:
            cloud.there.setdefault(node, self.now_ms + round(cloud.boot_s * 1000))
        return ""

    def _delete(self, cloud: Cloud, node: str) -> str:
        if "no-delete" in cloud.lies:
            return "the service is unavailable"
        if "keep" not in cloud.lies:
            cloud.there.pop(node, None)
            self.cluster.dead.add(node)
            cloud.deleted.append(node)
        return ""

    def doc(self, node: str) -> NodeDoc:
        found: NodeDoc = self.cluster.docs["nodes"][node]
        return found

    def set_availability(self, node: str, availability: Any) -> None:
        self.cluster.docs["nodes"][node] = replace(self.doc(node), availability=availability)

    def waiting(self) -> int:
        """Replicas without a node, but for those that run everywhere: for them no machine is made."""
        return sum(bool(slot) for doc in self.cluster.docs["decisions"].values() for slot, _ in doc.waiting)
