"""The documents in the store, each with its ONE writer, and the keys they stand under.

Rules: desired and observed are different documents. The number of documents grows with services and nodes, never with
replicas. A document is JSON (`model.codec`), so that `etcdctl get` shows it to a person. Times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from model.autoscale import NodeGroupSpec
from model.spec import Attachment, Counts, NetworkSpec, Pairs, Port, ServiceSpec, VolumeSpec

PREFIX = "/shoal/v1/"
INGRESS = "ingress"
"""The name under which published services are told to all nodes; no user network may bear it."""

Availability = Literal["active", "pause", "drain"]
NodeState = Literal["ready", "unreachable", "down"]


@dataclass(frozen=True, slots=True)
class StackDoc:
    """`stacks/NAME` [writer: api]. Full names of what the stack owns; `removing` while it is being taken down."""

    name: str
    services: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class ServiceDoc:
    """`services/NAME` [writer: api; `scale` also by scaling, in guarded transactions].

    `id` tells a service from a later one of the same name. `version` counts changes of `spec.container`.
    `force` counts requests to replace every replica. `stopped`: keep no replica running (shoal stop). `networks`: what the
    running containers are attached to instead of `spec.container.networks` (network connect and disconnect); None: not said.
    `kept_replicas`: what the file says since it gave autoscaling up: while it says the same, the count stays as it was then.
    `registry_auth`: sealed (controller/sealing.py), credentials for the image's registry; empty: none are known.
    """

    id: str
    spec: ServiceSpec
    scale: int
    version: int = 1
    stopped: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    networks: tuple[Attachment, ...] | None = None
    kept_replicas: int | None = None
    registry_auth: str = ""

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What its containers are attached to now."""
        return self.spec.container.networks if self.networks is None else self.networks


@dataclass(frozen=True, slots=True)
class ServicePlanDoc:
    """`svcplans/NAME` [writer: leader]. Addresses the service answers on: `vips` as (network, IPv4), and its ports of mode
    ingress with the published number that each got. `id` is the service's."""

    id: str
    name: str
    vips: Pairs = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkDoc:
    """`networks/NAME` [writer: api]."""

    id: str
    spec: NetworkSpec
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class NetworkPlanDoc:
    """`netplans/NAME` [writer: leader]. `slices`: (node, CIDR), sorted by node; one slice of the subnet per node.

    `prefix6`: the IPv6 /96 its IPv4 addresses are embedded in (`model.addresses`); empty: no IPv6. `fixed`: (address, node) of
    containers whose spec asks for an address outside their node's slice. `idle`: (node, Unix ms since when) of slices nobody
    is known to use, sorted by node; whoever uses one again takes it out in the same transaction.
    """

    id: str
    name: str
    vni: int
    subnet: str
    slices: Pairs = ()
    prefix6: str = ""
    fixed: Pairs = ()
    idle: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeDoc:
    """`volumes/NAME` [writer: api]."""

    id: str
    spec: VolumeSpec
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class VolumePlaceDoc:
    """`places/NAME` [writer: leader]. The node(s) that hold the volume; more than one only for global services."""

    name: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDoc:
    """`nodes/NAME` [writer: api (join, label, generic, drain); of machines of node groups also the leader, guarded: it labels
    those that have joined, drains those that leave, and removes them]. `name` is the identity; `id` tells a re-joined machine
    apart.

    `serial` is the hex serial of the node's certificate: any other certificate for this name is refused.
    """

    name: str
    id: str
    serial: str = ""
    role: Literal["worker", "manager"] = "worker"
    labels: Pairs = ()
    availability: Availability = "active"
    joined_ms: int = 0
    generic: Counts = ()


@dataclass(frozen=True, slots=True)
class NodeHealthDoc:
    """`health/NAME` [writer: leader]. `message` is the deciding sentence."""

    name: str
    state: NodeState
    since_ms: int = 0
    message: str = ""


_BEFORE_SLOTS: Final = 3
"""Numbers that stand before the slots of a run: how many, version, age."""


