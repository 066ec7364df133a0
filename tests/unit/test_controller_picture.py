"""The picture: snapshots never change, every change is told once, own writes first and not again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import controller.loops.picture
from controller.loops.picture import Change, Picture
from model import codec
from model.documents import NodeHealthDoc, key
from model.store_port import Entry

KEY = key("health", "n1")
OTHER = key("health", "n2")


class Soon:
    """Runs what was deferred when told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, run: Callable[[], None]) -> None:
        self.waiting.append(run)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


def entry(state: str, revision: int) -> Entry:
    return Entry(KEY, codec.encode(NodeHealthDoc("n1", state)), revision, 1)  # type: ignore[arg-type]


def made() -> tuple[Picture, Soon, list[Change]]:
    soon = Soon()
    picture, told = Picture(soon), list[Change]()
    picture.subscribe(told.extend)
    return picture, soon, told


def test_a_snapshot_never_changes() -> None:
    picture, _, _ = made()
    picture.from_mirror(KEY, entry("ready", 5))
    before = picture.snapshot()
    assert picture.snapshot() is before
    picture.from_mirror(KEY, entry("down", 6))
    assert before.of("health")["n1"].state == "ready"
    assert before.revision(KEY) == 5
    assert picture.snapshot().of("health")["n1"].state == "down"
    assert picture.snapshot().of("nodes") is before.of("nodes"), "what did not change is shared"


@pytest.mark.parametrize("late_max", [0, 3, 500])
def test_revisions_are_those_of_the_moment_however_many_changed_since(late_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.loops.picture, "LATE_MAX", late_max)
    picture, soon, _ = made()
    seen = []
    for revision in range(1, 20):
        name = key("health", f"n{revision % 6}")
        value = codec.encode(NodeHealthDoc(f"n{revision % 6}", "ready"))
        picture.from_mirror(name, None if revision % 4 == 0 else Entry(name, value, revision, 1))
        soon.run()
        snapshot = picture.snapshot()
        seen.append((snapshot, {name: snapshot.revision(key("health", name)) for name in ("n0", "n1", "n2", "n3", "n4", "n5")}))
        assert {name for name, known in seen[-1][1].items() if known} == {*snapshot.of("health")}
    assert seen[-1][1] == {"n0": 18, "n1": 19, "n2": 14, "n3": 15, "n4": 0, "n5": 17}
    for snapshot, known in seen:
        assert {name: snapshot.revision(key("health", name)) for name in known} == known


def test_changes_of_a_burst_are_told_once_in_order() -> None:
    picture, soon, told = made()
    picture.from_mirror(KEY, entry("ready", 5))
    picture.from_mirror(KEY, entry("down", 6))
    assert not told
    assert len(soon.waiting) == 1
    soon.run()
    assert [(change.old and change.old.state, change.new.state) for change in told] == [(None, "ready"), ("ready", "down")]


def test_an_own_write_is_seen_at_once_and_not_again() -> None:
    picture, soon, told = made()
    picture.from_own_puts([(KEY, entry("ready", 7).value)], 7)
    picture.from_mirror(KEY, entry("unreachable", 6))
    picture.from_mirror(KEY, entry("ready", 7))
    soon.run()
    assert [change.own for change in told] == [True]
    picture.from_mirror(KEY, entry("down", 8))
    soon.run()
    assert [change.own for change in told] == [True, False]


def test_a_delete_that_an_own_put_has_overtaken_is_not_believed() -> None:
    picture, _, _ = made()
    picture.from_mirror(KEY, entry("ready", 5))
    picture.from_own_puts([(KEY, entry("down", 9).value)], 9)
    picture.from_mirror(KEY, None)
    assert picture.snapshot().of("health")["n1"].state == "down"
    picture.from_mirror(KEY, entry("down", 9))
    picture.from_mirror(KEY, None)
    assert "n1" not in picture.snapshot().of("health")
    assert picture.snapshot().revision(KEY) == 0


def test_a_document_that_cannot_be_read_never_looks_deleted() -> None:
    picture, _, _ = made()
    picture.from_mirror(KEY, entry("ready", 5))
    picture.from_mirror(KEY, Entry(KEY, b"{", 6, 1))
    assert picture.snapshot().of("health")["n1"].state == "ready"
    assert picture.snapshot().revision(KEY) == 6, "a write must compare with what is there"


def test_a_delete_moves_the_index_of_its_kind() -> None:
    picture, soon, _ = made()
    picture.mirror_revision = lambda: 8
    picture.from_mirror(KEY, entry("ready", 5))
    soon.run()
    assert picture.changed_at["health"] == 5
    picture.from_mirror(KEY, None)
    soon.run()
    assert picture.changed_at["health"] == 8


def test_an_own_put_that_somebody_deleted_before_the_mirror_showed_it_does_not_stay() -> None:
    picture, soon, told = made()
    picture.from_own_puts([(KEY, entry("ready", 10).value)], 10)
    picture.listed(9)
    soon.run()
    assert "n1" in picture.snapshot().of("health"), "the listing is older"
    picture.from_mirror(KEY, None)  # an older one's delete, or ours: only a listing can tell
    soon.run()
    assert "n1" in picture.snapshot().of("health")
    picture.listed(12)
    soon.run()  # it is judged when everything the listing says was told
    soon.run()
    assert picture.snapshot().of("health") == {}
    assert told[-1].new is None


def test_an_own_put_that_the_watch_lost_is_no_delete() -> None:
    """Found by the simulation: the leader took its own assignments for deleted, and the nodes stopped everything."""
    picture, soon, _ = made()
    picture.mirror_revision = lambda: 12
    picture.from_own_puts([(KEY, entry("ready", 10).value)], 10)
    picture.from_mirror(OTHER, Entry(OTHER, entry("ready", 12).value, 12, 1))
    soon.run()
    assert "n1" in picture.snapshot().of("health")


async def test_whoever_gives_up_waiting_leaves_nothing() -> None:
    picture, _, _ = made()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(picture.changed(), 0.001)
    assert len(picture._waiters) == 0


def test_what_the_watch_shows_before_the_transactions_answer_is_our_own_and_is_not_decoded_again() -> None:
    picture, soon, changes = made()
    mine, theirs = entry("ready", 7), entry("down", 8)
    document = NodeHealthDoc("n1", "ready")
    with picture.writing([(KEY, mine.value)], {KEY: document}):
        picture.from_mirror(KEY, mine)
        picture.from_mirror(KEY, theirs)
        picture.from_own_puts([(KEY, mine.value)], 7, {KEY: document})
    picture.from_mirror(KEY, entry("ready", 9))
    soon.run()
    assert [(change.revision, change.own) for change in changes] == [(7, True), (8, False), (9, False)]
    assert changes[0].new is document
    assert changes[2].new is not document
