"""The cluster's own addresses: what is kept, and what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.dispatch.guarded import TOMBSTONES_MAX, GuardBook, host_port
from controller.loops.picture import KINDS, Change, Snapshot
from model.documents import ControllerDoc, NodeInfo, StatusDoc


def status(node: str, address: str) -> StatusDoc:
    return StatusDoc(node, NodeInfo(address=address))


def take(book: GuardBook, kind: str, name: str, new: Any) -> bool:
    return book.take([Change(kind, name, None, new, 1)])


def test_the_whole_at_first_then_differences() -> None:
    book = GuardBook(["10.0.0.9:2379"])
    take(book, "status", "n1", status("n1", "10.0.0.1:7445"))
    take(book, "controllers", "c1", ControllerDoc("c1", "c1", "https://10.0.0.5:7443", "10.0.0.5:7444"))
    first = book.message(0)
    assert first is not None
    assert first.whole
    assert list(first.added) == ["10.0.0.1:7445", "10.0.0.5:7443", "10.0.0.5:7444", "10.0.0.9:2379"]
    told = book.number
    assert book.message(told) is None
    assert take(book, "status", "n2", status("n2", "10.0.0.2:7445"))
    assert take(book, "status", "n1", None)
    second = book.message(told)
    assert second is not None
    assert (second.whole, list(second.added), list(second.removed)) == (False, ["10.0.0.2:7445"], ["10.0.0.1:7445"])


def test_a_status_that_says_the_same_address_is_no_news() -> None:
    book = GuardBook()
    assert take(book, "status", "n1", status("n1", "10.0.0.1:1"))
    assert not take(book, "status", "n1", replace(status("n1", "10.0.0.1:1"), reported_ms=9))


def test_an_address_that_two_have_stays_until_both_are_gone() -> None:
    book = GuardBook()
    take(book, "status", "n1", status("n1", "10.0.0.1:1"))
    told = book.number
    assert not take(book, "status", "n2", status("n2", "10.0.0.1:1"))
    assert not take(book, "status", "n1", None)
    assert book.message(told) is None
    assert take(book, "status", "n2", None)


def test_a_reign_begins_from_what_there_is() -> None:
    book = GuardBook(["10.0.0.9:2379"])
    take(book, "status", "old", status("old", "10.0.0.1:1"))
    documents: dict[str, Any] = {kind: {} for kind in KINDS}
    documents["status"] = {"n2": status("n2", "10.0.0.2:1")}
    book.reload(Snapshot(documents, {}, 1))
    message = book.message(0)
    assert message is not None
    assert list(message.added) == ["10.0.0.2:1", "10.0.0.9:2379"]


def test_who_missed_more_than_is_remembered_gets_the_whole() -> None:
    book = GuardBook()
    take(book, "status", "n", status("n", "10.0.0.1:1"))
    told = book.number
    for turn in range(TOMBSTONES_MAX + 2):
        take(book, "status", "x", status("x", f"10.0.1.1:{turn + 1}"))
    take(book, "status", "x", None)
    message = book.message(told)
    assert message is not None
    assert (message.whole, list(message.added)) == (True, ["10.0.0.1:1"])


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://10.0.0.1:7443", "10.0.0.1:7443"),
        ("https://[fd00::1]:7443", "[fd00::1]:7443"),
        ("https://etcd", "etcd:443"),
        ("", ""),
    ],
)
def test_addresses_of_urls(url: str, address: str) -> None:
    assert host_port(url) == address
