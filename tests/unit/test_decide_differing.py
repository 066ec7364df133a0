"""Tables of documents: what differs is the same, whether they know what was changed or not."""

from __future__ import annotations

import random

import pytest

from controller.decide import differing
from controller.decide.differing import Table, missing, others, same_names


@pytest.mark.parametrize("log_max", [0, 7, 50_000])
@pytest.mark.parametrize("seed", range(10))
def test_a_table_and_a_plain_dict_differ_in_the_same(seed: int, log_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differing, "LOG_MAX", log_max)
    rng, table = random.Random(seed), Table[object]()
    seen = [(table, dict(table))]
    for _ in range(60):
        table = table.branch()
        for _ in range(rng.randrange(4)):
            name = f"n{rng.randrange(8)}"
            if rng.random() < 0.3:
                table.drop(name)
            else:
                table.put(name, object())
        seen.append((table, dict(table)))
        for before, plain in rng.sample(seen, min(5, len(seen))):
            assert sorted(others(before, table)) == sorted(others(plain, dict(table)))
            assert sorted(missing(before, table)) == sorted(missing(plain, dict(table)))
            assert sorted(missing(table, before)) == sorted(missing(dict(table), plain))
            assert before == plain
            assert before.keys() == table.keys() or not same_names(before, table)


def test_the_names_are_known_to_be_the_same_when_only_documents_were_replaced() -> None:
    table = Table[object]()
    table.put("n1", object())
    after = table.branch()
    after.put("n1", object())
    assert same_names(table, after)
    assert others(table, after) == ["n1"]
    assert not same_names({"n1": 1}, {"n1": 1})


def test_what_nobody_asks_about_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby makes no snapshots for days."""
    monkeypatch.setattr(differing, "LOG_MAX", 10)
    table = Table[object]()
    for _ in range(1_000):
        table.put("n1", object())
    assert len(table.log) <= 10
