"""What the core asks its shell to do, and what it is told: effects out, stimuli in.

Rules: frozen data. Every effect with a `replica` ends in exactly one outcome of the same `token`; an outcome whose
token is not the life's newest is ignored. Effects may be performed in any order except `Save`, `Drop` and `Report`, which the
shell takes at once and in order, before it starts the others: the journal knows of a container before it exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.plan.container import Exited
from agent.plan.network import NetworkWanted
from agent.plan.records import Desired, Failure, ImageFacts, Life, ReplicaId
from model.documents import ReplicaStatus
from model.spec import Healthcheck, Pairs

# Effects


@dataclass(frozen=True, slots=True)
class PullImage:
    """Once for all replicas of the service that wait for it: it may have credentials of its own. `digest`: what the name is to
    stand for; empty: what its registry says now. Outcome: Pulled or PullFailed."""

    reference: str
    policy: str
    digest: str = ""
    service_id: str = ""


@dataclass(frozen=True, slots=True)
class ApplyNetworks:
    """Outcome: NetworksApplied."""

    networks: tuple[NetworkWanted, ...]
    token: int


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    """Make the volumes of the replica, filled from the image on first use."""

    replica: ReplicaId
    token: int
    life: Life


@dataclass(frozen=True, slots=True)
class AttachNetwork:
    """Outcome: Done with `netns`, `addresses` and `ports`."""

    replica: ReplicaId
    token: int
    life: Life


@dataclass(frozen=True, slots=True)
class CreateContainer:
    replica: ReplicaId
    token: int
    life: Life


@dataclass(frozen=True, slots=True)
class StartContainer:
    replica: ReplicaId
    token: int
    container_id: str


@dataclass(frozen=True, slots=True)
class Rewire:
    """Attach the replica to what `life` is to be attached to now, while its container runs. Outcome: Rewired."""

    replica: ReplicaId
    token: int
    life: Life


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until nobody connects to these places any more and open connections have ended. Outcome: Drained."""

    replica: ReplicaId
    token: int
    container_id: str
    places: Pairs
    within_s: float


@dataclass(frozen=True, slots=True)
class DeleteContainer:
    replica: ReplicaId
    token: int
    container_id: str


@dataclass(frozen=True, slots=True)
class DetachNetwork:
    replica: ReplicaId
    token: int
    sandbox: str


@dataclass(frozen=True, slots=True)
class ReleaseReplica:
    """The replica is gone for good: its anonymous volumes and logs go too."""

    replica: ReplicaId
    token: int
    life: Life


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Has no outcome of its own: the exit comes as an observation."""

    container_id: str
    signal: str


@dataclass(frozen=True, slots=True)
class DeleteOrphan:
    """A container nobody wants and no journal knows. No outcome; the next comparison finds it again if it stays."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Run the health check. Outcome: Probed."""

    replica: ReplicaId
    container_id: str
    check: Healthcheck


@dataclass(frozen=True, slots=True)
class Look:
    """See which ports are open inside. Outcome: Looked."""

    replica: ReplicaId
    container_id: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write the replica's journal entry."""

    life: Life


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the replica's journal entry: nothing of it is left."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class Report:
    status: ReplicaStatus


@dataclass(frozen=True, slots=True)
class Gone:
    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class Say:
    """An event for people."""

    kind: str
    about: str
    sentence: str


ReplicaEffect = (
    PrepareVolumes
    | AttachNetwork
    | CreateContainer
    | StartContainer
    | Rewire
    | DeleteContainer
    | DetachNetwork
    | ReleaseReplica
)
Effect = (
    ReplicaEffect
    | PullImage
    | ApplyNetworks
    | Drain
    | KillContainer
    | DeleteOrphan
    | Probe
    | Look
    | Save
    | Drop
    | Report
    | Gone
    | Say
)

# Stimuli


@dataclass(frozen=True, slots=True)
class DesiredArrived:
    """`drain` False: whoever has to stop need not wait for its connections."""

    desired: Desired
    drain: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    replica: ReplicaId
    token: int
    netns: str = ""
    addresses: Pairs = ()
    ports: Pairs = ()


@dataclass(frozen=True, slots=True)
class Rewired:
    """How the replica is attached now; `failure`: not yet as wanted."""

    replica: ReplicaId
    token: int
    addresses: Pairs = ()
    ports: Pairs = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Drained:
    replica: ReplicaId
    token: int


@dataclass(frozen=True, slots=True)
class Failed:
    replica: ReplicaId
    token: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Pulled:
    pull: PullImage
    image: ImageFacts


@dataclass(frozen=True, slots=True)
class PullFailed:
    pull: PullImage
    failure: Failure


@dataclass(frozen=True, slots=True)
class LoginsChanged:
    """Registries may answer otherwise for these services (ids) now."""

    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworksApplied:
    """`failure` None: they are as wanted."""

    token: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ContainerExited:
    exited: Exited


@dataclass(frozen=True, slots=True)
class Probed:
    """Outcome of a health check; `output` is for people."""

    replica: ReplicaId
    container_id: str
    healthy: bool
    output: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """`listening`: TCP ports that are open inside for callers from outside."""

    replica: ReplicaId
    container_id: str
    listening: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class TimerDue:
    """Time has passed: the core looks at what is due."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Containers that should run but do not, as the comparison every 30 s found."""

    missing: tuple[str, ...]


Stimulus = (
    DesiredArrived
    | Done
    | Rewired
    | Drained
    | Failed
    | Pulled
    | PullFailed
    | LoginsChanged
    | NetworksApplied
    | ContainerExited
    | Probed
    | Looked
    | TimerDue
    | Compared
)
