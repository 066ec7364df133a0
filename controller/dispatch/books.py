"""What all sessions share: specs, peers, endpoints, guarded addresses, and which networks each node takes part in; says whom a
change concerns.

Rules: kept up by changes, rebuilt from the whole picture when a reign begins. Node names are handed out in the order of the
changes, never from a set. What many sessions are told alike is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from controller.dispatch.desired import Composer, PeerBook, SpecBook, SpecKey, WayBook, networks_of_nodes, wanted
from controller.dispatch.endpoints import EndpointBook
from controller.dispatch.guarded import GuardBook
from controller.dispatch.session import NodeSession
from controller.loops.picture import Change, Picture, Snapshot
from controller.sealing import NoSeals, Seals
from model.documents import INGRESS, NetworkPlanDoc
from protos import node_pb2 as pb

KNOWN_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class News:
    """Whom some changes concern. `nodes`: their wanted state may differ; `told`: their endpoints differ (of `everybody` when
    they are those of `ingress`), which until then followed `before`. `lost`: nodes that lost endpoints, at which number."""

    nodes: Sequence[str]
    told: Sequence[str]
    everybody: bool
    before: int
    lost: dict[str, int] = field(default_factory=dict)
    guarded: bool = False


class Books:
    """`guarded`: addresses that no document names."""

    def __init__(self, picture: Picture, guarded: Iterable[str] = ()) -> None:
        self._picture = picture
        self._specs = SpecBook()
        self._peers = PeerBook()
        self._ways = WayBook()
        self.seals: Seals = NoSeals()
        """Opens the credentials that services have in the store."""
        self._composer = Composer(self._specs, self._peers, lambda: self.seals)
        self._slices: dict[str, dict[str, str]] = {}
        self._endpoints = EndpointBook()
        self._guarded = GuardBook(guarded)
        self._known: dict[frozenset[SpecKey], frozenset[SpecKey]] = {}
        self._encoded: dict[str, tuple[tuple[int | None, int], bytes]] = {}
        """Network -> the message that was made last: many sessions ask for the same one."""

    @property
    def number(self) -> int:
        """Of the newest change of endpoints."""
        return self._endpoints.number

    def reload(self, epoch: int) -> None:
        snapshot = self._picture.snapshot()
        for service in snapshot.of("services").values():
            self._specs.add(service)
        for name, status in snapshot.of("status").items():
            self._peers.set_underlay(name, status.info.underlay)
        self._slices = networks_of_nodes(snapshot.of("netplans").values())
        self._endpoints.reload(snapshot, epoch)
        self._guarded.reload(snapshot)
        self._encoded.clear()

    def take(self, changes: list[Change]) -> News:
        dirty: dict[str, None] = {}
        for change in changes:
            if change.kind == "assignments":
                dirty[change.name] = None
            elif change.kind == "services":
                if change.new is not None:
                    self._specs.add(change.new)
                if change.old is not None and (change.new is None or change.new.id != change.old.id):
                    self._ways.removed(change.old)
            elif change.kind == "netplans":
                dirty.update(dict.fromkeys(self._netplan(change.name, change.old, change.new)))
                if change.new is None:
                    self._encoded.pop(change.name, None)
                    self._peers.forget(change.name)
            elif change.kind == "status" and change.new is not None:
                if self._peers.set_underlay(change.name, change.new.info.underlay):
                    dirty.update(dict.fromkeys(self._neighbours(change.name)))
            elif change.kind == "networks":
                dirty.update(dict.fromkeys(_members(self._picture.snapshot(), change.name)))
        snapshot, before = self._picture.snapshot(), self._endpoints.number
        touched = self._endpoints.take(changes, snapshot)
        told = dict.fromkeys(chain.from_iterable(_members(snapshot, name) for name in touched if name != INGRESS))
        return News(list(dirty), list(told), INGRESS in touched, before, self._endpoints.lost(), self._guarded.take(changes))

    def desired(self, session: NodeSession) -> bytes | None:
        """What has to be said to the session now, as an encoded ToNode message; remembers that it was said."""
        snapshot = self._picture.snapshot()
        want = wanted(snapshot, session.node, self._slices.get(session.node, {}), self._peers, self._ways)
        known = set(session.known)
        message = self._composer.encoded(session.node, session.sent, want, known, snapshot, session.held)
        if len(known) > len(session.known):
            session.known = self._shared(frozenset(known))
        if message is not None:
            session.sent_whole = session.sent is None
        session.sent = want
        return message

    def _shared(self, known: frozenset[SpecKey]) -> frozenset[SpecKey]:
        """One object for all sessions that know the same specs."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        return self._known.setdefault(known, known)

    def guarded(self, session: NodeSession) -> pb.Guarded | None:
        """As `desired`, of the guarded addresses."""
        message = self._guarded.message(session.guarded)
        session.guarded = self._guarded.number
        return message

    def endpoints(self, session: NodeSession) -> tuple[list[bytes], bool]:
        """What the session does not know yet of `ingress` and of the networks it was told to have, as encoded ToNode messages;
        and whether something whole is among it. Remembers that it was said. In the order of their numbers: only the last one's
        says that everything was heard."""
        networks = (*(session.sent.networks if session.sent else ()), INGRESS)
        known = session.endpoints
        names = [name for name in networks if self._endpoints.has_news(name, known.get(name))]
        names.sort(key=self._endpoints.newest)
        found = [self._encode(name, known.get(name)) for name in names]
        whole = any(known.get(name) is None for name in names)
        session.endpoints = dict.fromkeys(networks, self._endpoints.number)
        session.said(self._endpoints.newest(names[-1]) if names else 0)
        return found, whole

    def _encode(self, network: str, told: int | None) -> bytes:
        wanted_row = (told, self._endpoints.newest(network))
        row = self._encoded.get(network)
        if row is None or row[0] != wanted_row:
            message, _ = self._endpoints.message(network, told)
            assert message is not None, "only asked for what has news"
            row = self._encoded[network] = (wanted_row, pb.ToNode(endpoints=message).SerializeToString())
        return row[1]

    def _netplan(self, name: str, old: NetworkPlanDoc | None, new: NetworkPlanDoc | None) -> list[str]:
        before, after = dict(old.slices if old else ()), dict(new.slices if new else ())
        for node in before:
            if node not in after:
                self._slices.get(node, {}).pop(name, None)
        for node, cidr in after.items():
            self._slices.setdefault(node, {})[name] = cidr
        return [*before, *after]

    def _neighbours(self, node: str) -> list[str]:
        plans = self._picture.snapshot().of("netplans")
        return [peer for name in self._slices.get(node, {}) if name in plans for peer, _ in plans[name].slices]


def _members(snapshot: Snapshot, network: str) -> list[str]:
    plan = snapshot.of("netplans").get(network)
    return [node for node, _ in plan.slices] if plan else []
