"""From a step of a life to the effect that performs it, and the sentence about what comes next.

Rules: pure.
"""

from __future__ import annotations

from agent.plan import drain
from agent.plan import effects as fx
from agent.plan.health import health_check
from agent.plan.life import Need, stop_signal
from agent.plan.records import Life


def effect_of(life: Life, step: Need) -> fx.Effect:
    """The effect that performs `step`; `life` has it in flight already."""
    match step:
        case "volumes":
            return fx.PrepareVolumes(life.id, life.token, life)
        case "network":
            return fx.AttachNetwork(life.id, life.token, life)
        case "create":
            return fx.CreateContainer(life.id, life.token, life)
        case "start":
            return fx.StartContainer(life.id, life.token, life.container_id)
        case "rewire":
            return fx.Rewire(life.id, life.token, life)
        case "drain":
            return fx.Drain(life.id, life.drain.token, life.container_id, drain.places(life), drain.within_s(life))
        case "delete":
            return fx.DeleteContainer(life.id, life.token, life.container_id)
        case "detach":
            return fx.DetachNetwork(life.id, life.token, life.sandbox)
        case "release":
            return fx.ReleaseReplica(life.id, life.token, life)
        case "kill":
            return fx.KillContainer(life.container_id, stop_signal(life))
        case "force":
            return fx.KillContainer(life.container_id, "SIGKILL")
        case "probe":
            check = health_check(life)
            return fx.Probe(life.id, life.container_id, check) if check else fx.Look(life.id, life.container_id)
    raise AssertionError(step)


def what_next(life: Life, now: float) -> str:
    """What the restart policy makes of it, for an event's sentence."""
    if life.goal != "run":
        return ""
    if life.ended:
        return "; not started again (restart policy)"
    wait = life.not_before - now
    return "; started again at once" if wait < 0.01 else f"; started again in {wait:.0f} s"
