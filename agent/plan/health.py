"""Health checks: which one holds, when it is run, and what its outcomes say.

Rules: pure. Docker's meaning: failures during the start period do not count, `retries` failures in a row make the container
unhealthy, one success makes it healthy.
"""

from __future__ import annotations

from dataclasses import replace

from agent.plan import listening
from agent.plan.records import Health, Life
from model.spec import Healthcheck


def health_check(life: Life) -> Healthcheck | None:
    """The check of the spec; its command may come from the image. None: there is none or it is disabled."""
    own = life.spec.container.healthcheck
    theirs = life.image.healthcheck if life.image else None
    if own is not None and own.disable:
        return None
    check = theirs if own is None else own
    if check is not None and not check.test and theirs is not None:
        check = replace(check, test=theirs.test)
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    return check


def command(check: Healthcheck) -> tuple[str, ...]:
    """The words to execute in the container."""
    kind, *rest = check.test
    if kind == "CMD":
        return tuple(rest)
    if kind == "CMD-SHELL":
        return ("/bin/sh", "-c", *rest)
    return ("/bin/sh", "-c", " ".join(check.test))


def begun(life: Life, now: float) -> Health:
    """The health of one that has just been started; the first probe comes sooner while there is a start period."""
    check = health_check(life)
    return Health("starting", 0, now + _wait(check, now, now)) if check else listening.begun(life, now)


def _wait(check: Healthcheck, started_at: float, now: float) -> float:
    starting = now < started_at + check.start_period_s
    wait = min(check.start_interval_s, check.interval_s) if starting else check.interval_s
    return max(wait, 0.05)


def probed(life: Life, healthy: bool, now: float) -> Life:
    """The life after an outcome of its check."""
    check = health_check(life)
    if check is None or not life.health.status:
        return life
    next_at = now + _wait(check, life.started_at, now)
    if healthy:
        return replace(life, health=Health("healthy", 0, next_at))
    starting = life.health.status == "starting"
    counts = not starting or now >= life.started_at + check.start_period_s
    streak = life.health.streak + 1 if counts else 0
    status = "unhealthy" if streak >= max(1, check.retries) else life.health.status
    return replace(life, health=Health(status, streak, next_at))
