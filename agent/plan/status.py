"""What is reported of a life, and what is kept of it in the journal.

Rules: pure. Two lives that would be reported alike compare equal here, so nothing is sent or written twice.
"""

from __future__ import annotations

from agent.plan.mounts import mount_plans
from agent.plan.quick import replace
from agent.plan.records import Drain, Health, Life, Wiring
from model import states
from model.documents import ReplicaStatus

_NO_DRAIN, _WIRED, _BEGUN = Drain(), Wiring(), Wiring(begun=True)


def replica_status(life: Life) -> ReplicaStatus:
    """The life as the controller and people see it."""
    attached = life.stage in ("network", "created", "running")
    return ReplicaStatus(
        service_id=life.id.service_id,
        slot=life.id.slot,
        version=life.id.version,
        created_ms=life.id.created_ms,
        state=life.state,
        since_ms=round(life.since * 1000),
        container_id=life.container_id,
        restarts=life.attempts.restarts,
        exit_code=life.exit_code,
        message=life.message,
        addresses=life.addresses if attached else (),
        health=life.health.status,
        ports=life.ports if attached and life.addresses else (),
    )


def kept(life: Life) -> Life | None:
    """The part of a life that a restarted agent needs; equal parts need no new journal entry. None: nothing is worth keeping.

    How far a start has come is not kept: a restarted agent begins an unfinished start again. An attachment without a container
    needs no entry either, the network driver frees what nobody claims; an anonymous volume does.
    """
    anonymous = life.volumes and any(plan.anonymous for plan in mount_plans(life))
    if not (life.container_id or life.ended or life.attempts.failures or anonymous):
        return None
    health = Health(life.health.status) if life.health.status else Health()
    life = replace(
        life, busy="", token=0, early_exit=None, health=health, cleanup_failures=0, cleanup_at=0.0, drain=_NO_DRAIN,
        wiring=_BEGUN if life.wiring.begun else _WIRED,
    )  # fmt: skip
    if life.stage in ("volumes", "network", "created"):
        life = replace(life, stage="none", state=states.PREPARING, since=0.0, message="")
    return life
