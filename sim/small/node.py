"""One node of the small model: the agent's real Core, and in place of a kernel the states of its containers.

Rules: the journal and the containers outlive the agent. A round of effects is performed in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.records import Desired, ImageFacts, Life, ReplicaId

T = TypeVar("T")
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


@dataclass(slots=True)
class Place:
    """A node. `session`: the controller it talks to; `epoch`: the newest it has seen; `cut`: nothing gets through."""

    core: Core
    session: str = ""
    epoch: int = 0
    cut: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    journal: dict[ReplicaId, Life] = field(default_factory=dict)
    pending: tuple[fx.Effect | fx.Stimulus, ...] = ()
    starts: int = 0
    known: dict[str, tuple[object, Any]] = field(default_factory=dict)
    """What was worked out about it: it changes only in the step that made it."""

    def fork(self) -> Place:
        return Place(
            forked(self.core), self.session, self.epoch, self.cut, dict(self.containers), dict(self.journal), self.pending,
            self.starts,
        )  # fmt: skip

    def key(self) -> object:
        return self.once("key", None, self._key)

    def once(self, what: str, of: object, work_out: Callable[[], T]) -> T:
        """`work_out()`, asked once for the same object `of`."""
        row = self.known.get(what)
        if row is None or row[0] is not of:
            row = self.known[what] = (of, work_out())
        found: T = row[1]
        return found

    def rounds(self, now: float) -> int:
        """Rounds of effects until it waits for something."""
        return self.once("rounds", None, lambda: self.fork().work(now)) if self.pending else 0

    def _key(self) -> object:
        lives, core = self.core.lives, self.core
        return hash((
            self.session, self.epoch, self.cut, self.starts, self.pending, core.desired, core.wake_at(),
            tuple(lives[replica] for replica in sorted(lives)),
            tuple(self.containers[name] for name in sorted(self.containers)),
            tuple(self.journal[replica] for replica in sorted(self.journal)),
        ))  # fmt: skip

    def running(self) -> list[Container]:
        return [self.containers[name] for name in sorted(self.containers) if self.containers[name].state == "running"]

    # ---- the agent

    def desire(self, desired: Desired, now: float) -> None:
        self._take(self.core.handle(fx.DesiredArrived(desired), now))

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

    def restart(self, now: float) -> None:
        """SIGKILL of the agent and its next start: what was pending is lost, the containers go on."""
        core, self.pending, self.session = Core(self.core.node), (), ""
        desired, self.core = self.core.desired, core
        found = [self.containers[name].found() for name in sorted(self.containers)]
        self._take(core.recover(desired, list(self.journal.values()), found, now))

    def end(self, container_id: str, code: int) -> None:
        """A container ends by itself, or is killed."""
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
            case fx.PullImage(reference, policy):
                return fx.Pulled(reference, policy, ImageFacts("sha256:1"))
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
