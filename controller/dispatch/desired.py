"""What a node must run, as records, and the message that brings a session from what was sent to what is wanted. Pure.

Rules: level-triggered: a message is the difference between two whole records, so any number of changes in between cost one.
A spec travels only when the session does not know (service id, version). What many nodes are told alike is encoded once for
all: the peers of a network, and of a service everything but its slots (encoded.py).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controller.dispatch.encoded import desired_message, service_field, slot_fields
from controller.loops.picture import Snapshot
from controller.sealing import NoSeals, Seals
from model import codec
from model.autoscale import MetricsPort
from model.documents import AssignedService, AssignmentDoc, NetworkPlanDoc, ServiceDoc
from model.spec import Attachment, ServiceSpec
from protos import node_pb2 as pb

SPECS_MAX: Final = 20_000
REMOVED_MAX: Final = 1_000
SpecKey = tuple[str, int]
PeerRow = tuple[str, str, str, tuple[str, ...]]
"""node, underlay address, slice, fixed addresses outside the slice"""


class SpecBook:
    """Of every (service id, version) seen the `specs` field of its Service message, encoded once. Older versions stay while
    there is room (rollouts)."""

    def __init__(self, rows_max: int = SPECS_MAX) -> None:
        self._rows: dict[SpecKey, bytes] = {}
        self._rows_max = rows_max

    def add(self, document: ServiceDoc) -> None:
        row = (document.id, document.version)
        self._rows.pop(row, None)
        spec = pb.Spec(version=document.version, json=codec.encode(document.spec))
        self._rows[row] = pb.Service(specs=[spec]).SerializeToString()
        while len(self._rows) > self._rows_max:
            del self._rows[next(iter(self._rows))]

    def get(self, row: SpecKey) -> bytes | None:
        return self._rows.get(row)


class _Peers(NamedTuple):
    """`encoded`: all rows; `own`: where each node's stands in it."""

    plan: NetworkPlanDoc
    rows: tuple[PeerRow, ...]
    encoded: bytes
    own: dict[str, tuple[int, int]]
    fixed: dict[str, tuple[str, ...]]


class PeerBook:
    """The participants of each network whose underlay address is known, and their encoding."""

    def __init__(self) -> None:
        self._rows: dict[str, _Peers] = {}
        self._underlays: dict[str, str] = {}

    def set_underlay(self, node: str, underlay: str) -> bool:
        """True when it is new: every network of the node has changed."""
        if self._underlays.get(node, "") == underlay:
            return False
        self._underlays[node] = underlay
        for name in [name for name, row in self._rows.items() if node in dict(row.plan.slices)]:
            del self._rows[name]
        return True

    def forget(self, network: str) -> None:
        """Its plan is gone."""
        self._rows.pop(network, None)

    def peers(self, plan: NetworkPlanDoc) -> tuple[PeerRow, ...]:
        return self._row(plan).rows

    def fixed(self, plan: NetworkPlanDoc, node: str) -> tuple[str, ...]:
        """The node's own addresses outside its slice."""
        return self._row(plan).fixed.get(node, ())

    def encoded_without(self, plan: NetworkPlanDoc, node: str) -> bytes:
        """The peers field of a Network message for `node`."""
        row = self._row(plan)
        start, end = row.own.get(node, (0, 0))
        return row.encoded[:start] + row.encoded[end:]

    def _row(self, plan: NetworkPlanDoc) -> _Peers:
        row = self._rows.get(plan.name)
        if row is None or row.plan is not plan:
            known = self._underlays
            fixed = fixed_addresses(plan)
            peers = tuple((node, known[node], cidr, fixed.get(node, ())) for node, cidr in plan.slices if known.get(node))
            row = self._rows[plan.name] = _Peers(plan, peers, *_joined(peers), fixed)
        return row


def fixed_addresses(plan: NetworkPlanDoc) -> dict[str, tuple[str, ...]]:
    """By node."""
    found: dict[str, tuple[str, ...]] = {}
    for address, node in plan.fixed:
        found[node] = (*found.get(node, ()), address)
    return found


