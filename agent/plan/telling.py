"""What is said of a replica when something has happened to it, in one sentence.

Rules: pure. What is only tried again is told once; what nobody wants any more is not told.
"""

from __future__ import annotations

from agent.plan import effects as fx
from agent.plan import listening
from agent.plan.records import Failure, Life
from agent.plan.steps import what_next


def said(life: Life, kind: str, sentence: str) -> fx.Say:
    return fx.Say(kind, f"service/{life.spec.name}", f"{life.name}{sentence}")


def failed(before: Life, after: Life, failure: Failure, now: float) -> fx.Say | None:
    """An effect of it has failed."""
    if before.busy in ("delete", "detach", "release"):
        return said(before, "cleanup-failed", f": {failure.message}; tried again") if after.cleanup_failures == 1 else None
    if before.busy == "rewire" and after.stage in ("running", "exited"):
        return said(before, "network-failed", f": {failure.message}; tried again") if after.wiring.failures == 1 else None
    return start_failed(before, after, failure, now)


def start_failed(before: Life, after: Life, failure: Failure, now: float) -> fx.Say:
    return said(before, "replica-failed", f": {failure.message}{what_next(after, now)}")


def exited(before: Life, after: Life) -> fx.Say | None:
    """Its container has ended, though it should run."""
    if after.stage == "exited" and before.stage != "exited" and after.goal == "run" and after.message:
        return said(after, "replica-exited", f": {after.message}{what_next(after, after.since)}")
    return None


def probed(before: Life, after: Life, output: str) -> fx.Say | None:
    """Its health was looked at."""
    if after.health.status == "unhealthy" and before.health.status != "unhealthy":
        return said(after, "replica-unhealthy", f" is unhealthy: {output or 'its health check fails'}")
    return None


def looked(before: Life, after: Life, open_inside: frozenset[int]) -> fx.Say | None:
    """It was looked which ports are open inside; told once, when it is waited for no longer."""
    closed = listening.closed(before, open_inside)
    if not closed or after.health.status == before.health.status:
        return None
    ports = " and ".join(str(port) for port in closed)
    late = f"after {listening.OPEN_WITHIN_S:g} s; callers are sent to it all the same"
    return said(after, "replica-closed", f" does not listen on port {ports} {late}")
