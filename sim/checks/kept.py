"""What a machine keeps that belongs to no replica: containers, addresses and journal entries that nobody will take away.

Rules: asked when the faults have ended; what its agent is about to take away is found no more a little later.
"""

from __future__ import annotations

from sim.node import SimNode


def kept(node: SimNode) -> list[tuple[str, str]]:
    """(what, name), sorted."""
    if node.runner is None or not node.alive:
        return []
    core, machine = node.runner.core, node.machine
    lives = list(core.lives.values())
    sandboxes = {life.sandbox for life in lives}
    entries = {life.id for life in lives}
    found = [("container", order.name) for order in machine.runtime.orders() if core.by_container(order.id) is None]
    found += [("the address of", name[:12]) for name in machine.network.attached if name not in sandboxes]
    found += [("the journal entry of", life.name) for life in machine.journal.load() if life.id not in entries]
    return sorted(found)
