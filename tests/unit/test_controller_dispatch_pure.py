"""Desired states as differences, and statuses merged: without a wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.dispatch.books import Books
from controller.dispatch.desired import REMOVED_MAX, Composer, PeerBook, SpecBook, Wanted, WayBook, wanted
from controller.dispatch.session import NodeSession
from controller.dispatch.status import REPLICAS_MAX, NodeStatus
from controller.loops.picture import KINDS, Change, Picture, Snapshot
from model import codec
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    NetworkDoc,
    NetworkPlanDoc,
    ServiceDoc,
    StatusDoc,
    VolumeDoc,
    key,
)
from model.spec import Attachment, ContainerSpec, Mount, NetworkSpec, ServiceSpec, VolumeSpec
from model.store_port import Entry
from protos import node_pb2 as pb

WEB = ServiceDoc("id1", ServiceSpec("web", ContainerSpec("busybox", mounts=(Mount("volume", "/data", "data"),))), 2, version=3)
PLAN = NetworkPlanDoc("net1", "net", 4097, "10.1.0.0/16", (("n1", "10.1.0.0/24"), ("n2", "10.1.1.0/24")))


def facts(generation: int = 1, slots: tuple[int, ...] = (1, 2), service: ServiceDoc = WEB, version: int = 3) -> Snapshot:
    replicas = tuple(Assigned(slot, version, 7) for slot in slots)
    entries = (AssignedService.of("id1", "web", replicas),) if slots else ()
    documents: dict[str, Any] = {kind: {} for kind in KINDS}
    documents["assignments"] = {"n1": AssignmentDoc("n1", generation, entries)}
    documents["services"] = {"web": service}
    documents["netplans"] = {"net": PLAN}
    documents["networks"] = {"net": NetworkDoc("net1", NetworkSpec("net", internal=True))}
    documents["volumes"] = {"data": VolumeDoc("v", VolumeSpec("data", options=(("o", "1"),)))}
    return Snapshot(documents, {}, 1)


class Wire:
    """One session's side: what was sent, what is known."""

    def __init__(self) -> None:
        self.specs, self.peers = SpecBook(), PeerBook()
        self.specs.add(WEB)
        self.sent: Wanted | None = None
        self.known: set[tuple[str, int]] = set()
        self.held: frozenset[tuple[str, int]] = frozenset()

    def say(self, snapshot: Snapshot, slices: dict[str, str] | None = None) -> pb.Desired | None:
        want = wanted(snapshot, "n1", {"net": "10.1.0.0/24"} if slices is None else slices, self.peers)
        message = Composer(self.specs, self.peers).message("n1", self.sent, want, self.known, snapshot, self.held)
        self.sent = want
        return message


def test_whole_at_first_then_only_differences() -> None:
    wire = Wire()
    first = wire.say(facts())
    assert first is not None
    assert (first.whole, first.generation) == (True, 1)
    assert [(slot.slot, slot.version, slot.created_ms) for slot in first.services[0].slots] == [(1, 3, 7), (2, 3, 7)]
    assert [spec.version for spec in first.services[0].specs] == [3]
    assert (first.volumes[0].name, dict(first.volumes[0].options)) == ("data", {"o": "1"})
    assert (first.networks[0].slice, first.networks[0].internal, len(first.networks[0].peers)) == ("10.1.0.0/24", True, 0)
    assert wire.say(facts()) is None
    second = wire.say(facts(2, (1,)))
    assert second is not None
    assert (second.whole, second.base_generation, second.generation) == (False, 1, 2)
    assert not second.services[0].specs
    assert not second.networks
    third = wire.say(facts(3, ()), {})
    assert third is not None
    assert (list(third.removed_services), list(third.removed_networks)) == (["id1"], ["net"])


def test_peers_are_everybody_else_whose_address_is_known() -> None:
    wire = Wire()
    wire.say(facts())
    assert wire.peers.set_underlay("n2", "192.0.2.2")
    assert not wire.peers.set_underlay("n2", "192.0.2.2")
    wire.peers.set_underlay("n1", "192.0.2.1")
    message = wire.say(facts())
    assert message is not None
    (peer,) = message.networks[0].peers
    assert (peer.node, peer.underlay, peer.slice) == ("n2", "192.0.2.2", "10.1.1.0/24")
    assert (message.generation, message.base_generation) == (1, 1)


