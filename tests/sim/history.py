"""A history made by hand, for the tests of the checkers: documents written, containers started and ended, time passed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from model import codec
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    ClusterDoc,
    LeaderDoc,
    NodeDoc,
    NodeHealthDoc,
    ServiceDoc,
    key,
)  # fmt: skip
from model.spec import ContainerSpec, Pairs, ServiceSpec
from model.store_port import Delete, Op, Put
from sim.checks.watch import Checks


@dataclass(frozen=True)
class Made:
    """A container."""

    id: str
    service_id: str
    slot: int = 1
    created_ms: int = 1
    version: int = 1
    running: bool = True
    addresses: Pairs = ()
    ports: Pairs = ()


@dataclass
class History:
    """Three nodes of 4 cores and 8 GB, led by c1 in epoch 1."""

    at_s: float = 100.0
    trouble: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.checks = Checks(lambda: self.at_s, lambda node: float("inf") if node in self.trouble else 0.0)
        self.revision = 0
        self.api(cluster=ClusterDoc("x", 1))
        self.lead("c1", 1)
        for node in ("n1", "n2", "n3"):
            self.put("nodes", node, NodeDoc(node, f"id-{node}"))
            self.put("health", node, NodeHealthDoc(node, "ready"))
            self.checks.node_joined(node, 4.0, 8 << 30)
        self.later(200)

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.checks.violations]

    @property
    def texts(self) -> str:
        return "\n".join(map(str, self.checks.violations))

    def later(self, seconds: float) -> None:
        self.at_s += seconds

    def write(self, *ops: Op, place: str = "c1") -> None:
        self.revision += 1
        self.checks.wrote(place, ops, self.revision)

    def put(self, kind: str, name: str, document: Any, place: str = "c1") -> None:
        self.write(Put(key(kind, name), codec.encode(document)), place=place)

    def api(self, place: str = "c1", **documents: Any) -> None:
        """Documents that stand under their kind's own key."""
        self.write(*(Put(key(kind), codec.encode(document)) for kind, document in documents.items()), place=place)

    def lead(self, controller: str, epoch: int) -> None:
        self.api(place=controller, leader=LeaderDoc(controller, epoch), cluster=ClusterDoc("x", epoch))

    def service(self, name: str, scale: int = 1, **changes: Any) -> None:
        """A service; `version`, `stopped`, `container`, and any field of ServiceSpec."""
        head = {word: changes.pop(word) for word in ("version", "stopped") if word in changes}
        spec = ServiceSpec(name, changes.pop("container", ContainerSpec("web:1")), **changes)
        self.put("services", name, ServiceDoc(f"id-{name}", spec, scale, **head))

    def change(self, name: str, **changes: Any) -> None:
        document = self.checks.facts.docs["services"][name]
        self.put("services", name, replace(document, **changes))

    def remove(self, kind: str, name: str) -> None:
        self.write(Delete(key(kind, name)))

    def lose(self, node: str) -> None:
        """Something is wrong with it, and it is down."""
        self.trouble.add(node)
        self.put("health", node, NodeHealthDoc(node, "down"))

    def assign(self, place: str = "c1", /, **nodes: str) -> None:
        """`n1="web.1 web.2 db.1@2"`: what the node has from now on; `@`: the version, `/`: created_ms."""
        documents = [_document(node, text) for node, text in nodes.items()]
        self.write(*(Put(key("assignments", one.node), codec.encode(one)) for one in documents), place=place)

    def start(self, node: str, replica: str, container: str = "", **more: Any) -> Made:
        name, one = _replica(replica)
        box = Made(container or f"{node}-{replica}", f"id-{name}", one.slot, one.created_ms, one.version, **more)
        self.checks.container_started(node, box)
        return box

    def end(self, node: str, box: Made, why: str = "stopped") -> None:
        self.checks.container_ended(node, replace(box, running=False), 143, why)


def _replica(text: str) -> tuple[str, Assigned]:
    text, _, created = text.partition("/")
    text, _, version = text.partition("@")
    name, _, slot = text.rpartition(".")
    return name, Assigned(int(slot), int(version or 1), int(created or 1))


def _document(node: str, text: str) -> AssignmentDoc:
    services: dict[str, list[Assigned]] = {}
    for word in text.split():
        name, one = _replica(word)
        services.setdefault(name, []).append(one)
    rows = tuple(AssignedService.of(f"id-{name}", name, tuple(replicas)) for name, replicas in services.items())
    return AssignmentDoc(node, 1, rows)
