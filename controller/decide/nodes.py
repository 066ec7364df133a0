"""Which nodes are ready, unreachable or down, from silence.

Rules:
- Silence is counted from the newest of: last message, start of this reign, the node's joining. Never from a store lease.
- ready -> unreachable after HALF the node timeout (nothing moves yet; it only gets no new replicas); -> down after the WHOLE
  timeout. So a lost node's replicas move one timeout after its last message.
- unreachable or down -> ready when its session is open and its whole status has arrived.
- A node that was never ready has no health document: there is nothing on it to lose.
- Losing most nodes at once moves nothing. Counted are the nodes that are ready or unreachable, and those that went down within
  the last three timeouts. While more than half of them are silent, no node goes down; it is the controller that is cut off,
  or the whole place has a problem that moving replicas would make worse. Ends when they are heard, or removed by an operator.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.decide.types import Plan, Session, Settings, View
from model.documents import Event, NodeDoc, NodeHealthDoc, NodeState

RECENT_TIMEOUTS = 3
HELD = "silent, but so are most nodes: nothing is moved until they are heard or removed"


@dataclass(slots=True)
class _Findings:
    health: list[NodeHealthDoc] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)


def decide_nodes(view: View, settings: Settings, now_ms: int) -> Plan:
    """The health documents that change. `wake_at_ms` is the next moment at which silence alone would change one."""
    found = _Findings()
    held, window_ends = _most_are_silent(view, settings, now_ms)
    for name in sorted(view.nodes):
        _decide_node(view, settings, now_ms, view.nodes[name], held, found)
    if held and window_ends is not None:
        found.deadlines.append(window_ends)
    wakes = [at for at in found.deadlines if at > now_ms]
    sentence = "; ".join(event.sentence for event in found.events[:5])
    return Plan(health=tuple(found.health), events=tuple(found.events), wake_at_ms=min(wakes, default=None), sentence=sentence)


def silent_since(view: View, node: NodeDoc) -> int:
    """Unix ms from which the node's silence counts."""
    session = view.sessions.get(node.name, Session())
    return max(session.last_heard_ms, view.reign_started_ms, node.joined_ms)


def unreachable_after_ms(settings: Settings) -> int:
    return settings.node_timeout_ms // 2


def _most_are_silent(view: View, settings: Settings, now_ms: int) -> tuple[bool, int | None]:
    """Whether more than half of the nodes that count are silent, and when the next lost one stops counting."""
    counted = silent = 0
    ends: list[int] = []
    for name, health in view.health.items():
        node = view.nodes.get(name)
        if node is None:
            continue
        if health.state == "down":
            end = health.since_ms + RECENT_TIMEOUTS * settings.node_timeout_ms
            if now_ms >= end:
                continue
            ends.append(end)
        counted += 1
        quiet = now_ms - silent_since(view, node) >= unreachable_after_ms(settings)
        silent += health.state == "down" or quiet
    return silent * 2 > counted, min(ends, default=None)


def _decide_node(view: View, settings: Settings, now_ms: int, node: NodeDoc, held: bool, found: _Findings) -> None:
    session = view.sessions.get(node.name, Session())
    health = view.health.get(node.name)
    since = silent_since(view, node)
    suspect_at, lost_at = since + unreachable_after_ms(settings), since + settings.node_timeout_ms
    heard = session.open and session.whole_status and now_ms < suspect_at
    if health is None or health.state != "ready":
        if heard:
            _set(
                found, now_ms, node.name, "ready", "", "is ready" if health is None else f"is ready again (was {health.state})"
            )
        elif health is not None and health.state == "unreachable":
            _suspect(settings, now_ms, health, lost_at, held, found)
        return
    if now_ms < suspect_at:
        found.deadlines.append(suspect_at)
        return
    silence = f"silent for {seconds(unreachable_after_ms(settings))}"
    _set(found, now_ms, node.name, "unreachable", silence, f"is unreachable: {silence}; it gets no new replicas")
    found.deadlines.append(max(lost_at, now_ms + 1))


def _suspect(settings: Settings, now_ms: int, health: NodeHealthDoc, lost_at: int, held: bool, found: _Findings) -> None:
    """An unreachable node that is still not heard."""
    if now_ms < lost_at:
        found.deadlines.append(lost_at)
        return
    if not held:
        silence = f"silent for the node timeout of {seconds(settings.node_timeout_ms)}"
        _set(found, now_ms, health.name, "down", silence, f"is down: {silence}; its replicas move to other nodes")
    elif health.message != HELD:
        found.health.append(NodeHealthDoc(health.name, "unreachable", health.since_ms, HELD))
        found.events.append(Event(now_ms, "node", f"node/{health.name}", f"{health.name} is {HELD}", health.name))


def _set(found: _Findings, now_ms: int, name: str, state: NodeState, message: str, says: str) -> None:
    found.health.append(NodeHealthDoc(name, state, now_ms, message))
    found.events.append(Event(now_ms, f"node-{state}", f"node/{name}", f"{name} {says}", name))


def seconds(ms: int) -> str:
    return f"{ms / 1000:g} s"
