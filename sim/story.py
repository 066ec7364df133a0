"""The story of one object: what happened to it and to the documents about it, in one list."""

from __future__ import annotations

from typing import Final

from sim.trace import Trace

TOLD_OF: Final = {
    "service": ("service", "services", "decisions", "svcplans"),
    "node": ("node", "nodes", "health", "assignments"),
    "network": ("network", "networks", "netplans"),
    "volume": ("volume", "volumes", "places"),
    "controller": ("controller",),
}


def story(trace: Trace, about: str) -> list[str]:
    """Lines of the trace about the object (`service/web`), oldest first; the leader's key belongs to every controller's."""
    kind, _, name = about.partition("/")
    keys = [f"{word}/{name}" for word in TOLD_OF.get(kind, (kind,))] + [name]
    if kind == "controller":
        keys += ["leader", "cluster"]
    lines = [line for key in keys for line in trace.story(key)]
    return sorted(lines, key=lambda line: float(line.partition(" ")[0]))
