"""Credentials of services on their way: to the nodes that run them and no others, and what a node does with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from agent.core import wire
from agent.core.journal import MemoryJournal
from agent.core.logins import Logins
from agent.plan.desired import merge
from agent.plan.records import Desired
from controller.dispatch.desired import Composer, PeerBook, SpecBook, Wanted, WayBook
from controller.sealing import Login, Sealing
from model import codec
from model.documents import Assigned, AssignedService, ServiceDoc
from model.spec import ContainerSpec, ServiceSpec
from protos import node_pb2 as pb

SEALS = Sealing(b"of this cluster")
ANA, NEW = Login("ana", "first password"), Login("ana", "second password")
PRIVATE = ServiceDoc("s1", ServiceSpec("private", ContainerSpec("here:5000/web")), 1, registry_auth=SEALS.seal("s1", ANA))
OPEN = ServiceDoc("s2", ServiceSpec("open", ContainerSpec("busybox")), 1)


class Leader:
    """What it says to nodes that run these services."""

    def __init__(self) -> None:
        self.specs, self.ways = SpecBook(), WayBook()
        self.composer = Composer(self.specs, PeerBook(), lambda: SEALS)

    def says(self, *documents: ServiceDoc, before: Wanted | None = None) -> tuple[pb.Desired | None, Wanted]:
        for document in documents:
            self.specs.add(document)
        entries = tuple(AssignedService.of(row.id, row.spec.name, [Assigned(1, 1, 5)]) for row in documents)
        rows = zip(entries, documents, strict=True)
        want = Wanted(1, entries, tuple(self.ways.of(entry, document) for entry, document in rows))
        return self.composer.message("n1", before, want, set(), cast(Any, None)), want


def auth(message: pb.Desired | None, service: str) -> tuple[str, str] | None:
    assert message is not None
    (row,) = [row for row in message.services if row.service_id == service]
    return (row.registry_auth.username, row.registry_auth.password) if row.HasField("registry_auth") else None


def test_only_who_runs_the_service_is_told() -> None:
    both, _ = Leader().says(PRIVATE, OPEN)
    assert (auth(both, "s1"), auth(both, "s2")) == (("ana", "first password"), None)
    other, _ = Leader().says(OPEN)
    assert other is not None
    assert b"password" not in other.SerializeToString()


def test_a_seal_of_another_service_is_not_opened() -> None:
    told, _ = Leader().says(replace(OPEN, registry_auth=PRIVATE.registry_auth))
    assert auth(told, "s2") is None


def test_a_changed_password_is_told_without_a_new_version() -> None:
    leader = Leader()
    _, sent = leader.says(PRIVATE)
    again, _ = leader.says(PRIVATE, before=sent)
    assert again is None
    changed, _ = leader.says(replace(PRIVATE, registry_auth=SEALS.seal("s1", NEW)), before=sent)
    assert auth(changed, "s1") == ("ana", "second password")
    assert changed is not None
    assert len(changed.services) == 1


def test_a_node_keeps_them_in_memory_only_for_as_long_as_the_service_is_there() -> None:
    logins, leader = Logins(), Leader()
    first, sent = leader.says(PRIVATE, OPEN)
    assert first is not None
    assert logins.take(first) == ("s1",)
    assert logins.take(first) == ()
    found = logins.of("s1")
    assert found is not None
    assert (found.username, found.password, logins.of("s2")) == ("ana", "first password", None)
    assert "first password" not in repr(found)

    journal = MemoryJournal()
    journal.save_desired(merge(Desired(), wire.desired_message(first)))
    assert b"password" not in codec.encode(journal.load_desired())

    gone, _ = leader.says(OPEN, before=sent)
    assert gone is not None
    assert logins.take(gone) == ()
    assert logins.of("s1") is None


def test_a_whole_message_replaces_what_was_known() -> None:
    logins = Logins()
    told, _ = Leader().says(PRIVATE)
    assert told is not None
    logins.take(told)
    assert logins.take(pb.Desired(whole=True)) == ()
    assert logins.of("s1") is None
