"""The shell around the core: stimuli in, effects performed, outcomes back in.

Rules: the core is called on the event loop only, one stimulus at a time. Journal entries and reports of a step are taken before
its effects begin. Every effect is a task of one TaskGroup; a failing effect becomes a `Failed`, whatever was raised.
Stopping the agent leaves the containers as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

from agent.core.failure import failure_of
from agent.core.journal import Kept
from agent.core.perform import Performer
from agent.core.ports import Ports
from agent.core.report import Reporter
from agent.plan import effects as fx
from agent.plan.container import Found
from agent.plan.core import Core
from agent.plan.desired import used_specs
from agent.plan.mounts import named_volumes, volume_users
from agent.plan.records import Desired, Failure, Life, ReplicaId, sandbox_of
from model.documents import Event
from model.errors import ShoalError
from model.ports import Clock
from protos import node_pb2 as pb

log = logging.getLogger(__name__)
REPAIR_S = 10.0


class Runner:
    """`await recover()`, then `run()` until it is cancelled."""

    def __init__(self, core: Core, ports: Ports, journal: Kept, clock: Clock, reporter: Reporter) -> None:
        self.core = core
        self.ports = ports
        self.performer = Performer(ports, lambda: core.desired)
        self._steps: dict[type, Callable[[Any], Awaitable[fx.Stimulus]]] = {
            fx.PullImage: self.performer.pull,
            fx.ApplyNetworks: self.performer.apply_networks,
            fx.AttachNetwork: self.performer.attach,
            fx.Rewire: self.performer.rewire,
            fx.Drain: self.performer.drain,
            fx.CreateContainer: self.performer.create,
            fx.StartContainer: self.performer.start,
            fx.DetachNetwork: self.performer.detach,
            fx.ReleaseReplica: self.performer.release,
            fx.Probe: self.performer.probe,
            fx.Look: self.performer.look,
        }
        self._journal = journal
        self._clock = clock
        self._reporter = reporter
        self._tasks: asyncio.TaskGroup | None = None
        self._pending: list[fx.Effect] = []
        self._timer: asyncio.Task[None] | None = None
        self._timer_at: float | None = None
        self._moved = asyncio.Event()
        self._unsaved: dict[ReplicaId, Life] = {}
        self._unsaved_desired: Desired | None = None
        self._unpublished: set[ReplicaId] = set()

    async def recover(self) -> None:
        """Take over what the last agent left. Call once, before `run`."""
        found = await self.ports.runtime.recover()
        saved = self._journal.load()
        desired = used_specs(self._journal.load_desired())
        await self.ports.network.recover(_sandboxes(saved, found))
        self._take(self.core.recover(desired, saved, found, self._clock.now()))
        for item in found:
            self.performer.pids[item.container_id] = item.pid
        for life in self.core.lives.values():
            self.performer.hold(life)
            if life.stage == "running":
                self._publish_again(life)
        running = sum(1 for life in self.core.lives.values() if life.stage == "running")
        log.info("recovered: %d replicas in the journal, %d containers found, %d running", len(saved), len(found), running)

    async def run(self) -> None:
        """Perform until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._take_exits())
            tasks.create_task(self._repair_for_ever())
            pending, self._pending = self._pending, []
            for effect in pending:
                self._begin(effect)
            self._arm()

    def _publish_again(self, life: Life) -> None:
        """A port that another program took while no agent held it is asked for until it is free."""
        self._unpublished.discard(life.id)
        try:
            self.performer.attacher.recover(life)
        except ShoalError as error:
            log.warning("%s: %s", life.name, error)
            self._unpublished.add(life.id)

    def leave(self) -> None:
        """Nothing is to run here any more, and nobody is there to say when the last connection has ended."""
        self.performer.logins.wipe()
        self.desire(Desired(), drain=False)

    def desire(self, desired: Desired, *, drain: bool = True) -> None:
        """A new desired state; kept for a restart without the controller. `drain`: who must stop ends its connections first."""
        self._save_desired(desired)
        self.give(fx.DesiredArrived(desired, drain))

    def take_logins(self, message: pb.Desired) -> None:
        """The credentials that come with what must run; take them before that."""
        if changed := self.performer.logins.take(message):
            self.give(fx.LoginsChanged(changed))

    def give(self, stimulus: fx.Stimulus) -> None:
        """Tell the core and perform what it answers."""
        self._take(self.core.handle(stimulus, self._clock.now()))
        self._moved.set()
        self._arm()

    async def idle(self) -> None:
        """Until no replica is left."""
        await self.until(lambda: not self.core.lives)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; looked at whenever something has happened."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    def volume_users(self) -> dict[str, list[str]]:
        """Names of the replicas that use each volume."""
        return volume_users(self.core.lives.values())

    def prune_specs(self) -> Desired:
        """Forget specs no slot needs; what is left is what a new session says it knows."""
        self.core.desired = used_specs(self.core.desired)
        return self.core.desired

    # effects

    def _take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Save(life):
                    self._save(life)
                case fx.Drop(replica):
                    self._unsaved.pop(replica, None)
                    self._journal.drop(replica)
                case fx.Report(status):
                    self._reporter.changed(status)
                case fx.Gone(replica):
                    self._reporter.gone(replica)
                case fx.Say(kind, about, sentence):
                    log.info("%s", sentence)
                    self.say(kind, about, sentence)
                case _:
                    self._begin(effect)

    def _save_desired(self, desired: Desired) -> None:
        try:
            self._journal.save_desired(used_specs(desired))
            self._unsaved_desired = None
        except OSError as error:
            log.error("journal: the desired state cannot be written: %s; tried again", error.strerror)
            self._unsaved_desired = desired

    def _save(self, life: Life) -> None:
        """A full disk stops nothing: the entry is written later, and until then the runtime knows whose container it is. As
        soon as there is space again what is desired is written too: the next agent would stop what it does not know of."""
        if self._unsaved_desired is not None:
            self._save_desired(self._unsaved_desired)
        try:
            self._journal.save(life)
            self._unsaved.pop(life.id, None)
        except OSError as error:
            if not self._unsaved:
                log.error("journal: %s cannot be written: %s; tried again", life.name, error.strerror)
            self._unsaved[life.id] = life

    def say(self, kind: str, about: str, sentence: str) -> None:
        self._reporter.event(Event(round(self._clock.now() * 1000), kind, about, sentence, self.core.node))

    def _begin(self, effect: fx.Effect) -> None:
        if self._tasks is None:
            self._pending.append(effect)
        else:
            self._tasks.create_task(self._perform(effect))

    async def _perform(self, effect: fx.Effect) -> None:
        try:
            outcome = await self._do(effect)
        except ShoalError as error:
            outcome = _failure(effect, failure_of(error))
        except Exception as error:
            log.exception("%s failed", type(effect).__name__)
            outcome = _failure(effect, Failure(f"{type(effect).__name__}: {type(error).__name__}: {error}".split("\n")[0]))
        if outcome is not None:
            self.give(outcome)

    async def _do(self, effect: fx.Effect) -> fx.Stimulus | None:
        match effect:
            case fx.KillContainer():
                await self.performer.kill(effect)
                return None
            case fx.DeleteOrphan(container_id):
                log.warning("container %s belongs to no replica: deleted", container_id[:12])
                await self.performer.delete(container_id)
                return None
            case fx.DeleteContainer(replica, token, container_id):
                await self.performer.delete(container_id)
                return fx.Done(replica, token)
            case fx.PrepareVolumes():
                outcome = await self.performer.volumes(effect)
                if not set(named_volumes(effect.life)) <= set(self._reporter.known_volumes()):
                    self.report_volumes()
                return outcome
        return await self._steps[type(effect)](effect)

    def report_volumes(self) -> None:
        """Tell the controller which named volumes are here."""
        self._reporter.volumes(tuple(volume.name for volume in self.ports.volumes.all() if not volume.anonymous))

    # what comes by itself

    async def _take_exits(self) -> None:
        async for end in self.ports.runtime.exits():
            self.give(fx.ContainerExited(end))

    def _arm(self) -> None:
        """One timer for the earliest thing the core waits for."""
        at = self.core.wake_at()
        if self._tasks is None or at == self._timer_at:
            return
        self._timer_at = at
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._tasks.create_task(self._wake(at))

    async def _wake(self, at: float) -> None:
        await self._clock.sleep(max(0.0, at - self._clock.now()))
        self._timer, self._timer_at = None, None
        self.give(fx.TimerDue())

    async def _repair_for_ever(self) -> None:
        while True:
            with _TriedAgain("volumes"):
                self.report_volumes()
            await self._clock.sleep(REPAIR_S)
            with _TriedAgain("repair"):
                await self.repair()

    async def repair(self) -> None:
        """Compare what is there with what should be; put right what differs and say so."""
        if self._unsaved_desired is not None:
            self._save_desired(self._unsaved_desired)
        for life in list(self._unsaved.values()):
            self._save(life)
        if self._unpublished:
            self._publish_unpublished()
        for what, port in (("networks", self.ports.network), ("load balancing", self.ports.balance)):
            with _TriedAgain(what):
                self._say_repaired(await port.repair())
        running = [life.container_id for life in self.core.lives.values() if life.stage == "running"]
        missing = [container_id for container_id in running if await self.ports.runtime.usage(container_id) is None]
        if missing or self.core.suspects:  # else there is nothing to tell: of a thousand looks, all but one
            self.give(fx.Compared(tuple(missing)))

    def _publish_unpublished(self) -> None:
        self._unpublished &= self.core.lives.keys()
        for life in [life for key, life in self.core.lives.items() if key in self._unpublished and life.stage == "running"]:
            self._publish_again(life)

    def _say_repaired(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            log.warning("repaired: %s", sentence)
            self.say("repaired", f"node/{self.core.node}", sentence)


def _sandboxes(saved: Iterable[Life], found: Iterable[Found]) -> list[str]:
    """Whose networks must stay: of lives in the journal, and of running containers that were never written down."""
    kept = [life.sandbox for life in saved if life.attached]
    running = (dict(item.meta).get("replica", "") for item in found if item.state == "running")
    return list(dict.fromkeys([*kept, *(sandbox_of(text) for text in running if text)]))


class _TriedAgain:
    """What goes wrong in one look at the node must not end the agent: the next look comes."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, ShoalError | OSError):
            log.warning("%s: %s", self._what, error)
        elif isinstance(error, Exception):
            log.exception("%s", self._what)
        return error is None or isinstance(error, Exception)


def _failure(effect: fx.Effect, failure: Failure) -> fx.Stimulus | None:
    match effect:
        case fx.PullImage():
            return fx.PullFailed(effect, failure)
        case fx.ApplyNetworks(_, token):
            return fx.NetworksApplied(token, failure)
        case fx.Probe(replica, container_id, _):
            return fx.Probed(replica, container_id, False, failure.message)
        case fx.Look(replica, container_id):
            return fx.Looked(replica, container_id)
        case fx.Drain(replica, token):
            return fx.Drained(replica, token)
        case fx.KillContainer(container_id, signal):
            log.warning("%s to container %s: %s", signal, container_id[:12], failure.message)
            return None
        case fx.DeleteOrphan(container_id):
            log.warning("container %s cannot be deleted: %s", container_id[:12], failure.message)
            return None
        case fx.Save() | fx.Drop() | fx.Report() | fx.Gone() | fx.Say():
            return None
        case _:
            return fx.Failed(effect.replica, effect.token, failure)
