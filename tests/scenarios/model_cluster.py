"""A cluster of plain dicts for the tests of pure decisions: plans are applied at once, agents obey when told to.

Rules: no clock; `now_ms` moves only when a test moves it. An agent runs what its assignment document says unless it is dead,
cut off, or told that a service does not start.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import islice
from typing import Any

from controller.decide.attached import networks_of
from controller.decide.index import Index
from controller.decide.nodes import decide_nodes
from controller.decide.services import decide_services
from controller.decide.types import Plan, Session, Settings, View
from model.documents import (
    PREFIX,
    Assigned,
    NetworkDoc,
    NodeDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ServiceDoc,
    StatusDoc,
    VolumeDoc,
)  # fmt: skip
from model.spec import Attachment, ContainerSpec, NetworkSpec, Pairs, Resources, ServiceSpec, VolumeSpec

KINDS = {"status": "statuses"}
INFO = NodeInfo(cpus=4.0, memory_bytes=8 << 30, pids=0)


class ModelCluster:
    """`dead`: agents that are gone with all containers running on; `broken`: (service, version) that end with code 1."""

    def __init__(self, settings: Settings | None = None, now_ms: int = 1_000_000) -> None:
        self.settings = settings or Settings(node_timeout_ms=3_000)
        self.now_ms = now_ms
        self.reign_ms = now_ms
        self.listened_ms: int | None = None
        self.docs: dict[str, dict[str, Any]] = defaultdict(dict)
        self.sessions: dict[str, Session] = {}
        self.dead: set[str] = set()
        self.broken: set[tuple[str, int]] = set()
        self.running: dict[str, dict[tuple[str, int, int], ReplicaStatus]] = defaultdict(dict)
        self.ended: set[tuple[str, int, int]] = set()
        self.index: Index | None = Index()
        self.wake_at_ms: int | None = None

    def __repr__(self) -> str:
        return repr({kind: self.docs[kind] for kind in sorted(self.docs)})

    def view(self) -> View:
        docs: dict[str, Any] = {KINDS.get(kind, kind): dict(rows) for kind, rows in self.docs.items()}
        docs.pop("tokens", None)
        sessions = dict(self.sessions)
        return View(
            **docs, sessions=sessions, reign_started_ms=self.reign_ms, listened_ms=self.listened_ms, index=self.index
        )  # fmt: skip

    def node(self, name: str, info: NodeInfo = INFO, **changes: Any) -> None:
        """A joined node that is heard and ready."""
        self.docs["nodes"][name] = NodeDoc(name, f"id-{name}", **changes)
        self.docs["status"].setdefault(name, StatusDoc(name, info))
        self.docs["health"].setdefault(name, NodeHealthDoc(name, "ready", self.now_ms))
        self.hear(name)

    def service(self, name: str, scale: int = 1, **changes: Any) -> ServiceDoc:
        """Put a service; `container`, `cpus`, `memory`, `networks` and any field of ServiceSpec."""
        container = changes.pop("container", ContainerSpec("busybox"))
        networks = tuple(Attachment(network) for network in changes.pop("networks", ()))
        container = replace(container, networks=networks) if networks else container
        reserve = Resources(changes.pop("cpus", 0.0), changes.pop("memory", 0), changes.pop("pids", 0))
        version = changes.pop("version", 1)
        spec = ServiceSpec(name, container, replicas=scale, reservations=reserve, **changes)
        doc = ServiceDoc(f"id-{name}", spec, scale, version)
        self.docs["services"][name] = doc
        return doc

    def network(self, name: str, subnet: str = "", **changes: Any) -> None:
        self.docs["networks"][name] = NetworkDoc(f"id-{name}", NetworkSpec(name, subnet=subnet, **changes))

    def volume(self, name: str, **changes: Any) -> None:
        self.docs["volumes"][name] = VolumeDoc(f"id-{name}", VolumeSpec(name, **changes))

    def change(self, name: str, **changes: Any) -> None:
        self.docs["services"][name] = replace(self.docs["services"][name], **changes)

    def hear(self, *names: str) -> None:
        for name in names:
            self.sessions[name] = Session(True, self.now_ms, True, self.sessions.get(name, Session()).generation)

    def decide(self, dirty: list[str] | None = None) -> Plan:
        plan = decide_services(self.view(), dirty, self.settings, self.now_ms)
        self.apply(plan)
        self.wake_at_ms = plan.wake_at_ms
        return plan

    def decide_nodes(self) -> Plan:
        plan = decide_nodes(self.view(), self.settings, self.now_ms)
        self.apply(plan)
        return plan

    def apply(self, plan: Plan) -> None:
        for kind in ("assignments", "netplans", "places", "health", "decisions", "svcplans"):
            for doc in getattr(plan, kind):
                self.docs[kind][getattr(doc, "node", "") or doc.name] = doc
        for key in plan.deletes:
            kind, _, name = key[len(PREFIX) :].partition("/")
            self.docs[kind].pop(name, None)

    def agents(self) -> None:
        """Every living agent does what its document says and reports."""
        for name in sorted(self.docs["nodes"]):
            if name in self.dead:
                continue
            self._obey(name)
            before = self.docs["status"].get(name, StatusDoc(name, INFO))
            rows = tuple(self.running[name][key] for key in sorted(self.running[name]))
            if rows != before.replicas:
                self.docs["status"][name] = replace(before, replicas=rows)

    def agents_stop_only(self) -> None:
        """Living agents stop what is no longer wanted, and have not yet started what is new."""
        for name in sorted(self.docs["nodes"]):
            if name not in self.dead:
                have = self.running[name]
                for key in have.keys() - self._wanted(name).keys():
                    del have[key]

    def _wanted(self, name: str) -> dict[tuple[str, int, int], tuple[str, Assigned]]:
        doc = self.docs["assignments"].get(name)
        return {
            (entry.service_id, replica.slot, replica.created_ms): (entry.name, replica)
            for entry in (doc.services if doc else ())
            for replica in entry.replicas
        }

    def _obey(self, name: str) -> None:
        if name in self.docs["assignments"]:
            self.sessions[name] = self.sessions[name]._replace(generation=self.docs["assignments"][name].generation)
        wanted = self._wanted(name)
        have = self.running[name]
        for key in [key for key in have if key not in wanted]:
            del have[key]
        for key, (service, replica) in wanted.items():
            broken = (service, replica.version) in self.broken
            addresses = self._attached(name, service, have[key].addresses if key in have else ())
            if key not in have or (key not in self.ended and broken != (have[key].state == "failed")):
                state, code = ("failed", 1) if broken else ("running", None)
                have[key] = ReplicaStatus(
                    key[0], replica.slot, replica.version, replica.created_ms, state, self.now_ms, f"{service}@{key[2]}",
                    exit_code=code, addresses=addresses,
                )  # fmt: skip
            elif addresses != have[key].addresses:
                have[key] = replace(have[key], addresses=addresses)

    def _attached(self, node: str, service: str, before: Pairs) -> Pairs:
        """A container's addresses: those it has on networks it is still on, else the lowest free one of the node's slice."""
        taken = {address for row in self.running[node].values() for _, address in row.addresses}
        known, found = dict(before), []
        for network in networks_of(self.docs["services"][service]) if service in self.docs["services"] else ():
            plan = self.docs["netplans"].get(network)
            own = dict(plan.slices).get(node) if plan else None
            hosts = [f"{host}" for host in islice(IPv4Network(own).hosts(), 1, None)] if own else []
            if address := known.get(network) or next((host for host in hosts if host not in taken), ""):
                found.append((network, address))
        return tuple(found)

    def finish(self, service: str, code: int = 0) -> None:
        """All containers of the service end."""
        for rows in self.running.values():
            for key, row in rows.items():
                if key[0] == f"id-{service}":
                    self.ended.add(key)
                    rows[key] = replace(row, state="failed" if code else "complete", exit_code=code, since_ms=self.now_ms)

    def kill(self, *names: str) -> None:
        """The machine is gone, with its containers."""
        self.cut(*names)
        for name in names:
            self.running[name].clear()

    def cut(self, *names: str) -> None:
        """The node cannot be reached; its containers run on."""
        for name in names:
            self.dead.add(name)
            self.sessions[name] = self.sessions[name]._replace(open=False, whole_status=False)

    def back(self, *names: str) -> None:
        """The nodes reach the controller again and report what runs before they are told anything."""
        for name in names:
            self.dead.discard(name)
            rows = tuple(self.running[name][key] for key in sorted(self.running[name]))
            self.docs["status"][name] = replace(self.docs["status"].get(name, StatusDoc(name, INFO)), replicas=rows)
            self.hear(name)

    def pass_time(self, ms: int) -> None:
        """Time goes by with all living nodes heard."""
        self.now_ms += ms
        self.hear(*(name for name in self.docs["nodes"] if name not in self.dead))

    def lose(self, *names: str) -> None:
        """Kill, and wait until that is decided."""
        self.kill(*names)
        self.expire()

    def expire(self) -> None:
        for _ in range(2):
            self.pass_time(self.settings.node_timeout_ms)
            self.decide_nodes()

    def converge(self, rounds: int = 60) -> int:
        """Decide and obey until nothing changes any more; how many rounds that took."""
        for number in range(rounds):
            plan = self.decide()
            before = {name: dict(rows) for name, rows in self.running.items()}
            self.agents()
            if plan.empty() and before == {name: dict(rows) for name, rows in self.running.items()}:
                if plan.wake_at_ms is None:
                    return number
                self.pass_time(max(0, plan.wake_at_ms - self.now_ms))
        raise AssertionError("does not converge")

    def where(self, service: str) -> dict[int, list[str]]:
        """Nodes by slot, from the assignment documents of nodes that are not down."""
        found: dict[int, list[str]] = defaultdict(list)
        for node, doc in sorted(self.docs["assignments"].items()):
            if self.docs["health"][node].state == "down":
                continue
            for entry in doc.services:
                if entry.name == service:
                    for replica in entry.replicas:
                        found[replica.slot].append(node)
        return dict(sorted(found.items()))

    def counts(self, service: str) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for nodes in self.where(service).values():
            for node in nodes:
                found[node] += 1
        return dict(sorted(found.items()))

    def containers(self, service: str) -> set[tuple[str, str]]:
        """(node, container id) of what runs."""
        return {
            (node, row.container_id)
            for node, rows in self.running.items() for key, row in rows.items()
            if key[0] == f"id-{service}" and row.state == "running"
        }  # fmt: skip
