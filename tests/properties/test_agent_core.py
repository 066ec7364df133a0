"""Properties of the agent's core against a simulated node: whatever fails or ends, it arrives at what is wanted.

Rules: pure, no clock: the test moves time to the core's own `wake_at`. The node below is a model of the ports' promises.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.plan import effects as fx
from agent.plan.container import Exited, Found
from agent.plan.core import Core
from agent.plan.network import NetworkWanted
from agent.plan.networks import attachments
from agent.plan.records import Desired, Failure, ImageFacts, Life, ReplicaId, Slot, WantedService, WantedSpec
from model import states
from model.spec import Attachment, ContainerSpec, Mount, Pairs, RestartPolicy, ServiceSpec

NET = NetworkWanted("shop_default", 7, "10.0.0.0/16", "10.0.1.0/24")
OTHER = NetworkWanted("other", 8, "10.1.0.0/16", "10.1.1.0/24")


@dataclass
class Node:
    """Containers, attachments and volumes of a pretended machine, and the effects that are not performed yet."""

    seed: int = 0
    failing: float = 0.0
    now: float = 1000.0
    core: Core = field(default_factory=lambda: Core("n1"))
    containers: dict[str, str] = field(default_factory=dict)
    owners: dict[str, ReplicaId] = field(default_factory=dict)
    ends: dict[str, Exited] = field(default_factory=dict)
    attached: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Networks of each sandbox."""
    volumes: set[ReplicaId] = field(default_factory=set)
    journal: dict[ReplicaId, Life] = field(default_factory=dict)
    reported: dict[ReplicaId, str] = field(default_factory=dict)
    waiting: list[fx.Effect] = field(default_factory=list)
    pulls: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def give(self, stimulus: fx.Stimulus) -> None:
        self.take(self.core.handle(stimulus, self.now))

    def take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Save(life):
                    self.journal[life.id] = life
                case fx.Drop(replica):
                    del self.journal[replica]
                case fx.Report(status):
                    key = ReplicaId(status.service_id, status.slot, status.created_ms, status.version)
                    before = self.reported.get(key, status.state)
                    assert before == status.state or states.allowed(before, status.state, "agent"), (before, status.state)
                    self.reported[key] = status.state
                case fx.Gone(replica):
                    del self.reported[replica]
                case fx.Say():
                    self.said.append(effect.sentence)
                case _:
                    if isinstance(effect, fx.CreateContainer):
                        assert self.journal[effect.replica].container_id == effect.life.container_id, "journal comes first"
                    self.waiting.append(effect)
        starting = [e for e in self.waiting if isinstance(e, fx.PrepareVolumes | fx.AttachNetwork | fx.CreateContainer)]
        assert len(starting) <= 4
        running = [self.owners[c].place for c, state in self.containers.items() if state == "running"]
        assert len(running) == len(set(running)), "two containers of one slot run"

    def perform(self) -> None:
        """One waiting effect, any of them."""
        effect = self.waiting.pop(self.random.randrange(len(self.waiting)))
        bad = self.random.random() < self.failing
        failure = Failure("it broke", permanent=self.random.random() < 0.3)
        match effect:
            case fx.PullImage(reference):
                self.pulls.append(reference)
                self.give(fx.PullFailed(effect, failure) if bad else fx.Pulled(effect, ImageFacts("sha")))
            case fx.ApplyNetworks(_, token):
                self.give(fx.NetworksApplied(token, failure if bad else None))
            case fx.KillContainer(container_id, signal):
                if self.containers.get(container_id) == "running" and (signal == "SIGKILL" or not bad):
                    self.end(container_id, 137 if signal == "SIGKILL" else 143)
            case fx.DeleteOrphan(container_id):
                self.containers.pop(container_id, None)
            case fx.Probe(replica, container_id, _):
                self.give(fx.Probed(replica, container_id, not bad))
            case fx.Look(replica, container_id):
                self.give(fx.Looked(replica, container_id, frozenset() if bad else frozenset({80})))
            case fx.Drain(replica, token):
                if not bad:
                    self.give(fx.Drained(replica, token))
            case fx.Save() | fx.Drop() | fx.Report() | fx.Gone() | fx.Say():
                raise AssertionError(effect)
            case _:
                if bad and self.random.random() < 0.5:
                    return self.give(fx.Failed(effect.replica, effect.token, failure))
                self.do(effect)
                self.give(self.outcome(effect, failure if bad else None))
        return None

    def outcome(self, effect: fx.ReplicaEffect, failure: Failure | None) -> fx.Stimulus:
        if isinstance(effect, fx.Rewire):
            missing = len(self.attached[effect.life.sandbox]) < len(attachments(effect.life))
            failure = failure or (Failure("half of it") if missing else None)
            return fx.Rewired(effect.replica, effect.token, self.addresses(effect.life), failure=failure)
        if failure is not None:
            return fx.Failed(effect.replica, effect.token, failure)
        if isinstance(effect, fx.AttachNetwork):
            return fx.Done(effect.replica, effect.token, "ns", self.addresses(effect.life))
        return fx.Done(effect.replica, effect.token)

    def addresses(self, life: Life) -> Pairs:
        return tuple((network, f"10.0.1.{life.id.slot}/16") for network in self.attached.get(life.sandbox, ()))

    def do(self, effect: fx.ReplicaEffect) -> None:
        match effect:
            case fx.PrepareVolumes(replica):
                self.volumes.add(replica)
            case fx.AttachNetwork(_, _, life):
                self.attached[life.sandbox] = tuple(item.network for item in attachments(life))
            case fx.Rewire(replica, _, life):
                assert life.sandbox in self.attached, "only what is attached is rewired"
                wanted = [item.network for item in attachments(life)]
                cut = self.random.randrange(len(wanted) + 1) if self.random.random() < self.failing else len(wanted)
                held = self.attached[life.sandbox]
                self.attached[life.sandbox] = tuple(dict.fromkeys([*(n for n in held if n in wanted), *wanted[:cut]]))
            case fx.CreateContainer(replica, _, life):
                assert life.container_id not in self.containers
                self.containers[life.container_id] = "created"
                self.owners[life.container_id] = replica
            case fx.StartContainer(_, _, container_id):
                self.containers[container_id] = "running"
                self.started += 1
                if self.random.random() < self.failing:
                    self.end(container_id, 3)
            case fx.DeleteContainer(_, _, container_id):
                self.containers.pop(container_id, None)
            case fx.DetachNetwork(_, _, sandbox):
                self.attached.pop(sandbox, None)
            case fx.ReleaseReplica(replica):
                self.volumes.discard(replica)

    def end(self, container_id: str, code: int) -> None:
        self.containers[container_id] = "exited"
        self.ends[container_id] = Exited(container_id, code, False, self.now)
        self.give(fx.ContainerExited(self.ends[container_id]))

    def settle(self, seconds: float = 600.0) -> None:
        """Perform everything, moving time on, until nothing is left to do or so much time has passed."""
        until = self.now + seconds
        for _ in range(5000):
            if self.waiting:
                self.perform()
                continue
            at = self.core.wake_at()
            if at is None or at > until:
                return
            self.now = max(self.now, at)
            self.give(fx.TimerDue())
        raise AssertionError("never settles")

    def running(self) -> list[tuple[str, int]]:
        return sorted(self.owners[c].place for c, state in self.containers.items() if state == "running")

    def restart_agent(self) -> None:
        """SIGKILL of the agent: what was in flight happened or not, nobody heard. Attachments nobody claims are freed."""
        for effect in self.waiting:
            if self.random.random() < 0.5 and isinstance(effect, fx.ReplicaEffect):
                self.do(effect)
        self.waiting.clear()
        self.reported.clear()
        found = [
            Found(c, "", "", (), state, exit=self.ends.get(c), started_at=self.now)  # type: ignore[arg-type]
            for c, state in self.containers.items()
        ]
        desired = self.core.desired
        claimed = {life.sandbox for life in self.journal.values() if life.attached}
        self.attached = {sandbox: held for sandbox, held in self.attached.items() if sandbox in claimed}
        self.core = Core("n1")
        self.take(self.core.recover(desired, list(self.journal.values()), found, self.now))


