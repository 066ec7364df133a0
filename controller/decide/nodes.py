"""Which nodes are ready, unreachable or down, from silence.

Rules:
- Silence is counted from the newest of: last message, start of this reign, the node's joining. Never from a store lease.
- A leader that is late in reading what nodes say has not heard it yet: silence is counted to the moment up to which it has.
- After a change of leader thousands have to be taken in, and some are heard late, or hang up and come again: in the first six
  timeouts of a reign silence counts from the newest arrival of any node. They wait in the line, they are not gone.
- ready -> unreachable after HALF the node timeout (nothing moves yet; it only gets no new replicas); -> down after the WHOLE
  timeout. So a lost node's replicas move one timeout after its last message.
- unreachable or down -> ready when its session is open and its whole status has arrived.
- A node that was never ready has no health document: there is nothing on it to lose.
- Losing most nodes at once moves nothing. Counted are the nodes that are ready or unreachable, and those that went down within
  the last three timeouts. While more than half of them are silent, no node goes down; it is the controller that is cut off,
  or the whole place has a problem that moving replicas would make worse. Ends when they are heard, or removed by an operator.
- When it ends because some have come back, the others get one more node timeout: they had the same trouble, and are on their
  way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.decide.types import Plan, Session, Settings, View
from model.documents import Event, NodeDoc, NodeHealthDoc, NodeState

_NOBODY = Session()
RECENT_TIMEOUTS = 3
ARRIVING_TIMEOUTS = 6
HELD = "silent, but so are most nodes: nothing is moved until they are heard or removed"
RETURNING = "silent, but others that were are just coming back: it has one node timeout to do so, too"


@dataclass(frozen=True, slots=True)
class _Silence:
    """`held`: more than half of the nodes that count are silent. `returning`: some that were silent have just come back.
    `window_ends`: when the next lost one stops counting. `since`: from when each node's silence counts, later by as much as
    the leader is late in reading."""

    since: Mapping[str, int]
    held: bool
    returning: bool
    window_ends: int | None


@dataclass(slots=True)
class _Findings:
    health: list[NodeHealthDoc] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)


def decide_nodes(view: View, settings: Settings, now_ms: int) -> Plan:
    """The health documents that change. `wake_at_ms` is the next moment at which silence alone would change one."""
    found = _Findings()
    silence = _silence(view, settings, now_ms)
    for name in sorted(view.nodes):
        _decide_node(view, settings, now_ms, view.nodes[name], silence, found)
    if silence.held and silence.window_ends is not None:
        found.deadlines.append(silence.window_ends)
    wakes = [at for at in found.deadlines if at > now_ms]
    sentence = "; ".join(event.sentence for event in found.events[:5])
    return Plan(health=tuple(found.health), events=tuple(found.events), wake_at_ms=min(wakes, default=None), sentence=sentence)


def _silent_since(view: View, settings: Settings, now_ms: int) -> dict[str, int]:
    """By node, Unix ms. A leader that is late in reading has not heard yet what stands in its sockets."""
    late_ms = max(0, now_ms - view.listened_ms) if view.listened_ms is not None else 0
    arrived_ms, session_of = _arrived(view, settings), view.sessions.get
    return {
        name: late_ms + max(session_of(name, _NOBODY).last_heard_ms, arrived_ms, node.joined_ms)
        for name, node in view.nodes.items()
    }


def _arrived(view: View, settings: Settings) -> int:
    """From when silence counts: when this reign began, or when its newest session did while the others may be in the line."""
    newest = max((session.since_ms for session in view.sessions.values()), default=0)
    line_ends_ms = view.reign_started_ms + ARRIVING_TIMEOUTS * settings.node_timeout_ms
    return max(view.reign_started_ms, min(newest, line_ends_ms))


def unreachable_after_ms(settings: Settings) -> int:
    return settings.node_timeout_ms // 2


def _silence(view: View, settings: Settings, now_ms: int) -> _Silence:
    silent_since, unreachable_ms = _silent_since(view, settings, now_ms), unreachable_after_ms(settings)
    counted = silent = 0
    returning = False
    ends: list[int] = []
    for name, health in view.health.items():
        since = silent_since.get(name)
        if since is None:
            continue
        if health.state == "down":
            end = health.since_ms + RECENT_TIMEOUTS * settings.node_timeout_ms
            if now_ms >= end:
                continue
            ends.append(end)
        counted += 1
        quiet = now_ms - since >= unreachable_ms
        silent += health.state == "down" or quiet
        if not quiet and (health.state != "ready" or now_ms - health.since_ms < settings.node_timeout_ms):
            returning = True
    return _Silence(silent_since, silent * 2 > counted, returning, min(ends, default=None))


def _decide_node(view: View, settings: Settings, now_ms: int, node: NodeDoc, silence: _Silence, found: _Findings) -> None:
    session = view.sessions.get(node.name, _NOBODY)
    health = view.health.get(node.name)
    since = silence.since[node.name]
    suspect_at, lost_at = since + unreachable_after_ms(settings), since + settings.node_timeout_ms
    heard = session.open and session.whole_status and now_ms < suspect_at
    if health is None or health.state != "ready":
        if heard:
            _set(
                found, now_ms, node.name, "ready", "", "is ready" if health is None else f"is ready again (was {health.state})"
            )
        elif health is not None and health.state == "unreachable":
            if now_ms < suspect_at:  # it talks and has not yet said all, or it is a new reign
                found.deadlines.append(suspect_at)
            else:
                _suspect(settings, now_ms, health, lost_at, silence, found)
        return
    if now_ms < suspect_at:
        found.deadlines.append(suspect_at)
        return
    said = HELD if silence.held else f"silent for {seconds(unreachable_after_ms(settings))}"
    _set(found, now_ms, node.name, "unreachable", said, f"is unreachable: {said}; it gets no new replicas")
    found.deadlines.append(max(lost_at, now_ms + 1))


def _suspect(
    settings: Settings, now_ms: int, health: NodeHealthDoc, lost_at: int, silence: _Silence, found: _Findings
) -> None:
    """An unreachable node that is still not heard."""
    if silence.held:
        if health.message != HELD:
            _say(found, now_ms, health, health.since_ms, HELD)
        return
    if health.message == HELD and silence.returning:
        _say(found, now_ms, health, now_ms, RETURNING)
        found.deadlines.append(now_ms + settings.node_timeout_ms)
        return
    if health.message == RETURNING:
        lost_at = max(lost_at, health.since_ms + settings.node_timeout_ms)
    if now_ms < lost_at:
        found.deadlines.append(lost_at)
        return
    said = f"silent for the node timeout of {seconds(settings.node_timeout_ms)}"
    _set(found, now_ms, health.name, "down", said, f"is down: {said}; its replicas move to other nodes")


def _say(found: _Findings, now_ms: int, health: NodeHealthDoc, since_ms: int, message: str) -> None:
    """It stays unreachable, for another reason."""
    found.health.append(NodeHealthDoc(health.name, "unreachable", since_ms, message))
    found.events.append(Event(now_ms, "node", f"node/{health.name}", f"{health.name} is {message}", health.name))


def _set(found: _Findings, now_ms: int, name: str, state: NodeState, message: str, says: str) -> None:
    found.health.append(NodeHealthDoc(name, state, now_ms, message))
    found.events.append(Event(now_ms, f"node-{state}", f"node/{name}", f"{name} {says}", name))


def seconds(ms: int) -> str:
    return f"{ms / 1000:g} s"