class Assigned(NamedTuple):
    """One replica on a node. (service_id, slot, created_ms) is the replica's identity; slot 0 for global services."""

    slot: int
    version: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class AssignedService:
    """All replicas of one service on one node. `numbers`: of each version and age how many slots there are, those two numbers
    and then the slots; slots grow, and so do ages. One flat tuple: a large cluster has half a million of them."""

    service_id: str
    name: str
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, service_id: str, name: str, replicas: Iterable[Assigned]) -> AssignedService:
        found: dict[tuple[int, int], list[int]] = {}
        for slot, version, created_ms in replicas:
            found.setdefault((created_ms, version), []).append(slot)
        numbers: list[int] = []
        for (created_ms, version), slots in sorted(found.items()):
            numbers += (len(slots), version, created_ms, *sorted(slots))
        return cls(service_id, name, tuple(numbers))

    @property
    def runs(self) -> tuple[tuple[int, ...], ...]:
        """Of each version and age those two numbers and then its slots. Made anew each time."""
        numbers = self.numbers
        if numbers and numbers[0] == len(numbers) - _BEFORE_SLOTS:
            return (numbers[1:],)
        found: list[tuple[int, ...]] = []
        at = 0
        while at < len(numbers):
            end = at + _BEFORE_SLOTS + numbers[at]
            found.append(numbers[at + 1 : end])
            at = end
        return tuple(found)

    @property
    def replicas(self) -> tuple[Assigned, ...]:
        """By slot and age. Made anew each time: whoever only counts asks for `count`."""
        runs = self.runs
        rows = [Assigned(slot, run[0], run[1]) for run in runs for slot in run[2:]]
        if len(runs) > 1:
            rows.sort(key=lambda row: (row.slot, row.created_ms))
        return tuple(rows)

    @property
    def count(self) -> int:
        return len(self.numbers) - _BEFORE_SLOTS * len(self.runs)

    @staticmethod
    def from_older(plain: dict[str, Any]) -> dict[str, Any]:
        """A document that names its replicas one by one, or its runs, as they stood in the store before."""
        if "numbers" in plain or not {"replicas", "runs"} & plain.keys():
            return plain
        try:
            replicas = [Assigned(row["slot"], row["version"], row["created_ms"]) for row in plain.get("replicas", ())]
            replicas += [Assigned(slot, row[0], row[1]) for row in plain.get("runs", ()) for slot in row[2:]]
        except (KeyError, TypeError, IndexError):
            return plain
        return {**plain, "numbers": AssignedService.of("", "", replicas).numbers}