ANY, NEVER = RestartPolicy("any"), RestartPolicy("none")


def service(
    sid: str,
    count: int,
    *,
    version: int = 1,
    created: int = 1,
    stopped: bool = False,
    policy: RestartPolicy = ANY,
    rewired: tuple[str, ...] | None = None,
) -> Desired:
    mounts, networks = (Mount("volume", "/data"),), (Attachment(NET.name),)
    spec = ServiceSpec(sid, ContainerSpec("web:1", mounts=mounts, networks=networks, restart=policy, expose=("80",)))
    slots = tuple(Slot(n, version, created) for n in range(1, count + 1))
    wired = None if rewired is None else tuple(Attachment(name) for name in rewired)
    return Desired(1, (WantedService(sid, sid, slots, stopped, wired),), (WantedSpec(sid, version, spec),), (NET, OTHER))


WANTED = st.builds(
    service,
    st.sampled_from(["web", "db"]),
    st.integers(0, 7),
    version=st.integers(1, 2),
    created=st.integers(1, 2),
    stopped=st.booleans(),
    rewired=st.none() | st.sampled_from([(), (NET.name,), (OTHER.name,), (NET.name, OTHER.name)]),
)


def check_reached(node: Node) -> None:
    """Exactly the wanted replicas run and nothing else is there."""
    wanted = [] if not node.core.desired.services else node.core.desired.services[0].slots
    stopped = any(item.stopped for item in node.core.desired.services)
    places = sorted((node.core.desired.services[0].id, slot.slot) for slot in wanted)
    assert node.running() == ([] if stopped else places)
    assert set(node.reported) == set(node.core.lives)
    assert len(node.core.lives) == len(places)
    assert set(node.reported.values()) <= {states.SHUTDOWN if stopped else states.RUNNING}
    if not stopped:
        assert len(node.attached) == len(node.containers) == len(node.volumes) == len(places)
        for life in node.core.lives.values():
            networks = {item.network for item in attachments(life)}
            assert {network for network, _ in life.addresses} == set(node.attached[life.sandbox]) == networks
    else:
        assert not node.attached