def test_a_stop_reaches_the_node_without_a_new_generation() -> None:
    wire = Wire()
    wire.say(facts())
    message = wire.say(facts(service=replace(WEB, stopped=True)))
    assert message is not None
    assert message.services[0].stopped


def test_live_connections_reach_the_node_without_a_new_generation() -> None:
    wire = Wire()
    first = wire.say(facts())
    assert first is not None
    assert not first.services[0].rewired
    message = wire.say(facts(service=replace(WEB, networks=(Attachment("net", ("front",), "10.1.0.9"),))))
    assert message is not None
    (row,) = message.services
    assert (row.rewired, [(item.network, list(item.aliases), item.ipv4_address) for item in row.networks]) == (
        True,
        [("net", ["front"], "10.1.0.9")],
    )
    message = wire.say(facts(service=replace(WEB, networks=())))
    assert message is not None
    assert (message.services[0].rewired, len(message.services[0].networks)) == (True, 0), "disconnected from all of them"


def test_fixed_addresses_and_the_ipv6_prefix_travel_with_the_network() -> None:
    wire = Wire()
    wire.peers.set_underlay("n2", "192.0.2.2")
    snapshot = facts()
    fixed = replace(PLAN, prefix6="fd00:1::/96", fixed=(("10.1.9.1", "n1"), ("10.1.9.2", "n2")))
    documents = {**snapshot.documents, "netplans": {"net": fixed}}
    message = wire.say(Snapshot(documents, {}, 1))
    assert message is not None
    (network,) = message.networks
    assert (network.prefix6, list(network.addresses)) == ("fd00:1::/96", ["10.1.9.1"])
    assert [list(peer.addresses) for peer in network.peers] == [["10.1.9.2"]]


def test_a_slot_whose_spec_is_nowhere_is_left_out_and_comes_with_the_next_version() -> None:
    wire = Wire()
    first = wire.say(facts(version=2))
    assert first is not None
    assert list(first.services[0].slots) == [], "the node would refuse the whole message"
    second = wire.say(facts(2))
    assert second is not None
    assert [slot.version for slot in second.services[0].slots] == [3, 3]
    assert [spec.version for spec in second.services[0].specs] == [3]


def test_a_slot_whose_old_spec_only_the_node_has_is_never_left_out() -> None:
    wire = Wire()
    wire.known, wire.held = {("id1", 2)}, frozenset({("id1", 2)})
    first = wire.say(facts(version=2))
    assert first is not None
    assert [slot.slot for slot in first.services[0].slots] == [1, 2]
    wire.sent = None
    wire.known.clear()  # as after a message that was not taken
    again = wire.say(facts(version=2))
    assert again is not None
    assert [slot.slot for slot in again.services[0].slots] == [1, 2]


def test_a_service_of_the_same_name_with_another_id_is_not_mixed_up() -> None:
    wire = Wire()
    message = wire.say(facts(service=replace(WEB, id="other", stopped=True)))
    assert message is not None
    assert not message.services[0].stopped


def told(books: Books, session: NodeSession) -> pb.Desired | None:
    data = books.desired(session)
    return None if data is None else pb.ToNode.FromString(data).desired