@dataclass(frozen=True, slots=True)
class AssignmentDoc:
    """`assignments/NODE` [writer: leader]. What the node must run; `generation` grows by one with each change."""

    node: str
    generation: int = 0
    services: tuple[AssignedService, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the agent says of its machine. Memory in bytes; `address` is host:port of the agent's gRPC service."""

    address: str = ""
    underlay: str = ""
    hostname: str = ""
    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    os: str = "linux"
    arch: str = "x86_64"
    kernel: str = ""
    agent_version: str = ""
    cgroup: str = ""
    boot_id: str = ""
    routes: tuple[str, ...] = ()
    """IPv4 subnets the machine has routes to (CIDR, without the default route and shoal's own): no network may overlap them."""
    metrics: str = ""
    """host:port at which the agent tells its metrics; empty: nowhere that others reach."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What an agent last saw of one replica. `state` from model.states; `addresses`: (network name, address/prefix)."""

    service_id: str
    slot: int
    version: int
    created_ms: int
    state: str
    since_ms: int = 0
    container_id: str = ""
    restarts: int = 0
    exit_code: int | None = None
    message: str = ""
    addresses: Pairs = ()
    health: str = ""
    ports: Pairs = ()
    """Ports of mode host as (`80/tcp`, `0.0.0.0:32768`)."""


@dataclass(frozen=True, slots=True)
class StatusDoc:
    """`status/NODE` [writer: that node, through dispatch]. `generation`: the newest assignment document it had taken when it
    said something else too; nothing is decided by it."""

    node: str
    info: NodeInfo = NodeInfo()
    generation: int = 0
    reported_ms: int = 0
    replicas: tuple[ReplicaStatus, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaderDoc:
    """`leader` [writer: the leader, with a lease]. `epoch` grows with every change of leader.

    `id` is that of the controller's data directory: its next process may take over at once.
    """

    controller: str
    epoch: int
    api: str = ""
    dispatch: str = ""
    since_ms: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class ControllerDoc:
    """`controllers/ID` [writer: that controller, when it starts]. Where it can be reached; it need not be up."""

    id: str
    name: str
    api: str = ""
    dispatch: str = ""


@dataclass(frozen=True, slots=True)
class ClusterDoc:
    """`cluster` [writer: the leader, when it takes the lead]. Without a lease, so that `epoch` never falls back."""

    id: str
    epoch: int = 0
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClaimsDoc:
    """`claims` [writer: api]. Touched by every write that claims a port or a subnet, or puts somebody on a network or takes
    one away: such writes are guarded by its revision, so that of two at the same moment the second one looks again."""

    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was decided or seen. `sentence` says what and why. `about`: `service/shop_web`, `node/n1`..."""

    at_ms: int
    kind: str
    about: str
    sentence: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class EventChunkDoc:
    """`events/NNNN` [writer: leader]. A ring of chunks: `first` is the sequence number of the first event in it."""

    first: int
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class ScaleOrderDoc:
    """`scaleorders/SERVICE` [writer: api]. What a person says to the autoscaler meanwhile. `id` is the service's.

    `paused`: directions it may not take; `floor`: a manual `scale` holds at least so many until `floor_until_ms`.
    """

    id: str
    name: str
    paused: Literal["", "in", "out", "both"] = ""
    floor: int = 0
    floor_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class MetricReading:
    """What one metric said in one decision: total over all replicas, how many of them spoke, the count it wants."""

    metric: str
    value: float | None
    replicas: int
    wanted: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """One decision that changed something, with its inputs. `ready` and `starting`: replicas at that moment."""

    at_ms: int
    before: int
    wanted: int
    sentence: str
    readings: tuple[MetricReading, ...] = ()
    ready: int = 0
    starting: int = 0
    acted: bool = True


@dataclass(frozen=True, slots=True)
class ScaleDoc:
    """`scales/SERVICE` [writer: leader]. What the autoscaler knows from one decision to the next, also across leaders.

    `recommended`: (Unix ms, count), falling: each was wanted until then at the latest, the last one since then and still, so
    that a steady service writes nothing; none: nothing is known of the time before. `steps`: (Unix ms, count before), the
    changes of the last windows; `failing`: (metric, Unix ms since when); `quiet_since_ms`: below activation since (0: not);
    `history`: the newest decisions, newest last.
    """

    id: str
    name: str
    wanted: int = 0
    recommended: tuple[tuple[int, int], ...] = ()
    steps: tuple[tuple[int, int], ...] = ()
    failing: tuple[tuple[str, int], ...] = ()
    quiet_since_ms: int = 0
    last: ScaleDecision | None = None
    history: tuple[ScaleDecision, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeGroupDoc:
    """`nodegroups/NAME` [writer: api]. `removing`: its machines go, then it; `forget`: it goes at once, and nobody
    looks after them."""

    id: str
    spec: NodeGroupSpec
    removing: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a group. `id` is the provider's (empty while it is not known), `node` the name it joins under.

    `failed`: the provider could not, `message` says why; it is deleted, and the group waits until `back_off_until_ms`.
    """

    node: str
    state: Literal["creating", "joining", "ready", "draining", "deleting", "failed"]
    since_ms: int
    id: str = ""
    idle_since_ms: int = 0
    message: str = ""
    made: bool = False
    """Its provider has said that it is there."""


@dataclass(frozen=True, slots=True)
class MachinesDoc:
    """`machines/GROUP` [writer: leader]. What became of the group. `id` is the group's; `history`: what was decided and
    why, newest last."""

    id: str
    group: str
    machines: tuple[Machine, ...] = ()
    added_ms: int = 0
    removed_ms: int = 0
    back_off_until_ms: int = 0
    failures: int = 0
    number: int = 0
    """Of the newest machine: names are never used twice."""
    history: tuple[Event, ...] = ()
    seen: tuple[float, float] = (1.0, 1.0)
    """The shares of the template's cpus and memory that the newest machine to join really had."""
    problems: tuple[str, ...] = ()
    """What is wrong with the provider itself: its list, its programs."""


@dataclass(frozen=True, slots=True)
class DecisionDoc:
    """`decisions/SERVICE` [writer: leader]. The newest sentences about a service, why slots have no node (slot, reason), and
    `notes`: what else does not go on (a paused update, a replica that cannot leave its drained node)."""

    name: str
    sentences: tuple[Event, ...] = ()
    waiting: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenDoc:
    """`tokens/ID` [writer: api; the leader for machines of node groups]. Only the secret's SHA-256 is stored."""

    id: str
    secret_sha256: str
    role: Literal["worker", "manager"] = "worker"
    expires_ms: int = 0


def key(kind: str, name: str = "") -> str:
    """The store key of a document: `key("services", "shop_web")`; without a name the prefix or single document."""
    return f"{PREFIX}{kind}/{name}" if name else f"{PREFIX}{kind}"


def prefix(kind: str) -> str:
    return f"{PREFIX}{kind}/"