def _joined(peers: Iterable[PeerRow]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    parts, own, at = [], {}, 0
    for peer in peers:
        data = _encoded(peer)
        own[peer[0]] = (at, at + len(data))
        at += len(data)
        parts.append(data)
    return b"".join(parts), own


def _encoded(peer: PeerRow) -> bytes:
    node, underlay, cidr, addresses = peer
    return pb.Network(peers=[pb.Peer(node=node, underlay=underlay, slice=cidr, addresses=addresses)]).SerializeToString()


class Way(NamedTuple):
    """How a service's replicas run, the same on all nodes. `networks` None: those of the spec. `scraped`: names of the metrics
    that its policy wants of them, to be had at `metrics`. `registry_auth`: sealed."""

    stopped: bool = False
    volumes: tuple[str, ...] = ()
    networks: tuple[Attachment, ...] | None = None
    scraped: tuple[str, ...] = ()
    metrics: MetricsPort | None = None
    registry_auth: str = ""


_PLAIN: Final = Way()


class WayBook:
    """Each service's way, the same object for as long as its document is the same. A removed service keeps its last one while
    there is room: nodes still have its replicas for a moment, and what is stopped must not start in it."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[ServiceDoc, Way]] = {}
        self._removed: dict[str, Way] = {}
        self._last: tuple[Way, ...] = ()

    def of(self, entry: AssignedService, document: ServiceDoc | None) -> Way:
        if document is None or document.id != entry.service_id:
            return self._last_of(entry.service_id)
        row = self._rows.get(entry.service_id)
        if row is None or row[0] is not document:
            row = self._rows[entry.service_id] = (document, _way(document))
        return row[1]

    def _last_of(self, service_id: str) -> Way:
        """Of a service without a document; the picture may know that it is removed before `removed` says so."""
        row = self._rows.get(service_id)
        return row[1] if row is not None else self._removed.get(service_id, _PLAIN)

    def same(self, ways: tuple[Way, ...]) -> tuple[Way, ...]:
        """An equal object: that of the last node when it has the same."""
        if ways != self._last:
            self._last = ways
        return self._last

    def removed(self, document: ServiceDoc) -> None:
        """`document` was the service's last one."""
        self._rows.pop(document.id, None)
        self._removed[document.id] = _way(document)
        while len(self._removed) > REMOVED_MAX:
            del self._removed[next(iter(self._removed))]


def _way(document: ServiceDoc) -> Way:
    volumes = {mount.source for mount in document.spec.container.mounts if mount.type == "volume" and mount.source}
    scraped, metrics = _scraped(document.spec)
    return Way(document.stopped, tuple(sorted(volumes)), document.networks, scraped, metrics, document.registry_auth)


def _scraped(spec: ServiceSpec) -> tuple[tuple[str, ...], MetricsPort | None]:
    if spec.metrics is None or spec.autoscale is None:
        return (), None
    names = tuple(dict.fromkeys(metric.query for metric in spec.autoscale.metrics if metric.kind == "scrape"))
    return (names, spec.metrics) if names else ((), None)


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    plan: NetworkPlanDoc = field(compare=False)
    identity: tuple[str, int, str, str]
    """id, VNI, subnet, IPv6 prefix"""
    slice: str
    internal: bool
    peers: tuple[PeerRow, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """`services` as the assignment document has them, with the way of each: there are a hundred on each of many thousand nodes.
    Networks by name."""

    generation: int = 0
    services: tuple[AssignedService, ...] = ()
    ways: tuple[Way, ...] = ()
    networks: Mapping[str, WantedNetwork] = field(default_factory=dict)


def networks_of_nodes(plans: Iterable[NetworkPlanDoc]) -> dict[str, dict[str, str]]:
    """node -> network -> slice."""
    found: dict[str, dict[str, str]] = {}
    for plan in plans:
        for node, cidr in plan.slices:
            found.setdefault(node, {})[plan.name] = cidr
    return found


def wanted(
    snapshot: Snapshot, node: str, slices: Mapping[str, str], peers: PeerBook, ways: WayBook | None = None
) -> Wanted:  # fmt: skip
    """`slices`: of this node, by network name. `ways`: of whoever asks for many nodes."""
    assignment: AssignmentDoc | None = snapshot.of("assignments").get(node)
    if assignment is None:
        return Wanted(networks=_networks(snapshot, node, slices, peers))
    document, way = snapshot.of("services").get, (ways or WayBook()).of
    each = tuple([way(row, document(row.name)) for row in assignment.services])
    each = ways.same(each) if ways else each
    return Wanted(assignment.generation, assignment.services, each, _networks(snapshot, node, slices, peers))


def _networks(snapshot: Snapshot, node: str, slices: Mapping[str, str], peers: PeerBook) -> dict[str, WantedNetwork]:
    found: dict[str, WantedNetwork] = {}
    for name in sorted(slices):
        plan = snapshot.of("netplans").get(name)
        if plan is None:
            continue
        document = snapshot.of("networks").get(name)
        internal = document is not None and document.spec.internal
        identity = (plan.id, plan.vni, plan.subnet, plan.prefix6)
        found[name] = WantedNetwork(plan, identity, slices[name], internal, peers.peers(plan), peers.fixed(plan, node))
    return found


class Composer:
    """Makes the messages of all sessions out of the shared books. `seals` opens what stands sealed in the store."""

    def __init__(self, specs: SpecBook, peers: PeerBook, seals: Callable[[], Seals] = NoSeals) -> None:
        self._specs = specs
        self._peers = peers
        self._seals = seals
        self._heads: dict[str, tuple[Way, bytes]] = {}
        """By service id what does not depend on the node."""

    def message(
        self,
        node: str,
        sent: Wanted | None,
        want: Wanted,
        known: set[SpecKey],
        snapshot: Snapshot,
        held: Container[SpecKey] = (),
    ) -> pb.Desired | None:
        """As `encoded`, to look at."""
        data = self.encoded(node, sent, want, known, snapshot, held)
        return None if data is None else pb.ToNode.FromString(data).desired

    def encoded(
        self,
        node: str,
        sent: Wanted | None,
        want: Wanted,
        known: set[SpecKey],
        snapshot: Snapshot,
        held: Container[SpecKey] = (),
    ) -> bytes | None:
        """From `sent` (None: nothing yet, so the whole) to `want`, a ToNode; None when there is no difference. Adds to `known`.

        `held`: what the node said it has when the session began.
        """
        before = sent or Wanted()
        services, gone = _changed(before, want)
        networks = [name for name, row in want.networks.items() if before.networks.get(name) != row]
        gone_networks = [name for name in before.networks if name not in want.networks]
        if sent is not None and not (services or networks or gone or gone_networks) and sent.generation == want.generation:
            return None
        volumes = sorted({name for _, way in services for name in way.volumes})
        message = pb.Desired(
            generation=want.generation,
            whole=sent is None,
            base_generation=before.generation,
            removed_services=gone,
            networks=[self._network(node, want.networks[name]) for name in networks],
            removed_networks=gone_networks,
            volumes=[_volume(name, snapshot) for name in volumes],
        )
        parts = [self._service(row, way, known, held) for row, way in services]
        return desired_message([message.SerializeToString(), *parts])

    def _service(self, row: AssignedService, way: Way, known: set[SpecKey], held: Container[SpecKey]) -> bytes:
        """A slot of an older version whose spec neither we (this leader began after it was replaced) nor the node have is left
        out: nothing can run there, the node would refuse the whole message for it, and the rollout replaces it at once."""
        parts = [self._head(row, way), self._registry_auth(row, way)]
        for run in row.runs:
            spec_key = (row.service_id, run[0])
            if spec_key not in known:
                data = self._specs.get(spec_key)
                if data is not None:
                    known.add(spec_key)
                    parts.append(data)
                elif spec_key not in held:
                    continue
            parts += slot_fields(run)
        return service_field(parts)

    def _registry_auth(self, row: AssignedService, way: Way) -> bytes:
        """Opened for each message: a password is not kept in memory."""
        login = self._seals().open(row.service_id, way.registry_auth) if way.registry_auth else None
        if login is None:
            return b""
        auth = pb.RegistryAuth(username=login.username, password=login.password)
        return pb.Service(registry_auth=auth).SerializeToString()

    def _head(self, row: AssignedService, way: Way) -> bytes:
        head = self._heads.get(row.service_id)
        if head is None or head[0] is not way:
            if len(self._heads) >= SPECS_MAX:
                self._heads.clear()
            message = pb.Service(
                service_id=row.service_id, name=row.name, stopped=way.stopped, rewired=way.networks is not None,
                networks=[_attachment(item) for item in way.networks or ()],
            )  # fmt: skip
            if way.metrics is not None:
                message.scrape.CopyFrom(pb.Scrape(port=way.metrics.port, path=way.metrics.path, names=way.scraped))
            head = self._heads[row.service_id] = (way, message.SerializeToString())
        return head[1]

    def _network(self, node: str, row: WantedNetwork) -> pb.Network:
        _, vni, subnet, prefix6 = row.identity
        message = pb.Network(
            name=row.plan.name, vni=vni, subnet=subnet, slice=row.slice, internal=row.internal, prefix6=prefix6,
            addresses=row.addresses,
        )  # fmt: skip
        message.MergeFromString(self._peers.encoded_without(row.plan, node))
        return message


def _changed(before: Wanted, want: Wanted) -> tuple[list[tuple[AssignedService, Way]], list[str]]:
    """What is new or another one, with its way, and the ids of what is gone."""
    known = {row.service_id: (row, way) for row, way in zip(before.services, before.ways, strict=True)}
    pairs = zip(want.services, want.ways, strict=True)
    services = [pair for pair in pairs if known.pop(pair[0].service_id, None) != pair]
    return services, list(known)


def _attachment(item: Attachment) -> pb.Attachment:
    return pb.Attachment(network=item.network, aliases=item.aliases, ipv4_address=item.ipv4_address)


def _volume(name: str, snapshot: Snapshot) -> pb.Volume:
    document = snapshot.of("volumes").get(name)
    if document is None:
        return pb.Volume(name=name, driver="local")
    spec = document.spec
    return pb.Volume(name=name, driver=spec.driver, options=dict(spec.options), labels=dict(spec.labels))
