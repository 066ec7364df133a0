"""Which outdated replicas are replaced now.

Rules: the rollout itself never makes more than `parallelism` replicas unavailable. A replaced replica is settled when it is
ok for `delay_s` (at least a second, or `monitor_s` if that is less); after a restart for `monitor_s`. A new version that fails
pauses the rollout (`rollback` is treated as `pause`) until it runs or the service changes again. Slots that wait for a node do
not hold the rollout up, nor do replicas on nodes that are down. An outdated replica that no agent has ever reported is replaced
at once, paused or not: nothing becomes unavailable by it, and after a change of leader its old spec may be nowhere any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.decide.standing import Held, Key, Slot
from model.documents import ServiceDoc
from model.spec import UpdateConfig
from model.states import COMPLETE

SETTLE_MS = 1_000


@dataclass(slots=True)
class Step:
    """`replace`: the slots whose replica is replaced now; `paused`: why it does not go on, or ""."""

    replace: list[Key] = field(default_factory=list)
    paused: str = ""
    wake_at_ms: int | None = None


def next_step(doc: ServiceDoc, slots: Mapping[Key, Slot], now_ms: int) -> Step:
    """The next step of the rollout to `doc.version`; an empty one when nothing is outdated."""
    if all(slot.primary.current for slot in slots.values()):
        return Step()
    slots = {key: slot for key, slot in slots.items() if not slot.primary.frozen}
    outdated = [key for key, slot in slots.items() if not slot.primary.current and not slot.primary.leaving]
    outdated.sort(key=lambda key: (str(key) if isinstance(key, str) else "", key if isinstance(key, int) else 0))
    idle = [key for key in outdated if slots[key].primary.status is None]
    outdated = [key for key in outdated if slots[key].primary.status is not None]
    if not outdated:
        return Step(idle)
    step, config = Step(idle), doc.spec.update
    tolerant = config.failure_action == "continue"
    failed: list[Held] = []
    moving = len(idle)
    for slot in slots.values():
        held = slot.primary
        if not held.current:
            continue
        settled_at = _settled_at(held, config, now_ms)
        if settled_at is not None and settled_at <= now_ms:
            continue
        if held.failed or (held.status is not None and held.status.restarts > 0):
            failed.append(held)
            moving += not tolerant
        else:
            moving += 1
        if settled_at is not None:
            step.wake_at_ms = min(settled_at, step.wake_at_ms or settled_at)
    if failed and not tolerant and len(failed) > config.max_failure_ratio * len(slots):
        held = failed[0]
        step.paused = f"update to version {doc.version} is paused: its replica on {held.node} does not stay up"
        return step
    step.replace = idle + _choose(doc, slots, outdated, moving, failed if tolerant else [])
    return step


def _choose(doc: ServiceDoc, slots: Mapping[Key, Slot], outdated: list[Key], moving: int, excused: list[Held]) -> list[Key]:
    limit = doc.spec.update.parallelism or len(slots)
    budget = max(0, limit - moving)
    weak = [key for key in outdated if not slots[key].available][:budget]
    known = {id(held) for held in excused}
    unavailable = sum(not slot.available and id(slot.primary) not in known for slot in slots.values())
    strong = [key for key in outdated if slots[key].available]
    return weak + strong[: max(0, min(budget - len(weak), limit - unavailable))]


def _settled_at(held: Held, config: UpdateConfig, now_ms: int) -> int | None:
    """When a replica of the new version counts as settled; None: it is not ok now."""
    if not held.ok or held.status is None:
        return None
    if held.status.state == COMPLETE:
        return 0
    since = credible(held.status.since_ms, held.replica.created_ms, now_ms)
    monitor = round(config.monitor_s * 1000)
    return since + (monitor if held.status.restarts else max(round(config.delay_s * 1000), min(monitor, SETTLE_MS)))


def credible(agent_ms: int, created_ms: int, now_ms: int) -> int:
    """A time told by an agent; its clock may be wrong: what is not between the replica's creation and now is the creation."""
    return agent_ms if created_ms <= agent_ms <= now_ms else created_ms
