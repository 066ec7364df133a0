"""The small model's states and steps.

Rules: what decides is the real thing: decide_services and decide_nodes, the writer's operations and guards, the messages of the
dispatch, the agent's Core. Only what carries them is replaced: a store of one dict, a picture that is as old as the last `see`,
sessions whose messages are whole. Time stands still while anything can happen; then it goes on to the next thing that waits.
A step is one transaction, one message, or all that an agent does until it waits for something; a fault may cut that short after
each round of effects. c1 leads at first: which of the two makes no difference. Who has lost the lead learns it when it writes,
but its lease is over before another one's begins, and then it tells nodes nothing (controller/dispatch/outgoing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.core import wire
from agent.plan.core import Core
from agent.plan.desired import merge
from agent.plan.records import Desired
from controller.decide.types import Plan
from controller.dispatch.status import NodeStatus
from controller.loops.writer import guards, operations, split
from model import codec
from model.documents import LeaderDoc, NodeDoc, NodeInfo, ServiceDoc, StatusDoc, key
from model.spec import ContainerSpec, ServiceSpec
from model.store_port import Guard, Op, Put
from protos import node_pb2 as pb
from sim.small.control import Control, Reign, message, plan_of
from sim.small.node import Place
from sim.small.store import EMPTY, SmallStore

START_MS: Final = 1_000_000
LEADER: Final = key("leader")
NODES: Final = ("m1", "m2")
CONTROLLERS: Final = ("c1", "c2")
REPLICAS: Final = 2
NEVER_MS: Final = 1_000_000_000


class Small:
    """One state. `faults`: how many may still come."""

    def __init__(self, faults: int = 2) -> None:
        self.now_ms = START_MS
        self.faults = faults
        self.crashes = self.cuts = self.epoch = 0
        self.controllers = {name: Control() for name in CONTROLLERS}
        self.places = {name: Place(Core(name)) for name in NODES}
        service = ServiceDoc("id-web", ServiceSpec("web", ContainerSpec("busybox"), replicas=REPLICAS), REPLICAS, 1)
        puts = [Put(key("services", "web"), codec.encode(service))]
        for name in NODES:
            puts.append(Put(key("nodes", name), codec.encode(NodeDoc(name, f"id-{name}"))))
            status = StatusDoc(name, NodeInfo(cpus=4.0, memory_bytes=1 << 33))
            puts.append(Put(key("status", name), codec.encode(status)))
        self.store = EMPTY.written(puts)
        self.controllers = {name: Control() for name in CONTROLLERS}
        self._do_campaign(CONTROLLERS[0])

    def fork(self) -> Small:
        new = object.__new__(Small)
        new.now_ms, new.store, new.epoch = self.now_ms, self.store, self.epoch
        new.faults, new.crashes, new.cuts = self.faults, self.crashes, self.cuts
        new.controllers = dict(self.controllers)
        new.places = dict(self.places)
        return new

    def _touched(self, node: str) -> Place:
        """The node, for this state alone to change."""
        place = self.places[node] = self.places[node].fork()
        return place

    def key(self) -> object:
        controllers = tuple(
            (row.seen.against(self.store), row.reign and row.reign.epoch, self._leads(name), row.whole, row.heard, row.deaf)
            for name, row in self.controllers.items()
        )
        places = tuple(place.key() for place in self.places.values())
        return hash((self.now_ms, self.faults, self.crashes, self.cuts, self.store.contents(), controllers, places))

    def _leads(self, name: str) -> bool:
        """Whether its writes would be taken."""
        reign = self.controllers[name].reign
        return reign is not None and self.store.holds([Guard(LEADER, reign.revision)])

    # ---- what can happen

    def steps(self) -> Sequence[str]:
        """Time passes when nothing else does; whether a cut node is healed before or after is open."""
        found = [*self._of_controllers(), *self._of_nodes()]
        if not found and self._next_ms() is not None:
            found.append("wait")
        heals = [f"heal {node}" for node, place in self.places.items() if place.cut]
        return [*found, *heals, *(self._faults() if self.faults else ())]

    def _of_controllers(self) -> list[str]:
        """How old a standby's picture is makes no difference: a reign begins with one at least as new as its key (lead.py)."""
        found = []
        for name, row in self.controllers.items():
            if row.reign is None:
                if LEADER not in self.store.rows:
                    found.append(f"campaign {name}")
                continue
            if row.seen is not self.store:
                found.append(f"see {name}")
            if not self._leads(name):
                found.append(f"abdicate {name}")
            found += [f"{what} {name}" for what in ("services", "nodes") if not self._plan(what, name).empty()]
        return found

    def _of_nodes(self) -> list[str]:
        found = []
        for node, place in self.places.items():
            if place.pending:
                found.append(f"work {node}")
            if place.cut:
                continue
            if self._session(node) is None:
                found += [
                    f"connect {node} {name}"
                    for name, row in self.controllers.items()
                    if row.reign is not None and row.reign.epoch >= place.epoch and self._leads(name)
                ]
            else:
                if self._leads(place.session) and self._desired(node) != place.core.desired:
                    found.append(f"hear {node}")
                if self._news(node):
                    found.append(f"report {node}")
        return found

    def _faults(self) -> list[str]:
        found = [f"crash {node} {box.id}" for node, place in self.places.items() for box in place.running()]
        for node, place in self.places.items():
            found += [f"restart {node} {rounds}" for rounds in range(max(1, place.rounds(self._now())))]
        found += [f"cut {node}" for node, place in self.places.items() if not place.cut]
        found += ["depose"] if LEADER in self.store.rows else []
        return found + [f"deafen {name}" for name, row in self.controllers.items() if row.reign and not row.deaf]

    # ---- controllers

    def _do_see(self, name: str) -> None:
        self._control(name, seen=self.store)

    def _do_campaign(self, name: str) -> None:
        self.epoch += 1
        document = LeaderDoc(name, self.epoch, since_ms=self.now_ms, id=name)
        self.store = self.store.written([Put(LEADER, codec.encode(document))])
        reign = Reign(self.epoch, self.store.revision, self.now_ms)
        self._control(name, reign=reign, whole=(), heard=(), seen=self.store)

    def _do_abdicate(self, name: str) -> None:
        """It has noticed that its lease is gone: its sessions are sent away."""
        self._control(name, reign=None, whole=(), heard=(), deaf=False, seen=EMPTY)
        for node in [node for node, place in self.places.items() if place.session == name]:
            self._touched(node).session = ""

    def _do_services(self, name: str) -> None:
        self._write(name, "services")

    def _do_nodes(self, name: str) -> None:
        self._write(name, "nodes")

    def _write(self, name: str, what: str) -> None:
        snapshot = self.controllers[name].seen.snapshot()
        for run in split(operations(self._plan(what, name))):
            if not self._commit(name, guards(run, snapshot), run):
                return

    def _commit(self, name: str, wanted_: Sequence[Guard], ops: Sequence[Op]) -> bool:
        """One transaction under the leader's key. What succeeded is seen at once; of an unknown outcome nothing is assumed."""
        row = self.controllers[name]
        assert row.reign is not None
        if not self.store.holds([*wanted_, Guard(LEADER, row.reign.revision)]):
            self._control(name, seen=self.store)
            return False
        before, self.store = self.store, self.store.written(ops)
        if row.deaf:
            self._control(name, deaf=False)
            return False
        rows = dict(row.seen.rows) | {op.key: self.store.rows[op.key] for op in ops if isinstance(op, Put)}
        self._control(name, seen=self.store if row.seen is before else SmallStore(rows, self.store.revision))
        return True

    def _control(self, name: str, **changes: object) -> None:
        self.controllers[name] = replace(self.controllers[name], **changes)  # type: ignore[arg-type]

    def _plan(self, what: str, name: str, heard_ms: int = 0) -> Plan:
        """`heard_ms`: so much later than now those who are heard were heard."""
        row = self.controllers[name]
        open_ = {node: place.cut for node, place in self.places.items() if place.session == name}
        return plan_of(what, row, row.sessions(open_, self.now_ms + heard_ms), self.now_ms)

    # ---- nodes

    def _session(self, node: str) -> Control | None:
        """The leading controller it talks to."""
        row = self.controllers.get(self.places[node].session)
        return row if row is not None and row.reign is not None else None

    def _do_connect(self, node: str, name: str) -> None:
        place, reign = self._touched(node), self.controllers[name].reign
        assert reign is not None
        place.session, place.epoch = name, reign.epoch
        row = self.controllers[name]
        self._control(name, heard=tuple(item for item in row.heard if item[0] != node))

    def _do_hear(self, node: str) -> None:
        self._touched(node).desire(self._desired(node), self._now())

    def _desired(self, node: str) -> Desired:
        """What the node would run after the whole message that its session would send now."""
        row, place = self._session(node), self.places[node]
        assert row is not None
        seen, before = row.seen, replace(place.core.desired, specs=())
        return place.once("desired", seen, lambda: merge(before, wire.desired_message(message(seen, node))))

    def _do_work(self, node: str) -> None:
        self._touched(node).work(self._now())

    def _news(self, node: str) -> bool:
        row = self._session(node)
        assert row is not None
        return node not in row.whole or self._status(node, row) is not None

    def _status(self, node: str, row: Control) -> StatusDoc | None:
        return self.places[node].once("status", row.seen, lambda: self._reported(node, row.seen))

    def _reported(self, node: str, seen: SmallStore) -> StatusDoc | None:
        before: StatusDoc = seen.snapshot().of("status")[node]
        status, place = NodeStatus(before), self.places[node]
        rows = [wire.replica(item) for item in place.core.statuses()]
        status.merge(pb.Status(whole=True, replicas=rows))
        status.take_generation(place.core.desired.generation)
        return status.document(before, self.now_ms)

    def _do_report(self, node: str) -> None:
        name = self.places[node].session
        row = self.controllers[name]
        document = self._status(node, row)
        if node not in row.whole:
            self._control(name, whole=(*row.whole, node))
        if document is not None:
            self._commit(name, (), [Put(key("status", node), codec.encode(document))])

    # ---- time

    def _do_wait(self) -> None:
        at_ms = self._next_ms()
        assert at_ms is not None
        self.now_ms = at_ms
        for node in NODES:
            at = self.places[node].core.wake_at()
            if at is not None and at <= self._now():
                self._touched(node).wake(self._now())

    def _next_ms(self) -> int | None:
        """When the next thing that waits is due. Nobody waits for the silence of a node that is heard."""
        times = [round(at * 1000) for place in self.places.values() if (at := place.core.wake_at()) is not None]
        for name, row in self.controllers.items():
            if row.reign is not None and self._leads(name):
                plans = [self._plan("services", name)]
                if any(place.cut for place in self.places.values()):
                    plans.append(self._plan("nodes", name, heard_ms=NEVER_MS))
                times += [plan.wake_at_ms for plan in plans if plan.wake_at_ms is not None]
        return min((at for at in times if self.now_ms < at < self.now_ms + NEVER_MS), default=None)

    def _now(self) -> float:
        return self.now_ms / 1000

    # ---- faults

    def _do_crash(self, node: str, container_id: str) -> None:
        self._fault()
        self.crashes += 1
        self._touched(node).end(container_id, 1)

    def _do_restart(self, node: str, rounds: str) -> None:
        self._fault()
        self._silent(node)
        place = self._touched(node)
        place.work(self._now(), int(rounds))
        place.restart(self._now())

    def _do_cut(self, node: str) -> None:
        self._fault()
        self.cuts += 1
        self._silent(node)
        self._touched(node).cut = True

    def _do_heal(self, node: str) -> None:
        place = self._touched(node)
        place.cut, place.session = False, ""

    def _do_depose(self) -> None:
        """The leader's lease runs out; it does not know."""
        self._fault()
        rows = {name: row for name, row in self.store.rows.items() if name != LEADER}
        self.store = SmallStore(rows, self.store.revision + 1)

    def _do_deafen(self, name: str) -> None:
        self._fault()
        self._control(name, deaf=True)

    def _fault(self) -> None:
        self.faults -= 1

    def _silent(self, node: str) -> None:
        name = self.places[node].session
        if name:
            row = self.controllers[name]
            kept = tuple(item for item in row.heard if item[0] != node)
            self._control(name, heard=(*kept, (node, self.now_ms)), whole=tuple(item for item in row.whole if item != node))

    def after(self, step: str) -> Small:
        new = self.fork()
        verb, *words = step.split()
        getattr(new, f"_do_{verb}")(*words)
        return new

    # ---- what must hold

    def wrong(self) -> str:
        """A slot runs once on a node, twice only when the cluster cannot know of one; nothing is started without a reason."""
        holders = [(box.replica.slot, node) for node, place in self.places.items() for box in place.running()]
        if len(set(holders)) < len(holders):
            return f"a slot runs twice on one node: {sorted(holders)}"
        if len(dict(holders)) < len(holders) and not self.cuts:
            return f"a slot runs twice although every node was always heard: {sorted(holders)}"
        starts = sum(place.starts for place in self.places.values())
        allowed = REPLICAS * (1 + self.cuts) + self.crashes
        if starts > allowed:
            return f"{starts} starts, where {allowed} had a reason: a healthy container was started again"
        return ""

    def unfinished(self) -> str:
        running = [(box.replica.slot, node) for node, place in self.places.items() for box in place.running()]
        if len(running) != REPLICAS or len(dict(running)) != REPLICAS:
            return f"at rest with {sorted(running)} running"
        left = [box for place in self.places.values() for box in place.containers.values() if box.state != "running"]
        return f"left over: {left}" if left else ""
