"""The agent's core: all lives of the node, one stimulus in, effects out.

Rules: sans-IO and deterministic; time comes in with the stimulus. Limits live here: `starts_max` starts at a time, one pull
for all of a service who want the same image, one life of a slot at a time (the old one has stopped before the new one starts)
unless both are wanted. A second identical `DesiredArrived` yields nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.plan import drain, health, listening, rewire, telling
from agent.plan import effects as fx
from agent.plan import life as lives_of
from agent.plan.adopt import adopted, unrecorded
from agent.plan.container import Found
from agent.plan.desired import changes, replica_name
from agent.plan.ledger import Ledger
from agent.plan.life import START_STEPS, Need
from agent.plan.networks import Networks, attachments
from agent.plan.quick import replace
from agent.plan.records import Desired, Failure, Goal, Life, ReplicaId
from agent.plan.starts import Starts
from agent.plan.status import replica_status
from agent.plan.steps import effect_of
from agent.plan.timers import Timers
from model.documents import ReplicaStatus
from model.spec import ServiceSpec

STARTS_MAX = 4


class Core:
    """State of the node's replicas. `handle` is the only way in."""

    def __init__(self, node: str, starts_max: int = STARTS_MAX) -> None:
        self.node = node
        self.desired = Desired()
        self.lives: dict[ReplicaId, Life] = {}
        self._starts = Starts(starts_max)
        self._by_container: dict[str, ReplicaId] = {}
        self._places: dict[tuple[str, int], list[ReplicaId]] = {}
        self._pulls: dict[fx.PullImage, dict[ReplicaId, None]] = {}
        self._networks = Networks()
        self.suspects: frozenset[str] = frozenset()
        """Containers that were missing when last compared."""
        self._timers = Timers()
        self._token = 0
        self._todo: dict[ReplicaId, None] = {}
        self._ledger = Ledger()
        self._touched: dict[ReplicaId, None] = {}
        self._out: list[fx.Effect] = []

    # reading

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Every replica of the node as it would be reported now."""
        return tuple(replica_status(life) for _, life in sorted(self.lives.items()))

    def wake_at(self) -> float | None:
        """When to send `TimerDue` if nothing else happens before."""
        return min((at for at in (self._timers.next(), self._networks.retry_at) if at is not None), default=None)

    def by_container(self, container_id: str) -> Life | None:
        key = self._by_container.get(container_id)
        return self.lives.get(key) if key else None

    # changing

    def recover(self, desired: Desired, saved: Iterable[Life], found: Iterable[Found], now: float) -> list[fx.Effect]:
        """Begin from the journal and what the runtime found; once, before the first `handle`."""
        seen: Mapping[str, Found] = {item.container_id: item for item in found}
        entries = list(saved)
        for old in (*entries, *self._unrecorded(desired, entries, seen, now)):
            self._ledger.loaded(old)
            life = adopted(old, seen, now)
            self._begin(life)
            self._say(telling.exited(old, life))
        for container_id in sorted(seen):
            if container_id not in self._by_container:
                self._out.append(fx.DeleteOrphan(container_id))
        return self.handle(fx.DesiredArrived(desired), now)

    def _unrecorded(self, desired: Desired, saved: list[Life], seen: Mapping[str, Found], now: float) -> list[Life]:
        """Lives of running containers that are wanted but stand in no journal entry."""
        entries = {life.id: life for life in saved}
        fresh = {
            key.text: lives_of.begin(key, spec, replica_name(spec, key.slot, self.node), goal, now)
            for key, spec, goal in changes(desired, entries).begin
        }
        return unrecorded(seen.values(), [life.container_id for life in saved], fresh)

    def handle(self, stimulus: fx.Stimulus, now: float) -> list[fx.Effect]:
        """What to do about `stimulus`; also about everything that has become due by `now`."""
        self._take(stimulus, now)
        self._take_due(now)
        while (key := self._next()) is not None:
            if key in self.lives:
                self._advance(key, now)
        self._flush()
        out, self._out = self._out, []
        return out

    def _next(self) -> ReplicaId | None:
        """A life to look at: one that was touched, else the first that waits for a permit when there is room."""
        key = next(iter(self._todo), None)
        if key is None:
            return self._starts.next()
        del self._todo[key]
        return key

    def _take(self, stimulus: fx.Stimulus, now: float) -> None:
        match stimulus:
            case fx.DesiredArrived(desired, drains):
                self._take_desired(desired, drains, now)
            case fx.Done(replica, token) | fx.Failed(replica, token) | fx.Rewired(replica, token):
                if (life := self._in_flight(replica, token)) is not None:
                    self._take_outcome(life, stimulus, now)
            case fx.Drained(replica, token):
                if replica in self.lives:
                    self._put(drain.over(self.lives[replica], token))
            case fx.Pulled() | fx.PullFailed() | fx.LoginsChanged():
                self._take_pull(stimulus, now)
            case fx.NetworksApplied(token, problem):
                self._take_networks(token, problem, now)
            case fx.ContainerExited(end):
                if (exited_life := self.by_container(end.container_id)) is not None:
                    self._take_exit(exited_life, lives_of.exited(exited_life, end, now))
            case fx.Probed() | fx.Looked():
                self._take_health(stimulus, now)
            case fx.Compared(missing):
                self._take_comparison(missing, now)

    def _take_pull(self, news: fx.Pulled | fx.PullFailed | fx.LoginsChanged, now: float) -> None:
        match news:
            case fx.Pulled(pull, image):
                for life in self._waiting_for(pull):
                    self._put(lives_of.pulled(life, image))
            case fx.PullFailed(pull, failure):
                for life in self._waiting_for(pull):
                    after = lives_of.start_failed(life, failure, now)
                    self._put(after)
                    self._say(telling.start_failed(life, after, failure, now))
            case fx.LoginsChanged(services):
                for life in [life for life in self.lives.values() if life.id.service_id in services]:
                    self._put(lives_of.pull_again(life))

    def _take_desired(self, desired: Desired, drains: bool, now: float) -> None:
        self.desired = desired
        wanted = changes(desired, self.lives)
        for key, goal in wanted.goals:
            self._put(lives_of.want(self.lives[key], goal, now, drains=drains))
        for key, spec, goal in wanted.begin:
            self._begin_new(key, spec, goal, now)
        for key, networks in wanted.networks:
            self._put(rewire.want_networks(self.lives[key], networks))
        self._want_networks()

    def _begin_new(self, key: ReplicaId, spec: ServiceSpec, goal: Goal, now: float) -> None:
        self._begin(lives_of.begin(key, spec, replica_name(spec, key.slot, self.node), goal, now))

    def _begin(self, life: Life) -> None:
        self._places.setdefault(life.id.place, []).append(life.id)
        self._put(life)

    def _in_flight(self, replica: ReplicaId, token: int) -> Life | None:
        life = self.lives.get(replica)
        return life if life is not None and life.busy and life.token == token else None

    def _take_outcome(self, life: Life, outcome: fx.Done | fx.Failed | fx.Rewired, now: float) -> None:
        match outcome:
            case fx.Done(_, _, netns, addresses, ports):
                self._put(lives_of.done(life, netns, addresses, ports, now))
            case fx.Failed(_, _, failure):
                self._take_failure(life, failure, now)
            case fx.Rewired():
                self._take_rewired(life, outcome, now)

    def _take_failure(self, life: Life, failure: Failure, now: float) -> None:
        after = lives_of.failed(life, failure, now)
        self._put(after)
        self._say(telling.failed(life, after, failure, now))

    def _take_rewired(self, life: Life, outcome: fx.Rewired, now: float) -> None:
        life = replace(life, addresses=outcome.addresses, ports=outcome.ports)
        if outcome.failure is not None:
            self._take_failure(life, outcome.failure, now)
        else:
            self._put(rewire.rewired(life))
        self._want_networks()

    def _take_exit(self, before: Life, after: Life) -> None:
        self._put(after)
        self._say(telling.exited(before, after))

    def _waiting_for(self, pull: fx.PullImage) -> list[Life]:
        waiting = self._pulls.pop(pull, {})
        lives = [self.lives[key] for key in waiting if key in self.lives]
        return [life for life in lives if life.image is None and life.goal == "run"]

    def _take_health(self, seen: fx.Probed | fx.Looked, now: float) -> None:
        life = self.lives.get(seen.replica)
        if life is None or life.container_id != seen.container_id or life.stage != "running" or life.stopping:
            return
        if isinstance(seen, fx.Probed):
            after = health.probed(life, seen.healthy, now)
            said = telling.probed(life, after, seen.output)
        else:
            after = listening.looked(life, seen.listening, now)
            said = telling.looked(life, after, seen.listening)
        self._put(after)
        self._say(said)

    def _take_comparison(self, missing: tuple[str, ...], now: float) -> None:
        """A container missing in two comparisons in a row has vanished; once may be an exit on its way."""
        for container_id in missing:
            life = self.by_container(container_id)
            if life is not None and container_id in self.suspects and life.stage == "running":
                self._take_exit(life, lives_of.vanished(life, now))
        self.suspects = frozenset(missing)

    # networks

    def _want_networks(self) -> None:
        if self._networks.want(self.desired.networks, self.lives.values()):
            self._apply_networks()

    def _apply_networks(self) -> None:
        self._token += 1
        self._out.append(fx.ApplyNetworks(self._networks.begin(self._token), self._token))

    def _take_networks(self, token: int, problem: Failure | None, now: float) -> None:
        if not self._networks.applied(token, problem, now):
            return
        for life in self.lives.values():
            if life.goal == "run" and life.stage == "running" and rewire.differs(life):
                self._todo[life.id] = None
            if life.goal == "run" and life.stage not in ("running", "exited"):
                self._todo[life.id] = None
                if problem is not None and attachments(life) and not life.busy:
                    self._put(replace(life, message=problem.message))

    # advancing

    def _take_due(self, now: float) -> None:
        self._todo |= dict.fromkeys(self._timers.due(now))
        if self._networks.due(now):
            self._apply_networks()

    def _put(self, life: Life) -> None:
        """The life as it is now, to be looked at again."""
        self._set(life)
        self._todo[life.id] = None

    def _set(self, life: Life) -> None:
        before = self.lives.get(life.id)
        if before is life:
            return
        if before is not None and before.container_id != life.container_id:
            self._by_container.pop(before.container_id, None)
        if life.container_id:
            self._by_container[life.container_id] = life.id
        self.lives[life.id] = life
        self._touched[life.id] = None

    def _advance(self, key: ReplicaId, now: float) -> None:
        while True:
            life = self.lives[key]
            step = lives_of.need(life, now)
            if step == "rewire" and life.stage == "running" and self._networks.missing(life) is not None:
                step = lives_of.need(life, now, rewires=False)
            if step == "forget":
                return self._forget(life)
            if step == "nothing" or (_starts(life, step) and not self._may_start(life, step, now)):
                break
            self._token += 1
            after = lives_of.taking(life, step, self._token, now)
            self._set(after)
            self._out.append(effect_of(after, step))
        self._settle(life, step, now)
        return None

    def _settle(self, life: Life, step: Need, now: float) -> None:
        """After a life has moved: give its permit on, wake who waited for its slot, set its timer."""
        if not (_starts(life, step) or _starts(life, life.busy)):
            self._starts.leave(life.id)
        if life.goal == "remove" and not life.may_run():
            self._todo |= {other: None for other in self._places[life.id.place] if other != life.id and self._waits(other)}
        at = lives_of.wake_at(life, now)
        if at is not None and at > now:
            self._timers.set(life.id, at)

    def _waits(self, key: ReplicaId) -> bool:
        life = self.lives[key]
        return life.goal == "run" and not life.busy and not life.container_id

    def _may_start(self, life: Life, step: Need, now: float) -> bool:
        """Image, slot, networks and a permit: asked in this order, so that a slow pull holds no permit. A change of networks
        that are not there yet gives it back."""
        if not life.may_run():
            life = lives_of.preparing(life, now)
            self._set(life)
        if step == "image":
            self._pull(life)
            return False
        holds = self._starts.holds(life.id)
        if holds and step != "rewire":
            return True
        missing = self._networks.missing(life)
        if missing is None and (holds or not self._slot_taken(life)):
            return holds or self._starts.take(life.id)
        self._starts.leave(life.id)
        if missing is not None and not life.message:
            self._set(replace(life, message=f"waits for network {missing} on this node"))
        return False

    def _slot_taken(self, life: Life) -> bool:
        """By a life that has to go first. One that is to run too is no obstacle: an update may start the new one first."""
        others = (self.lives[other] for other in self._places[life.id.place] if other != life.id)
        return any(other.may_run() and other.goal != "run" for other in others)

    def _pull(self, life: Life) -> None:
        container = life.spec.container
        pull = fx.PullImage(container.image, container.pull_policy, container.image_digest, life.id.service_id)
        if pull not in self._pulls:
            self._pulls[pull] = {}
            self._out.append(pull)
        self._pulls[pull][life.id] = None

    def _forget(self, life: Life) -> None:
        del self.lives[life.id]
        place = self._places[life.id.place]
        place.remove(life.id)
        self._todo |= dict.fromkeys(place)
        if not place:
            del self._places[life.id.place]
        self._by_container.pop(life.container_id, None)
        self._timers.drop(life.id)
        self._starts.leave(life.id)
        self._touched[life.id] = None
        self._want_networks()

    # telling

    def _say(self, said: fx.Say | None) -> None:
        if said is not None:
            self._out.append(said)

    def _flush(self) -> None:
        """Journal and reports of every life that was touched, before the effects."""
        first: list[fx.Effect] = []
        for key in self._touched:
            life = self.lives.get(key)
            first += self._ledger.news(life) if life is not None else self._ledger.gone(key)
        self._touched.clear()
        self._out[:0] = first


def _starts(life: Life, step: str) -> bool:
    """Whether `step` is part of a start."""
    return step in START_STEPS or (step == "rewire" and life.stage != "running")
