"""Facts in, plan out: the shapes every decision shares.

Rules: a decision reads `View` and `now_ms`, returns a `Plan`, and does nothing else. Run twice on the same facts the second
plan is empty. Documents in a plan are whole; the shell turns them into one guarded transaction (guards: the revisions the
view was built from, and the leader's key).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from controller.decide.index import Index
from controller.decide.scaling.types import Series
from model.documents import (
    AssignmentDoc,
    ControllerDoc,
    DecisionDoc,
    Event,
    MachinesDoc,
    NetworkDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeGroupDoc,
    NodeHealthDoc,
    ScaleDoc,
    ScaleOrderDoc,
    ServiceDoc,
    ServicePlanDoc,
    StackDoc,
    StatusDoc,
    VolumeDoc,
    VolumePlaceDoc,
)


class Session(NamedTuple):
    """What dispatch knows of a node's session, in memory of the leader only. Times in Unix ms; 0: never in this reign.
    `generation`: the newest assignment document that the agent has taken. `since_ms`: when an open one began."""

    open: bool = False
    last_heard_ms: int = 0
    whole_status: bool = False
    generation: int = 0
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of an autoscaled service's load, in memory of the leader only. `series` by `ScalingMetric.name`; `waiting`:
    callers that are held while it sleeps."""

    series: Mapping[str, Series] = field(default_factory=dict)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """An immutable picture of the cluster. Mappings are never changed after the view is made; keys are names."""

    services: Mapping[str, ServiceDoc] = field(default_factory=dict)
    nodes: Mapping[str, NodeDoc] = field(default_factory=dict)
    health: Mapping[str, NodeHealthDoc] = field(default_factory=dict)
    statuses: Mapping[str, StatusDoc] = field(default_factory=dict)
    assignments: Mapping[str, AssignmentDoc] = field(default_factory=dict)
    networks: Mapping[str, NetworkDoc] = field(default_factory=dict)
    netplans: Mapping[str, NetworkPlanDoc] = field(default_factory=dict)
    svcplans: Mapping[str, ServicePlanDoc] = field(default_factory=dict)
    volumes: Mapping[str, VolumeDoc] = field(default_factory=dict)
    places: Mapping[str, VolumePlaceDoc] = field(default_factory=dict)
    decisions: Mapping[str, DecisionDoc] = field(default_factory=dict)
    sessions: Mapping[str, Session] = field(default_factory=dict)
    reign_started_ms: int = 0
    """When this leader began to lead: silence is counted from here at the earliest."""
    listened_ms: int | None = None
    """What nodes had said by then was heard: silence is counted to here at the latest. None: what they say is heard at once."""
    stacks: Mapping[str, StackDoc] = field(default_factory=dict)
    controllers: Mapping[str, ControllerDoc] = field(default_factory=dict)
    scales: Mapping[str, ScaleDoc] = field(default_factory=dict)
    scale_orders: Mapping[str, ScaleOrderDoc] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """Of the services that a pass of the autoscaler is about."""
    busy: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Open connections by service and slot, of services that were scaled in a moment ago."""
    groups: Mapping[str, NodeGroupDoc] = field(default_factory=dict)
    machines: Mapping[str, MachinesDoc] = field(default_factory=dict)
    index: Index | None = field(default=None, compare=False, repr=False)
    """A cache the shell keeps for its whole reign and puts into every view it makes (one `Index()` per thread): with it a
    pass costs what changed, without it the pass reads all assignments. Answers do not depend on it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Cluster-wide settings of the decisions. Times in ms."""

    node_timeout_ms: int = 10_000
    pool: str = "10.0.0.0/8"
    network_prefix: int = 16
    slice_prefix: int = 24
    slice_idle_ms: int = 600_000
    """So long nobody has used a node's slice of a network before it is given back."""
    strategy: Literal["spread", "pack"] = "spread"
    scale_every_ms: int = 5_000
    """How often the autoscaler looks at a service."""
    avoid: tuple[str, ...] = ()
    """Subnets never handed out: those this machine has routes to. The nodes' own are in their status (NodeInfo.routes)."""


@dataclass(frozen=True, slots=True)
class Preempted:
    """A replica (its name, service and slot) that is stopped on `node` to make room for the replica `by`; `why`: what the node
    lacked for that."""

    replica: str
    service: str
    slot: int
    node: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a decision wants written, said, and when it wants to be asked again (`wake_at_ms` None: only on a change)."""

    assignments: tuple[AssignmentDoc, ...] = ()
    netplans: tuple[NetworkPlanDoc, ...] = ()
    svcplans: tuple[ServicePlanDoc, ...] = ()
    places: tuple[VolumePlaceDoc, ...] = ()
    health: tuple[NodeHealthDoc, ...] = ()
    decisions: tuple[DecisionDoc, ...] = ()
    scales: tuple[tuple[ScaleDoc, ServiceDoc], ...] = ()
    """With the service each was decided for: written when its scale is another one, and in any case as it was."""
    machines: tuple[MachinesDoc, ...] = ()
    nodes: tuple[NodeDoc, ...] = ()
    deletes: tuple[str, ...] = ()
    """Store keys to delete (documents of nodes, networks, volumes, services that are gone)."""
    events: tuple[Event, ...] = ()
    wake_at_ms: int | None = None
    wakes: tuple[tuple[str, int], ...] = ()
    """(service, Unix ms): which services want to be decided again, and when; the earliest is `wake_at_ms`."""
    sentence: str = ""
    preempted: tuple[Preempted, ...] = ()
    """What is said in `events` and done in `assignments`, once more as a list."""

    def empty(self) -> bool:
        """Nothing to write."""
        return not (
            self.assignments or self.netplans or self.svcplans or self.places or self.health or self.decisions or self.scales
            or self.machines or self.nodes or self.deletes or self.events
        )
