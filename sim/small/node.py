"""One node of the small model: the agent's real Core, and in place of a kernel the states of its containers.

Rules: the journal and the containers outlive the agent. A round of effects is performed in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar

from agent.core import wire
from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.desired import merge
from agent.plan.records import Desired, ImageFacts, Life, ReplicaId
from controller.dispatch.status import NodeStatus
from model import codec
from model.documents import StatusDoc, key
from model.store_port import Put
from protos import node_pb2 as pb
from sim.small.store import Message, Write

T = TypeVar("T")
_UNKNOWN: Final[Any] = object()
FATAL = 137


@dataclass(frozen=True, slots=True)
class Container:
    """`state`: created, running, exited (with `code`)."""

    id: str
    replica: ReplicaId
    state: str = "created"
    code: int = 0

    def found(self) -> Found:
        end = Exited(self.id, self.code, False, 0.0) if self.state == "exited" else None
        state: Any = self.state
        return Found(self.id, self.id, self.replica.text, (("replica", self.replica.text),), state, exit=end)


class Place:
    """A node: its agent and what it runs. Changed only by the step that makes it; then it is one object for each content, so
    that what follows from it is worked out once (`after`)."""

    def __init__(self, core: Core, known: dict[object, Place]) -> None:
        self.core = core
        self.containers: dict[str, Container] = {}
        self.journal: dict[ReplicaId, Life] = {}
        self.pending: tuple[fx.Effect | fx.Stimulus, ...] = ()
        self.starts = 0
        self.number = -1
        self._known = known
        self._after: dict[tuple[Any, ...], tuple[Place, int]] = {}
        self._facts: dict[object, Any] = {}

    @staticmethod
    def first(node: str) -> Place:
        """An empty one, that others come from."""
        return Place(Core(node), {})._same()

    def after(self, what: str, *words: Any) -> tuple[Place, int]:
        """The node after the step of that name, and how many containers it started on the way."""
        key = (what, *words)
        found = self._after.get(key)
        if found is None:
            new = self._fork()
            getattr(new, what)(*words)
            starts, new.starts = new.starts, 0
            found = self._after[key] = (new._same(), starts)
        return found

    def _fork(self) -> Place:
        new = Place(forked(self.core), self._known)
        new.containers, new.journal, new.pending = dict(self.containers), dict(self.journal), self.pending
        return new

    def _same(self) -> Place:
        """The one of this content."""
        found = self._known.setdefault(self._content(), self)
        if found is self:
            self.number = len(self._known) - 1
        return found

    def _content(self) -> object:
        """Everything that may make a difference. Numbers of effects only tell who waits for which: they count from the newest
        one, and of those that nobody waits for nothing is left. What was reported makes none: whole statuses are compared.
        """
        core, newest = self.core, self.core._token
        plain = {name: value for name, value in vars(core).items() if name not in _APART}
        applies = any(isinstance(item, fx.ApplyNetworks) for item in self.pending)
        networks = vars(core._networks) | {"_token": core._networks._token - newest if applies else 0}
        lives = [_numbered(life, newest if life.busy else life.token) for life in core.lives.values()]
        pending = [_numbered(item, newest) for item in self.pending]
        timers = sorted(core._timers._at.items())
        return frozen((plain, networks, lives, timers, core._ledger._saved, self.containers, self.journal, pending))

    def fact(self, name: object, work_out: Callable[[], T]) -> T:
        """`work_out()`, asked once."""
        found: T = self._facts.get(name, _UNKNOWN)
        if found is _UNKNOWN:
            found = self._facts[name] = work_out()
        return found

    @cached_property
    def running(self) -> tuple[Container, ...]:
        return self._running()

    def _running(self) -> tuple[Container, ...]:
        return tuple(self.containers[name] for name in sorted(self.containers) if self.containers[name].state == "running")

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Those that run."""
        return tuple(box.replica.slot for box in self.running)

    def rounds(self, now: float) -> int:
        """Rounds of effects until it waits for something."""
        return self.fact(("rounds", now), lambda: self._fork().work(now)) if self.pending else 0

    def hears(self, message: Message) -> bool:
        """Whether what it must run says anything new."""
        return self.fact(message, lambda: self._wanted(message) != self.core.desired)

    def _wanted(self, message: Message) -> Desired:
        return merge(replace(self.core.desired, specs=()), message.content)

    def report(self, before: bytes, now_ms: int) -> Write | None:
        """What its whole status changes in its document."""
        return self.fact((before, now_ms), lambda: self._report(before, now_ms))

    def _report(self, before: bytes, now_ms: int) -> Write | None:
        known = codec.decode(StatusDoc, before)
        status = NodeStatus(known)
        rows = [wire.replica(item) for item in self.core.statuses()]
        status.merge(pb.Status(whole=True, replicas=rows))
        document = status.document(known, now_ms)
        return None if document is None else Write((), (Put(key("status", known.node), codec.encode(document)),))

    # ---- the agent

    def hear(self, message: Message, now: float) -> None:
        self._take(self.core.handle(fx.DesiredArrived(self._wanted(message)), now))

    def wake(self, now: float) -> None:
        self._take(self.core.handle(fx.TimerDue(), now))

    def work(self, now: float, rounds: int = 1_000) -> int:
        """Perform what was asked, and what that leads to, for at most so many rounds. How many there were."""
        for done in range(rounds):
            if not self.pending:
                return done
            todo, self.pending = self.pending, ()
            for item in todo:
                outcome = self._perform(item, now)
                if outcome is not None:
                    self._take(self.core.handle(outcome, now))
        return rounds

    def restart(self, rounds: int, now: float) -> None:
        """SIGKILL of the agent after so many rounds, and its next start: what is pending is lost, the containers go on."""
        self.work(now, rounds)
        core, self.pending = Core(self.core.node), ()
        desired, self.core = self.core.desired, core
        found = [self.containers[name].found() for name in sorted(self.containers)]
        self._take(core.recover(desired, list(self.journal.values()), found, now))

    def crash(self, slot: int) -> None:
        """Its container ends by itself."""
        self.end(next(box.id for box in self._running() if box.replica.slot == slot), 1)

    def end(self, container_id: str, code: int) -> None:
        """A container ends, by itself or killed."""
        container = self.containers[container_id]
        self.containers[container_id] = Container(container.id, container.replica, "exited", code)
        self.pending = (*self.pending, fx.ContainerExited(Exited(container_id, code, False, 0.0)))

    def _take(self, effects: Iterable[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Save(life):
                    self.journal[life.id] = life
                case fx.Drop(replica):
                    self.journal.pop(replica, None)
                case fx.Report() | fx.Gone() | fx.Say():
                    pass
                case _:
                    self.pending = (*self.pending, effect)

    def _perform(self, item: fx.Effect | fx.Stimulus, now: float) -> fx.Stimulus | None:
        match item:
            case fx.ContainerExited():
                return item
            case fx.PullImage():
                return fx.Pulled(item, ImageFacts("sha256:1"))
            case fx.ApplyNetworks(_, token):
                return fx.NetworksApplied(token)
            case fx.Drain(replica, token):
                return fx.Drained(replica, token)
            case fx.AttachNetwork(replica, token):
                return fx.Done(replica, token, "/netns", (("bridge", f"172.16.0.{replica.slot + 1}"),))
            case fx.CreateContainer(replica, token, life):
                self.containers[life.container_id] = Container(life.container_id, replica)
                return fx.Done(replica, token)
            case fx.StartContainer(replica, token, container_id):
                self.containers[container_id] = Container(container_id, replica, "running")
                self.starts += 1
                return fx.Done(replica, token)
            case fx.KillContainer(container_id):
                if container_id in self.containers and self.containers[container_id].state == "running":
                    self.end(container_id, FATAL)
                return None
            case fx.DeleteContainer(replica, token, container_id):
                self.containers.pop(container_id, None)
                return fx.Done(replica, token)
            case fx.DeleteOrphan(container_id):
                self.containers.pop(container_id, None)
                return None
            case fx.PrepareVolumes(replica, token) | fx.DetachNetwork(replica, token) | fx.ReleaseReplica(replica, token):
                return fx.Done(replica, token)
            case _:
                raise AssertionError(f"the small model has no {type(item).__name__}")


def forked(thing: Any) -> Any:
    """A copy of everything that can change: dicts, lists, plain objects. What is frozen is shared."""
    if isinstance(thing, dict):
        return {name: forked(value) for name, value in thing.items()}
    if isinstance(thing, list):
        return [forked(value) for value in thing]
    if not hasattr(thing, "__dict__"):
        return thing
    new = object.__new__(type(thing))
    new.__dict__.update((name, forked(value)) for name, value in thing.__dict__.items())
    return new


_APART: Final = frozenset({"_ledger", "_networks", "_timers", "_token", "lives"})


def _numbered(item: Any, newest: int) -> Any:
    """The life, effect or outcome with numbers that count from the newest one."""
    changes = {"life": _numbered(item.life, newest)} if hasattr(item, "life") else {}
    return replace(item, token=item.token - newest, **changes) if hasattr(item, "token") else item


def frozen(thing: Any) -> Any:
    """The same as something hashable, for plain objects all that is in them."""
    if isinstance(thing, dict):
        return tuple((frozen(name), frozen(value)) for name, value in thing.items())
    if isinstance(thing, list | tuple):
        return tuple(frozen(value) for value in thing)
    if hasattr(thing, "__dict__"):
        return (type(thing).__name__, frozen(vars(thing)))
    return thing
