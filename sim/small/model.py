"""The small model's states and steps.

Rules: what decides is the real thing: decide_services and decide_nodes, the writer's operations and guards, the messages of the
dispatch, the agent's Core. Only what carries them is replaced: a store of one dict, a picture that is as old as the last `see`,
sessions whose messages are whole. Time stands still while anything can happen; then it goes on to the next thing that waits.
A step is one transaction, one message, or all that an agent does until it waits for something; a fault may cut that short after
each round of effects. c1 leads at first: which of the two makes no difference. Who has lost the lead learns it when it writes,
but its lease is over before another one's begins, and then it tells nodes nothing (controller/dispatch/outgoing.py). Sessions
begin only with who leads, so epochs would tell nodes nothing.

A state is made of the store, two controllers and two nodes, each of them one object for each content (store.py, control.py,
node.py): a step is worked out once for the parts it touches, in however many states they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

from model import codec
from model.documents import NodeDoc, NodeInfo, ServiceDoc, StatusDoc, key
from model.spec import ContainerSpec, ServiceSpec
from model.store_port import Put
from sim.small.control import Control, Decided
from sim.small.node import Place
from sim.small.store import SmallStore, Write

START_MS: Final = 1_000_000
NODES: Final = ("m1", "m2")
CONTROLLERS: Final = ("c1", "c2")
NOBODY: Final = -1
_STATUS: Final = tuple(key("status", name) for name in NODES)
REPLICAS: Final = 2
NEVER_MS: Final = 1_000_000_000
_KEY: Final = Struct("<IBbBbIIIIbBIbB")


class Small:
    """One state; controllers and nodes go by their index. `faults`: how many may still come. `spare`: for so many more starts
    of a container there is a reason. `parted`: a node was cut off once. `sessions`: with whom each node has one; `cut`: nothing
    gets through to the node."""

    __slots__ = ("controllers", "cut", "faults", "leader", "now_ms", "parted", "places", "sessions", "spare", "store")

    def __init__(self, faults: int = 2) -> None:
        self.now_ms = START_MS
        self.faults, self.spare, self.parted = faults, REPLICAS, False
        service = ServiceDoc("id-web", ServiceSpec("web", ContainerSpec("busybox"), replicas=REPLICAS), REPLICAS, 1)
        puts = [Put(key("services", "web"), codec.encode(service))]
        for name in NODES:
            puts.append(Put(key("nodes", name), codec.encode(NodeDoc(name, f"id-{name}"))))
            status = StatusDoc(name, NodeInfo(cpus=4.0, memory_bytes=1 << 33))
            puts.append(Put(key("status", name), codec.encode(status)))
        nothing = SmallStore.first()
        control, place = Control.first(nothing), Place.first("m")
        self.store = nothing.written(Write((), tuple(puts)))
        self.leader, self.controllers = NOBODY, (control, control)
        self.places, self.sessions, self.cut = (place, place), (NOBODY, NOBODY), (False, False)
        self._do_campaign(0)

    def after(self, step: str) -> Small:
        new = object.__new__(Small)
        new.now_ms, new.faults, new.spare, new.parted = self.now_ms, self.faults, self.spare, self.parted
        new.leader, new.store, new.controllers = self.leader, self.store, self.controllers
        new.places, new.sessions, new.cut = self.places, self.sessions, self.cut
        work, words = _parsed(step)
        work(new, *words)
        return new

    def key(self) -> bytes:
        (one, two), (c1, c2), (s1, s2), (cut1, cut2) = self.places, self.controllers, self.sessions, self.cut
        return _KEY.pack(
            self.now_ms, self.faults, self.spare, self.parted, self.leader, self.store.number,
            c1.number, c2.number, one.number, s1, cut1, two.number, s2, cut2,
        )  # fmt: skip

    # ---- what can happen

    def steps(self) -> Sequence[str]:
        """Time passes when nothing else does; whether a cut node is healed before or after is open."""
        found: list[str] = []
        self._of_controllers(found)
        self._of_nodes(found)
        if not found and self._next_ms() is not None:
            found.append("wait")
        found += [f"heal {NODES[at]}" for at, cut in enumerate(self.cut) if cut]
        if self.faults:
            self._of_faults(found)
        return found

    def _of_controllers(self, found: list[str]) -> None:
        """How old a standby's picture is makes no difference: a reign begins with one at least as new as its key (lead.py)."""
        for at, control in enumerate(self.controllers):
            name = CONTROLLERS[at]
            if control.reign_ms is None:
                if self.leader == NOBODY:
                    found.append(f"campaign {name}")
                continue
            if control.stale:
                found.append(f"see {name}")
            if self.leader != at:
                found.append(f"abdicate {name}")
            found += [f"{what} {name}" for what in ("services", "nodes") if self._decided(what, at).writes]

    def _of_nodes(self, found: list[str]) -> None:
        for at, place in enumerate(self.places):
            if place.pending:
                found.append(f"work {NODES[at]}")
            if self.cut[at]:
                continue
            name, session = NODES[at], self.sessions[at]
            if session == NOBODY:
                if self.leader != NOBODY:
                    found.append(f"connect {name}")
                continue
            control = self.controllers[session]
            if self._tells(session) and place.hears(control.seen.message(name)):
                found.append(f"hear {name}")
            if name not in control.whole or self._report(at) is not None:
                found.append(f"report {name}")

    def _tells(self, by: int) -> bool:
        """Whether it still tells nodes what to run."""
        return self.leader == by

    def _of_faults(self, found: list[str]) -> None:
        for at, name in enumerate(NODES):
            place = self.places[at]
            found += [f"crash {name} {box.replica.slot}" for box in place.running]
            found += [f"restart {name} {rounds}" for rounds in range(max(1, place.rounds(self._now)))]
            if not self.cut[at]:
                found.append(f"cut {name}")
        if self.leader != NOBODY:
            found.append("depose")
        for at, control in enumerate(self.controllers):
            if control.reign_ms is not None and not control.deaf:
                found.append(f"deafen {CONTROLLERS[at]}")

    # ---- controllers

    def _do_see(self, at: int) -> None:
        self._control(at, self.controllers[at].sees(self.store))

    def _do_campaign(self, at: int) -> None:
        self.leader = at
        self._control(at, self.controllers[at].leads(self.store, self.now_ms))

    def _do_abdicate(self, at: int) -> None:
        """It has noticed that its lease is gone: its sessions are sent away."""
        self._control(at, self.controllers[at].follows())
        one, two = self.sessions
        self.sessions = (NOBODY if one == at else one, NOBODY if two == at else two)

    def _do_services(self, at: int) -> None:
        self._write(at, "services")

    def _do_nodes(self, at: int) -> None:
        self._write(at, "nodes")

    def _write(self, at: int, what: str) -> None:
        for write in self._decided(what, at).writes:
            if not self._commit(at, write):
                return

    def _commit(self, at: int, write: Write) -> bool:
        """One transaction under the leader's key. What succeeded is seen at once; of an unknown outcome nothing is assumed."""
        control = self.controllers[at]
        if not self._takes(at, write):
            self._do_see(at)
            return False
        self.store = self.store.written(write)
        self._control(at, control.missed(write).hearing() if control.deaf else control.wrote(write, self.store))
        other = self.controllers[1 - at]
        if other.reign_ms is not None:
            self._control(1 - at, other.missed(write))
        return not control.deaf

    def _takes(self, at: int, write: Write) -> bool:
        """Whether the store does: the controller leads, and no document that it is guarded by has changed."""
        return self.leader == at and self.controllers[at].may_write(write)

    def _control(self, at: int, control: Control) -> None:
        self.controllers = (control, self.controllers[1]) if at == 0 else (self.controllers[0], control)

    def _decided(self, what: str, at: int, heard_ms: int = 0) -> Decided:
        """`heard_ms`: so much later than now those who are heard were heard."""
        links = tuple((NODES[n], self.cut[n]) for n, session in enumerate(self.sessions) if session == at)
        return self.controllers[at].decided(what, links, self.now_ms, self.now_ms + heard_ms)

    # ---- nodes

    def _do_connect(self, at: int) -> None:
        self._session(at, self.leader)
        self._control(self.leader, self.controllers[self.leader].met(NODES[at]))

    def _do_hear(self, at: int) -> None:
        self._place(at, "hear", self.controllers[self.sessions[at]].seen.message(NODES[at]), self._now)

    def _do_work(self, at: int) -> None:
        self._place(at, "work", self._now)

    def _do_report(self, at: int) -> None:
        by, write = self.sessions[at], self._report(at)
        self._control(by, self.controllers[by].whole_from(NODES[at]))
        if write is not None:
            self._commit(by, write)

    def _report(self, at: int) -> Write | None:
        """What it says is new to the controller that it talks to."""
        return self.places[at].report(self.controllers[self.sessions[at]].seen.rows[_STATUS[at]], self.now_ms)

    def _place(self, at: int, what: str, *words: object) -> None:
        """A step of the node itself."""
        place, starts = self.places[at].after(what, *words)
        self.spare -= starts
        self.places = (place, self.places[1]) if at == 0 else (self.places[0], place)

    def _session(self, at: int, by: int) -> None:
        self.sessions = (by, self.sessions[1]) if at == 0 else (self.sessions[0], by)

    # ---- time

    def _do_wait(self) -> None:
        at_ms = self._next_ms()
        assert at_ms is not None
        self.now_ms = at_ms
        for at, place in enumerate(self.places):
            wake_at = place.core.wake_at()
            if wake_at is not None and wake_at <= self._now:
                self._place(at, "wake", self._now)

    def _next_ms(self) -> int | None:
        """When the next thing that waits is due. Nobody waits for the silence of a node that is heard."""
        times = [round(at * 1000) for place in self.places if (at := place.core.wake_at()) is not None]
        if self.leader != NOBODY:
            plans = [self._decided("services", self.leader).plan]
            if any(self.cut):
                plans.append(self._decided("nodes", self.leader, NEVER_MS).plan)
            times += [plan.wake_at_ms for plan in plans if plan.wake_at_ms is not None]
        return min((at for at in times if self.now_ms < at < self.now_ms + NEVER_MS), default=None)

    @property
    def _now(self) -> float:
        return self.now_ms / 1000

    # ---- faults

    def _do_crash(self, at: int, slot: str) -> None:
        self.faults -= 1
        self.spare += 1
        self._place(at, "crash", int(slot))

    def _do_restart(self, at: int, rounds: str) -> None:
        self.faults -= 1
        self._silent(at)
        self._session(at, NOBODY)
        self._place(at, "restart", int(rounds), self._now)

    def _do_cut(self, at: int) -> None:
        self.faults -= 1
        self.spare += REPLICAS
        self.parted = True
        self._silent(at)
        self.cut = (True, self.cut[1]) if at == 0 else (self.cut[0], True)

    def _do_heal(self, at: int) -> None:
        self.cut = (False, self.cut[1]) if at == 0 else (self.cut[0], False)
        self._session(at, NOBODY)

    def _do_depose(self) -> None:
        """The leader's lease runs out; it does not know."""
        self.faults -= 1
        self.leader = NOBODY

    def _do_deafen(self, at: int) -> None:
        self.faults -= 1
        self._control(at, self.controllers[at].deafened())

    def _silent(self, at: int) -> None:
        by = self.sessions[at]
        if by != NOBODY:
            self._control(by, self.controllers[by].lost(NODES[at], self.now_ms))

    # ---- what must hold

    def wrong(self) -> str:
        """A slot runs once on a node, twice only when the cluster cannot know of one; nothing is started without a reason."""
        one, two = (place.slots for place in self.places)
        if len(set(one)) < len(one) or len(set(two)) < len(two):
            return f"a slot runs twice on one node: {one}, {two}"
        if not self.parted and not set(one).isdisjoint(two):
            return f"a slot runs twice although every node was always heard: {one}, {two}"
        if self.spare < 0:
            return "a start for which there was no reason: a healthy container was started again"
        return ""

    def unfinished(self) -> str:
        running = sorted(slot for place in self.places for slot in place.slots)
        if running != list(range(1, REPLICAS + 1)):
            return f"at rest with {running} running"
        left = [box for place in self.places for box in place.containers.values() if box.state != "running"]
        return f"left over: {left}" if left else ""


def _parsed(step: str) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """What does the step, and with what."""
    found = _PARSED.get(step)
    if found is None:
        verb, *words = step.split()
        found = _PARSED[step] = (getattr(Small, f"_do_{verb}"), tuple(_INDEX.get(word, word) for word in words))
    return found


_INDEX: Final = {name: at for names in (NODES, CONTROLLERS) for at, name in enumerate(names)}
_PARSED: Final[dict[str, tuple[Callable[..., None], tuple[Any, ...]]]] = {}
