"""What every journal promises: the one in files and the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.journal import Journal, Kept, MemoryJournal
from agent.plan.records import Attempts, Desired, Life, ReplicaId, Slot, WantedService
from model.spec import ContainerSpec, ServiceSpec

pytestmark = pytest.mark.contract
SPEC = ServiceSpec("shop_web", ContainerSpec("web:1"))
FIRST = Life(
    ReplicaId("s1", 1, 5, 2), SPEC, "shop_web.1", stage="running", container_id="c" * 64, attempts=Attempts(2, 7, (1.0,))
)
SECOND = replace(FIRST, id=ReplicaId("s1", 2, 5, 2), name="shop_web.2")
DESIRED = Desired(4, (WantedService("s1", "shop_web", (Slot(1, 2, 5),)),))

Again = Callable[[], Kept]
"""The journal as the next agent finds it."""


@pytest.fixture(params=["files", "memory"])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Again:
    memory = MemoryJournal()
    return (lambda: memory) if request.param == "memory" else (lambda: Journal(tmp_path))


def test_what_was_saved_last_comes_back_in_the_order_of_names(again: Again) -> None:
    again().save(SECOND)
    again().save(replace(FIRST, stage="none"))
    again().save(FIRST)
    assert again().load() == [FIRST, SECOND]
    again().drop(FIRST.id)
    again().drop(FIRST.id)
    assert again().load() == [SECOND]


def test_the_desired_state_comes_back(again: Again) -> None:
    assert again().load_desired() == Desired()
    again().save_desired(DESIRED)
    assert again().load_desired() == DESIRED


def test_a_removed_node_forgets(again: Again) -> None:
    again().save(FIRST)
    again().save_desired(DESIRED)
    again().wipe()
    assert (again().load(), again().load_desired()) == ([], Desired())


def test_on_a_full_disk_what_was_written_before_stands(again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    again().save(FIRST)
    again().save_desired(DESIRED)
    journal = again()
    if isinstance(journal, MemoryJournal):
        journal.full = True
    else:
        monkeypatch.setattr("os.write", no_space)
    with pytest.raises(OSError, match="No space left"):
        journal.save(replace(FIRST, stage="none"))
    with pytest.raises(OSError, match="No space left"):
        journal.save_desired(Desired(9))
    assert (again().load(), again().load_desired()) == ([FIRST], DESIRED)
    journal.drop(FIRST.id)
    assert again().load() == []


def no_space(*_: object) -> int:
    raise OSError(28, "No space left on device")
