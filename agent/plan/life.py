"""The life of one replica: what it needs next, and what an outcome makes of it.

Rules: pure; a life is replaced, never changed. `need` is level-triggered: it looks only at what is wanted and how far things
are, so a repeated or lost observation does no harm. At most one effect of a life is in flight (`busy`); killing and probing
go beside it. States follow model.states.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

from agent.plan import drain, health, restart, rewire
from agent.plan.container import Exited
from agent.plan.quick import replace
from agent.plan.records import Attempts, Drain, Failure, Goal, Health, ImageFacts, Life, ReplicaId, Stage, Wiring
from model import states
from model.spec import Pairs, ServiceSpec

Need = Literal[
    "nothing",
    "image",
    "volumes",
    "network",
    "create",
    "start",
    "rewire",
    "drain",
    "kill",
    "force",
    "probe",
    "delete",
    "detach",
    "release",
    "forget",
]
START_STEPS: Final[frozenset[str]] = frozenset({"image", "volumes", "network", "create", "start"})
CLEANUP_BACKOFF_MAX_S: Final = 30.0
KILL_AGAIN_S: Final = 10.0
_NO_DRAIN: Final = Drain()
_WIRED: Final = Wiring()


def begin(replica: ReplicaId, spec: ServiceSpec, name: str, goal: Goal, now: float) -> Life:
    """A life that has just been wanted."""
    state = states.PREPARING if goal == "run" else states.SHUTDOWN
    return Life(replica, spec, name, goal, state=state, since=now)


def want(life: Life, goal: Goal, now: float, *, drains: bool = True) -> Life:
    """The life with another goal. A drain that was begun holds for every goal but `run`."""
    if goal == life.goal:
        return life
    draining = _NO_DRAIN if goal == "run" else life.drain if drains else drain.UNWANTED
    life = replace(life, goal=goal, not_before=0.0, cleanup_at=0.0, ended=False, drain=draining)
    if goal == "run":
        life = replace(life, attempts=Attempts(restarts=life.attempts.restarts))
        return life if life.may_run() else preparing(life, now)
    if life.may_run():
        return life
    return _in_state(life, states.SHUTDOWN, now)


def need(life: Life, now: float, *, rewires: bool = True) -> Need:
    """The next thing to do for this life at `now`. `rewires` False: its networks are not there yet, what comes beside them?"""
    if life.busy:
        return "nothing"
    if life.goal != "run" or _ending(life):
        return _need_to_stop(life, now)
    if life.stage == "running":
        if rewires and rewire.due(life, now):
            return "rewire"
        return "probe" if _probe_due(life, now) else "nothing"
    if life.dirty:
        return _need_cleaning(life, now, keep_exited=False) or "nothing"
    if life.ended:
        return _need_cleaning(life, now, keep_exited=True) or "nothing"
    if now < max(life.not_before, life.cleanup_at):
        return "nothing"
    if life.container_id and life.stage == "exited":
        return "delete"
    return _need_to_start(life)


def _ending(life: Life) -> bool:
    """It runs and has its signal: it ends in a moment, whatever is wanted meanwhile."""
    return life.stopping and life.stage == "running"


def _need_to_start(life: Life) -> Need:
    if life.image is None:
        return "image"
    if life.stage in ("network", "created") and rewire.differs(life):
        return "rewire"
    steps: dict[Stage, Need] = {"none": "volumes", "volumes": "network", "network": "create", "created": "start"}
    return steps.get(life.stage, "nothing")


def _need_to_stop(life: Life, now: float) -> Need:
    if life.stage == "running":
        if life.stopping:
            return "force" if now >= life.kill_at else "nothing"
        if drain.due(life):
            return "drain"
        return "nothing" if now < life.drain.until else "kill"
    found = _need_cleaning(life, now, keep_exited=life.goal == "stop")
    if found is not None:
        return found
    if life.goal == "stop":
        return "nothing"
    if life.volumes:
        return "release" if now >= life.cleanup_at else "nothing"
    return "forget"


def _need_cleaning(life: Life, now: float, *, keep_exited: bool) -> Need | None:
    """Container and network away, in this order; None when nothing is left. An ended container is kept for its logs."""
    if life.container_id and not (keep_exited and life.stage == "exited"):
        return "delete" if now >= life.cleanup_at else "nothing"
    if life.attached:
        return "detach" if now >= life.cleanup_at else "nothing"
    return None


def _probe_due(life: Life, now: float) -> bool:
    return bool(life.health.status) and not life.health.probing and now >= life.health.next_at


def wake_at(life: Life, now: float) -> float | None:
    """When `need` may answer differently than at `now` without anything happening; None: never."""
    if _ending(life) or (life.goal != "run" and life.stage == "running"):
        return life.kill_at if life.stopping else life.drain.until or None
    if life.stage == "running":
        probe_at = life.health.next_at if life.health.status and not life.health.probing else 0.0
        return min((at for at in (probe_at, life.wiring.retry_at) if at > now), default=None)
    if life.busy or (life.ended and not life.cleanup_at):
        return None
    if life.goal != "run" or life.dirty or life.ended:
        return life.cleanup_at or None
    return max(life.not_before, life.cleanup_at) or None


# Effects begin


def taking(life: Life, step: Need, token: int, now: float) -> Life:
    """The life with `step` in flight. What may exist from now on is noted before it does."""
    if step == "volumes":
        return replace(preparing(life, now), busy="volumes", token=token, volumes=True, attached=True)
    if step == "network":
        return replace(life, busy="network", token=token, attached=True)
    if step == "create":
        life, sequence = preparing(life, now), life.sequence + 1
        return replace(life, busy="create", token=token, sequence=sequence, container_id=_container_id(life, sequence, now))
    if step == "detach":
        return replace(life, busy="detach", token=token, netns="", stage=life.stage if life.container_id else "none")
    if step == "delete":
        return _deleting(life, token, now)
    if step in ("start", "release"):
        return replace(life, busy=step, token=token)
    if step == "rewire":
        life = preparing(life, now) if life.stage == "network" else life  # a start on other networks begins with it
        return replace(life, busy="rewire", token=token, wiring=replace(life.wiring, begun=True, retry_at=0.0))
    if step == "drain":
        return drain.begun(life, token, now)
    if step == "kill":
        kill_at = life.kill_at if life.drain.token > 0 else now + life.spec.container.stop_grace_period_s
        return replace(life, stopping=True, kill_at=kill_at, health=Health("stopping"))
    if step == "force":
        return replace(life, kill_at=now + KILL_AGAIN_S)
    if step == "probe":
        return replace(life, health=replace(life.health, probing=True))
    raise AssertionError(step)


def _deleting(life: Life, token: int, now: float) -> Life:
    """From here on the container cannot be used, even if deleting it fails at first."""
    if life.goal != "run":
        life = _in_state(life, states.SHUTDOWN, now, keep_message=True)
    if life.stage != "exited":
        life = replace(life, stage="none", dirty=True)
    return replace(life, busy="delete", token=token)


def preparing(life: Life, now: float) -> Life:
    """Being made ready for a start; why the last one failed stays to be seen."""
    return _in_state(life, states.PREPARING, now, keep_message=True)


def _container_id(life: Life, sequence: int, now: float) -> str:
    """64 hex digits, never the same twice: the time tells it from a life that was forgotten."""
    return sha256(f"container {life.id.text} {sequence} {now!r}".encode()).hexdigest()


# Outcomes


def pulled(life: Life, image: ImageFacts) -> Life:
    return replace(life, image=image)


def pull_again(life: Life) -> Life:
    """There are other credentials for its image: what was refused may be allowed now."""
    return replace(life, not_before=0.0) if life.image is None and not life.ended else life


def done(life: Life, netns: str, addresses: Pairs, ports: Pairs, now: float) -> Life:
    """The effect in flight has succeeded."""
    after = _done(life, netns, addresses, ports, now)
    unwanted = after.goal != "run" and not after.may_run()
    return _in_state(after, states.SHUTDOWN, now, keep_message=True) if unwanted else after


def _done(life: Life, netns: str, addresses: Pairs, ports: Pairs, now: float) -> Life:
    step = life.busy
    life = replace(life, busy="", cleanup_failures=0, cleanup_at=0.0)
    if step == "volumes":
        return replace(life, stage="volumes")
    if step == "network":
        return replace(life, stage="network", netns=netns, addresses=addresses, ports=ports, wiring=_WIRED)
    if step == "create":
        return _in_state(replace(life, stage="created"), states.STARTING, now, keep_message=True)
    if step == "start":
        return _started(life, now)
    if step == "delete":
        stage: Stage = "network" if life.netns and not life.dirty else "none"
        return _cleaned(replace(life, container_id="", stage=stage, early_exit=None, health=Health()))
    if step == "detach":
        stage = life.stage if life.container_id else "none"
        return _cleaned(replace(life, attached=False, netns="", addresses=(), stage=stage, wiring=_WIRED))
    return replace(life, volumes=False, stage="none") if step == "release" else life


def _cleaned(life: Life) -> Life:
    return replace(life, dirty=life.dirty and (bool(life.container_id) or life.attached))


def _started(life: Life, now: float) -> Life:
    restarts = life.attempts.restarts + (1 if life.ran else 0)
    life = replace(
        life, stage="running", ran=True, started_at=now, finished_at=0.0, exit_code=None, oom=False, stopping=False,
        drain=_NO_DRAIN, health=health.begun(life, now), attempts=replace(life.attempts, restarts=restarts),
    )  # fmt: skip
    life = _in_state(life, states.RUNNING, now)
    early = life.early_exit
    return exited(replace(life, early_exit=None), early, now) if early else life


def failed(life: Life, failure: Failure, now: float) -> Life:
    """The effect in flight has failed: clean up and try again later, or clean up again."""
    step = life.busy
    life = replace(life, busy="", early_exit=None)
    if step in ("delete", "detach", "release"):
        failures = life.cleanup_failures + 1
        wait = min(CLEANUP_BACKOFF_MAX_S, 2.0 ** min(failures - 1, 5))
        return replace(life, cleanup_failures=failures, cleanup_at=now + wait, message=failure.message)
    if step == "rewire" and life.stage in ("running", "exited"):
        return rewire.rewire_failed(life, now)
    return start_failed(life, failure, now)


def start_failed(life: Life, failure: Failure, now: float) -> Life:
    """A step towards running has failed (the image's too, which is not this life's own effect)."""
    life = replace(life, stage="none", dirty=bool(life.container_id) or life.attached)
    if life.goal != "run":
        return _in_state(life, states.SHUTDOWN, now)
    again = restart.after_failure(life.spec.container.restart, life.attempts, failure.permanent, now)
    state = states.REJECTED if failure.permanent else states.FAILED
    life = _in_state(replace(life, exit_code=failure.exit_code), state, now, failure.message)
    if again is None:
        return replace(life, ended=True)
    return replace(life, not_before=again.at, attempts=again.attempts)


def exited(life: Life, end: Exited, now: float) -> Life:
    """The container has ended."""
    if end.container_id != life.container_id or life.stage == "exited" or life.busy == "delete":
        return life
    if life.busy in ("create", "start"):
        return replace(life, early_exit=end)
    if life.stage != "running":
        return life
    life = replace(life, stage="exited", exit_code=end.exit_code, oom=end.oom, finished_at=end.at, health=Health())
    if life.goal != "run":
        return _in_state(replace(life, stopping=False), states.SHUTDOWN, now)
    if life.stopping:
        return replace(_in_state(life, states.SHUTDOWN, now), stopping=False, not_before=0.0)
    again = restart.after_exit(
        life.spec.container.restart, life.attempts, end.exit_code, max(0.0, end.at - life.started_at), now
    )
    state = states.COMPLETE if end.exit_code == 0 else states.FAILED
    life = _in_state(life, state, now, exit_message(end))
    if again is None:
        return replace(life, ended=True)
    return replace(life, not_before=again.at, attempts=again.attempts)


def exit_message(end: Exited) -> str:
    """One line on how a container ended; empty after exit code 0."""
    if end.exit_code == 0:
        return ""
    if end.message:
        return end.message
    return "ended while no agent watched: exit code unknown" if end.exit_code is None else f"exited with code {end.exit_code}"


def stop_signal(life: Life) -> str:
    """The signal that asks the container to end: the spec's, else the image's, else SIGTERM."""
    return life.spec.container.stop_signal or (life.image.stop_signal if life.image else "") or "SIGTERM"


def vanished(life: Life, now: float) -> Life:
    """Its container is not there any more though nobody deleted it."""
    end = Exited(life.container_id, None, False, now, "the container vanished: its exit code is unknown")
    return exited(life, end, now)


def _in_state(life: Life, state: str, now: float, message: str = "", *, keep_message: bool = False) -> Life:
    text = life.message if keep_message else message
    if life.state == state and life.message == text:
        return life
    return replace(life, state=state, message=text, since=life.since if life.state == state else now)