@given(WANTED, st.integers(0, 10_000))
def test_wanted_is_reached_and_a_second_time_nothing_happens(desired: Desired, seed: int) -> None:
    node = Node(seed)
    node.give(fx.DesiredArrived(desired))
    node.settle()
    check_reached(node)
    assert node.core.handle(fx.DesiredArrived(desired), node.now) == []
    assert len(node.pulls) <= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(WANTED, min_size=1, max_size=5), st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.4]))
def test_whatever_fails_the_last_wish_is_reached(wishes: list[Desired], seed: int, failing: float) -> None:
    node = Node(seed, failing)
    for desired in wishes:
        node.give(fx.DesiredArrived(desired))
        for _ in range(node.random.randrange(20)):
            if node.waiting:
                node.perform()
        if node.random.random() < 0.5:
            node.restart_agent()
    node.settle()
    node.failing = 0.0
    node.settle()
    check_reached(node)


@settings(max_examples=200, deadline=None)
@given(st.lists(WANTED, min_size=1, max_size=4), st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.4]))
def test_nothing_is_left_when_nothing_is_wanted(wishes: list[Desired], seed: int, failing: float) -> None:
    node = Node(seed, failing)
    for desired in wishes:
        node.give(fx.DesiredArrived(desired))
        for _ in range(node.random.randrange(25)):
            if node.waiting:
                node.perform()
        if node.random.random() < 0.3:
            node.restart_agent()
    node.give(fx.DesiredArrived(Desired(9)))
    node.settle()
    node.failing = 0.0
    node.settle()
    left = (node.containers, node.attached, node.volumes, node.journal, node.reported, node.core.lives)
    assert not any(left), left


@given(WANTED, st.integers(0, 10_000))
def test_a_restarted_agent_restarts_no_container(desired: Desired, seed: int) -> None:
    node = Node(seed)
    node.give(fx.DesiredArrived(desired))
    node.settle()
    before, started = dict(node.containers), node.started
    node.restart_agent()
    node.settle()
    check_reached(node)
    assert (node.containers, node.started) == (before, started)


@pytest.mark.parametrize("code", [0, 1, 137])
def test_an_exit_while_the_agent_was_away_keeps_its_code(code: int) -> None:
    node = Node()
    node.give(fx.DesiredArrived(service("web", 1, policy=NEVER)))
    node.settle()
    (container_id,) = node.containers
    node.core = Core("n1")
    node.end(container_id, code)
    node.core.desired = service("web", 1, policy=NEVER)
    node.restart_agent()
    node.settle()
    (status,) = node.core.statuses()
    assert (status.state, status.exit_code) == (states.COMPLETE if code == 0 else states.FAILED, code)
    assert status.container_id == container_id
