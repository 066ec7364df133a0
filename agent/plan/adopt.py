"""Taking lives over after a restart of the agent: what the journal says against what the runtime found.

Rules: pure. A running container is never touched. An exit that happened meanwhile keeps its code. A half-made start is
cleaned up and begun again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from agent.plan.container import Found
from agent.plan.health import begun
from agent.plan.life import exited, vanished
from agent.plan.quick import replace
from agent.plan.records import Life
from model import states


def adopted(saved: Life, found: Mapping[str, Found], now: float) -> Life:
    """The life as it goes on; `found` by container id."""
    seen = found.get(saved.container_id)
    if seen is not None and seen.state == "running" and not seen.broken:
        return _running(saved, seen, now)
    life = replace(saved, netns="")
    if seen is not None and seen.state == "exited" and not seen.broken and saved.stage != "exited":
        running = _running(life, seen, now)
        return exited(running, seen.exit, now) if seen.exit else vanished(running, now)
    if saved.stage == "running":
        return vanished(life, now)
    if saved.stage == "exited":
        return life
    return replace(life, stage="none", dirty=life.dirty or bool(life.container_id))


def unrecorded(found: Iterable[Found], known: Collection[str], wanted: Mapping[str, Life]) -> list[Life]:
    """Journal entries made up for running containers of wanted replicas that the journal does not know (a full disk).

    `known`: container ids of the journal; `wanted`: fresh lives by the text of their id, which the runtime keeps for us.
    """
    lives: dict[str, Life] = {}
    for item in sorted(found, key=lambda item: item.started_at):
        text = dict(item.meta).get("replica", "")
        if item.container_id in known or item.state != "running" or item.broken or text not in wanted:
            continue
        lives[text] = replace(wanted[text], container_id=item.container_id, attached=True, volumes=True)
    return list(lives.values())


def _running(saved: Life, seen: Found, now: float) -> Life:
    if saved.stage == "running":
        return saved
    started_at = seen.started_at or saved.since
    attempts = replace(saved.attempts, restarts=saved.attempts.restarts + (1 if saved.ran else 0))
    return replace(
        saved, stage="running", ran=True, state=states.RUNNING, since=started_at, started_at=started_at, exit_code=None,
        message="", attempts=attempts, health=begun(saved, now),
    )  # fmt: skip
