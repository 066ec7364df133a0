"""When a replica's container is started again. Decided on the node, so that it works without a controller.

Rules: pure. The first restart is at once, then 1, 2, 4 ... 60 s; a run of ten seconds or more begins the row anew. What can
never start as written is tried again rarely: the image may have come meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.plan.records import Attempts
from model.spec import RestartPolicy

HEALTHY_RUN_S = 10.0
BACKOFF_MAX_S = 60.0
REJECTED_BACKOFF_S = 15.0
_HISTORY_MAX = 100


@dataclass(frozen=True, slots=True)
class Again:
    """Start again at `at`; `attempts` is the new history."""

    at: float
    attempts: Attempts


def backoff_s(failures: int) -> float:
    """Wait after this many starts in a row that did not last: 0, 1, 2, 4 ... 60 s."""
    return 0.0 if failures <= 0 else min(BACKOFF_MAX_S, 2.0 ** min(failures - 1, 10))


def after_exit(policy: RestartPolicy, attempts: Attempts, code: int | None, ran_s: float, now: float) -> Again | None:
    """What follows an exit with `code` (None: unknown, taken as a failure); None: it stays ended."""
    if policy.condition == "none" or (policy.condition == "on-failure" and code == 0) or _used_up(policy, attempts, now):
        return None
    failures = 0 if ran_s >= HEALTHY_RUN_S else attempts.failures
    wait = policy.delay_s if policy.delay_s is not None else backoff_s(failures)
    return Again(now + wait, _counted(policy, attempts, failures, now))


def after_failure(policy: RestartPolicy, attempts: Attempts, permanent: bool, now: float) -> Again | None:
    """What follows a start that failed before any process ran; None: it stays ended."""
    if policy.condition == "none" or _used_up(policy, attempts, now):
        return None
    wait = backoff_s(attempts.failures + 1)
    if permanent:
        wait = min(BACKOFF_MAX_S, REJECTED_BACKOFF_S * 2.0 ** min(attempts.failures, 5))
    return Again(now + max(wait, policy.delay_s or 0.0), _counted(policy, attempts, attempts.failures, now))


def _used_up(policy: RestartPolicy, attempts: Attempts, now: float) -> bool:
    if policy.max_attempts is None:
        return False
    recent = [at for at in attempts.at if policy.window_s <= 0 or at > now - policy.window_s]
    return len(recent) >= policy.max_attempts


def _counted(policy: RestartPolicy, attempts: Attempts, failures: int, now: float) -> Attempts:
    """The history with one more attempt; times are kept only where a limit looks at them."""
    keep = min(policy.max_attempts or 0, _HISTORY_MAX)
    times = (*attempts.at, now)[-keep:] if keep else ()
    return Attempts(failures + 1, attempts.restarts, times)
