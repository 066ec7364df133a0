"""What all sessions share: specs, peers, endpoints, and which networks each node takes part in; says whom a change concerns.

Rules: kept up by changes, rebuilt from the whole picture when a reign begins. Node names are handed out in the order of the
changes, never from a set.
"""

from __future__ import annotations

from controller.dispatch.desired import Composer, PeerBook, SpecBook, networks_of_nodes, wanted
from controller.dispatch.endpoints import EndpointBook
from controller.dispatch.session import NodeSession
from controller.loops.picture import Change, Picture
from model.documents import NetworkPlanDoc
from protos import node_pb2 as pb


class Books:
    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._specs = SpecBook()
        self._peers = PeerBook()
        self._composer = Composer(self._specs, self._peers)
        self._slices: dict[str, dict[str, str]] = {}
        self._endpoints = EndpointBook()

    def reload(self) -> None:
        snapshot = self._picture.snapshot()
        for service in snapshot.of("services").values():
            self._specs.add(service)
        for name, status in snapshot.of("status").items():
            self._peers.set_underlay(name, status.info.underlay)
        self._slices = networks_of_nodes(snapshot.of("netplans").values())
        self._endpoints.reload(snapshot)

    def take(self, changes: list[Change]) -> list[str]:
        """The nodes whose wanted state may differ now."""
        dirty: dict[str, None] = {}
        for change in changes:
            if change.kind == "assignments":
                dirty[change.name] = None
            elif change.kind == "services" and change.new is not None:
                self._specs.add(change.new)
            elif change.kind == "netplans":
                dirty.update(dict.fromkeys(self._netplan(change.name, change.old, change.new)))
            elif change.kind == "status" and change.new is not None:
                if self._peers.set_underlay(change.name, change.new.info.underlay):
                    dirty.update(dict.fromkeys(self._neighbours(change.name)))
            elif change.kind == "networks":
                plan = self._picture.snapshot().of("netplans").get(change.name)
                dirty.update(dict.fromkeys(node for node, _ in plan.slices) if plan else {})
        snapshot = self._picture.snapshot()
        for network in self._endpoints.take(changes, snapshot):
            plan = snapshot.of("netplans").get(network)
            dirty.update(dict.fromkeys(node for node, _ in plan.slices) if plan else {})
        return list(dirty)

    def desired(self, session: NodeSession) -> pb.Desired | None:
        """What has to be said to the session now; remembers that it was said."""
        snapshot = self._picture.snapshot()
        want = wanted(snapshot, session.node, self._slices.get(session.node, {}), self._peers)
        message = self._composer.message(session.node, session.sent, want, session.known, snapshot, session.held)
        session.sent = want
        return message

    def endpoints(self, session: NodeSession) -> list[pb.Endpoints]:
        """What the session does not know yet of the networks it was told to have; remembers that it was said."""
        networks = session.sent.networks if session.sent else {}
        session.endpoints = {name: number for name, number in session.endpoints.items() if name in networks}
        found = []
        for name in networks:
            message, session.endpoints[name] = self._endpoints.message(name, session.endpoints.get(name))
            if message is not None:
                found.append(message)
        return found

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
