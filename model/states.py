"""The states of a replica and of a node: one table, with the ONE owner of every transition.

Rules: within one container states only grow (`RANK`); a restart is a new container of the same replica and begins again at
`preparing`. What a person sees keeps Docker's words. docs/states.md is drawn from this table.
"""

from __future__ import annotations

from typing import Final, Literal

Owner = Literal["leader", "agent"]

PENDING: Final = "pending"  # no node found yet; the reason stands in the decision
ASSIGNED: Final = "assigned"  # a node was chosen, its agent has not said anything yet
PREPARING: Final = "preparing"  # image, volumes, network and bundle are being made
STARTING: Final = "starting"  # created, being started
RUNNING: Final = "running"
COMPLETE: Final = "complete"  # ended with exit code 0 and is not to be started again
FAILED: Final = "failed"  # ended with another code, or could not start; may be waiting for its next start
REJECTED: Final = "rejected"  # can never start as it is written (bad command, image missing, bad mount)
SHUTDOWN: Final = "shutdown"  # stopped because it is no longer wanted
LOST: Final = "lost"  # its node is down; what became of it is not known

ORDER: Final[tuple[str, ...]] = (
    PENDING, ASSIGNED, PREPARING, STARTING, RUNNING, COMPLETE, FAILED, REJECTED, SHUTDOWN, LOST,
)  # fmt: skip
RANK: Final[dict[str, int]] = {state: rank for rank, state in enumerate(ORDER)}
ENDED: Final[frozenset[str]] = frozenset({COMPLETE, FAILED, REJECTED, SHUTDOWN, LOST})

TRANSITIONS: Final[tuple[tuple[str, str, Owner, str], ...]] = (
    (PENDING, ASSIGNED, "leader", "the scheduler found a node"),
    (ASSIGNED, PREPARING, "agent", "the agent took the assignment"),
    (PREPARING, STARTING, "agent", "the container is created"),
    (PREPARING, FAILED, "agent", "preparing failed for now (registry away, disk full); tried again with back-off"),
    (PREPARING, REJECTED, "agent", "it can never start as written"),
    (STARTING, RUNNING, "agent", "the process runs"),
    (STARTING, FAILED, "agent", "the start failed or the process ended at once"),
    (STARTING, REJECTED, "agent", "the command cannot be executed"),
    (RUNNING, COMPLETE, "agent", "exit code 0 and the restart policy asks for no more"),
    (RUNNING, FAILED, "agent", "another exit code, or killed"),
    (RUNNING, SHUTDOWN, "agent", "no longer assigned: stopped"),
    (STARTING, SHUTDOWN, "agent", "no longer assigned: stopped"),
    (PREPARING, SHUTDOWN, "agent", "no longer assigned: given up"),
    (FAILED, PREPARING, "agent", "restart: a new container of the same replica"),
    (COMPLETE, PREPARING, "agent", "restart policy `any`: a new container of the same replica"),
    (REJECTED, PREPARING, "agent", "tried again with long back-off: the image may have come"),
    (SHUTDOWN, PREPARING, "agent", "the stopped service was started again"),
    (FAILED, SHUTDOWN, "agent", "no longer assigned"),
    (COMPLETE, SHUTDOWN, "agent", "no longer assigned"),
    (REJECTED, SHUTDOWN, "agent", "no longer assigned"),
    (ASSIGNED, LOST, "leader", "the node is down"),
    (PREPARING, LOST, "leader", "the node is down"),
    (STARTING, LOST, "leader", "the node is down"),
    (RUNNING, LOST, "leader", "the node is down"),
    (LOST, RUNNING, "agent", "the node came back and the container had never stopped"),
    (LOST, FAILED, "agent", "the node came back without the container"),
    (LOST, SHUTDOWN, "agent", "the node came back and the replica was trimmed as surplus"),
)

NODE_TRANSITIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("unreachable", "ready", "its session is open and its whole status has arrived"),
    ("ready", "unreachable", "no heartbeat for the node timeout"),
    ("unreachable", "down", "still silent, and at most half of the nodes are silent: its replicas move"),
    ("down", "ready", "its session is open again and its whole status has arrived"),
)


def allowed(before: str, after: str, owner: Owner) -> bool:
    """Whether `owner` may move a replica from `before` to `after`."""
    return any(row[:3] == (before, after, owner) for row in TRANSITIONS)