def test_a_stopped_service_that_is_removed_does_not_start_while_nodes_still_have_its_replicas() -> None:
    """Found by the simulation: without its document it was not stopped any more, and what had ended ran once more."""
    changes: list[Callable[[], None]] = []
    picture = Picture(changes.append)
    books, service = Books(picture), replace(WEB, stopped=True)

    def hear(rows: list[Change]) -> None:
        books.take(rows)

    picture.subscribe(hear)
    assigned = AssignmentDoc("n1", 1, (AssignedService.of("id1", "web", (Assigned(1, 3, 7),)),))
    picture.from_mirror(key("services", "web"), Entry(key("services", "web"), codec.encode(service), 1, 1))
    picture.from_mirror(key("assignments", "n1"), Entry(key("assignments", "n1"), codec.encode(assigned), 2, 2))
    changes.pop()()
    known, later = (NodeSession("n1", "", NodeStatus(StatusDoc("n1")), frozenset(), 0.0) for _ in range(2))
    first = told(books, known)
    assert first is not None
    assert first.services[0].stopped
    picture.from_mirror(key("services", "web"), None)
    assert told(books, known) is None, "the change is not told yet"
    changes.pop()()
    assert told(books, known) is None
    whole = told(books, later)
    assert whole is not None
    assert whole.services[0].stopped, "a session that begins now"


def test_how_a_removed_service_ran_stays_while_there_is_room() -> None:
    book, row = WayBook(), AssignedService.of("id1", "web", (Assigned(1, 3, 7),))
    book.removed(replace(WEB, stopped=True))
    assert book.of(row, None).stopped
    for number in range(REMOVED_MAX):
        book.removed(replace(WEB, id=f"other{number}"))
    assert not book.of(row, None).stopped


def test_the_book_of_specs_is_bounded() -> None:
    book = SpecBook(rows_max=2)
    for version in (1, 2, 3):
        book.add(replace(WEB, version=version))
    assert book.get(("id1", 1)) is None
    assert book.get(("id1", 3)) is not None


# ---- status


def replica(slot: int, state: str = "running", **more: Any) -> pb.Replica:
    return pb.Replica(key=pb.ReplicaKey(service_id="id1", slot=slot, created_ms=7), version=3, state=state, **more)


def test_whole_replaces_and_a_difference_adds_and_removes() -> None:
    status = NodeStatus(StatusDoc("n1"))
    ports = [pb.Port(target="80/tcp", published="0.0.0.0:32768")]
    status.merge(pb.Status(whole=True, replicas=[replica(2), replica(1, ports=ports)], volumes=["b", "a"]))
    document = status.document(None, 99)
    assert document is not None
    assert status.whole
    assert ([row.slot for row in document.replicas], document.volumes, document.reported_ms) == ([1, 2], ("a", "b"), 99)
    assert document.replicas[0].ports == (("80/tcp", "0.0.0.0:32768"),)
    gone = pb.ReplicaKey(service_id="id1", slot=2, created_ms=7)
    status.merge(pb.Status(replicas=[replica(1, "failed", exit_code=0)], gone=[gone]))
    after = status.document(document, 100)
    assert after is not None
    assert [(row.slot, row.state, row.exit_code) for row in after.replicas] == [(1, "failed", 0)]
    assert after.volumes == ("a", "b"), "not said, not changed"
    assert status.document(after, 200) is None, "nothing new, nothing to write"


def test_who_says_the_same_again_keeps_the_records_there_are() -> None:
    status = NodeStatus(StatusDoc("n1"))
    status.merge(pb.Status(whole=True, replicas=[replica(1), replica(2)]))
    before = status.document(None, 99)
    assert before is not None
    status.merge(pb.Status(whole=True, replicas=[replica(2), replica(1)]))
    assert status.document(before, 100) is None
    status.merge(pb.Status(whole=True, replicas=[replica(2), replica(1, "failed")]))
    after = status.document(before, 100)
    assert after is not None
    assert after.replicas[0].state == "failed"
    assert after.replicas[1] is before.replicas[1]


def test_what_a_broken_agent_says_is_limited() -> None:
    status = NodeStatus(StatusDoc("n1"))
    with pytest.raises(ValueError):
        status.merge(pb.Status(whole=True, replicas=[replica(number) for number in range(REPLICAS_MAX + 1)]))
    assert not status.whole
    status.merge(pb.Status(whole=True, replicas=[replica(1, "nonsense", message="x" * 5000 + "\nmore")]))
    document = status.document(None, 1)
    assert document is not None
    assert (document.replicas[0].state, len(document.replicas[0].message)) == ("preparing", 1000)
    with pytest.raises(ValueError):
        status.take_info(b'{"cpus":"many"}')
