"""The shapes of the agent's core: what the node must run, and the life of one replica on it.

Rules: frozen data, no behaviour but small look-ups. Times are Unix seconds (floats) unless the name ends in `_ms`.
`desired` and `observed` are different records; a `Life` has one writer, the core.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

from agent.plan.container import Exited
from agent.plan.network import NetworkWanted
from model import states
from model.autoscale import MetricsPort
from model.spec import Attachment, Healthcheck, Pairs, ServiceSpec

Goal = Literal["run", "stop", "remove"]
Stage = Literal["none", "volumes", "network", "created", "running", "exited"]
"""How far the present container is: nothing yet, volumes prepared, network attached, created, running, ended."""

Busy = Literal["", "volumes", "network", "create", "start", "rewire", "delete", "detach", "release"]


@dataclass(frozen=True, slots=True, order=True)
class ReplicaId:
    """One replica in one version. Another `created_ms` or version on the same slot is another life."""

    service_id: str
    slot: int
    created_ms: int
    version: int

    @property
    def place(self) -> tuple[str, int]:
        """The slot: at most one life of it runs at a time."""
        return (self.service_id, self.slot)

    @property
    def text(self) -> str:
        """A file name that is unique on the node."""
        return f"{quote(self.service_id, safe='')}.{self.slot}.{self.created_ms}.{self.version}"


@dataclass(frozen=True, slots=True)
class Slot:
    slot: int
    version: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class WantedService:
    """All replicas of one service on this node. `stopped`: keep them, without a running container. `networks`: what they are
    attached to instead of what their spec says (network connect and disconnect); None: as the spec says. `scraped`: names of
    the metrics that are asked of each at `metrics`: a policy changes without a new spec."""

    id: str
    name: str
    slots: tuple[Slot, ...] = ()
    stopped: bool = False
    networks: tuple[Attachment, ...] | None = None
    scraped: tuple[str, ...] = ()
    metrics: MetricsPort | None = None


@dataclass(frozen=True, slots=True)
class WantedSpec:
    service_id: str
    version: int
    spec: ServiceSpec


@dataclass(frozen=True, slots=True)
class WantedVolume:
    name: str
    driver: str = "local"
    options: Pairs = ()
    labels: Pairs = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything this node must run, at one generation."""

    generation: int = 0
    services: tuple[WantedService, ...] = ()
    specs: tuple[WantedSpec, ...] = ()
    networks: tuple[NetworkWanted, ...] = ()
    volumes: tuple[WantedVolume, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the core needs to know of a pulled image."""

    id: str
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an effect failed: one line. `permanent`: it cannot succeed as the service is written."""

    message: str
    permanent: bool = False
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Attempts:
    """The history the restart policy looks at. `failures`: starts in a row that did not last."""

    failures: int = 0
    restarts: int = 0
    at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """Whether it may be called: `status` is empty without a check, else starting, healthy or unhealthy; with or without one
    `starting` until it listens, and `stopping` once it has its signal: nobody is to be sent to it, wanted again or not."""

    status: str = ""
    streak: int = 0
    next_at: float = 0.0
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """How far a stop is that lets connections end first. `token`: number of the effect, 0: not begun, -1: not wanted. `until`:
    when it is over at the latest."""

    token: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Wiring:
    """Changes of networks while the replica is attached. `begun`: one was begun and has not succeeded yet."""

    begun: bool = False
    failures: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Life:
    """One replica: what is wanted of it, how far its present container is, and what became of the last one.

    `container_id` is set before the container is made and empty once nothing of it is left; `attached` and `volumes` in
    the same way: they say what may exist and must be cleaned. `ended`: not to be started again. `dirty`: a start failed
    and is being cleaned up. `ran`: a process of it has run before. `busy` is the effect in flight, `token` its number.
    `early_exit` came before its start's outcome. `networks` holds instead of the spec's own, if it is said. `ports` are those
    published on this node, as (`80/tcp`, `0.0.0.0:32768`); they stay known when taken back: the same are asked for again.
    """

    id: ReplicaId
    spec: ServiceSpec
    name: str
    goal: Goal = "run"
    stage: Stage = "none"
    state: str = states.PREPARING
    since: float = 0.0
    message: str = ""
    image: ImageFacts | None = None
    volumes: bool = False
    attached: bool = False
    netns: str = ""
    addresses: Pairs = ()
    container_id: str = ""
    sequence: int = 0
    ran: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    oom: bool = False
    ended: bool = False
    dirty: bool = False
    attempts: Attempts = Attempts()
    not_before: float = 0.0
    cleanup_failures: int = 0
    cleanup_at: float = 0.0
    stopping: bool = False
    kill_at: float = 0.0
    health: Health = Health()
    busy: Busy = ""
    token: int = 0
    early_exit: Exited | None = None
    networks: tuple[Attachment, ...] | None = None
    ports: Pairs = ()
    drain: Drain = Drain()
    wiring: Wiring = Wiring()

    @property
    def sandbox(self) -> str:
        """The id its network namespace goes by: the same over all its containers."""
        return sandbox_id(self.id)

    def may_run(self) -> bool:
        """A process of it runs, or may run in a moment."""
        return bool(self.container_id) and self.stage != "exited"


def sandbox_id(replica: ReplicaId) -> str:
    """64 hex digits that stand for the replica as long as it is on this node."""
    return sandbox_of(replica.text)


def sandbox_of(text: str) -> str:
    """The same from the text of a replica's id."""
    return sha256(f"sandbox {text}".encode()).hexdigest()
