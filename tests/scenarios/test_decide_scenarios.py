"""Golden scenarios: commands and what is decided, as text. `pytest tests/scenarios --rewrite-scenarios` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.interpreter import run

FOLDER = Path(__file__).parent / "decide"
FILES = sorted(FOLDER.glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    expected = path.read_text()
    found = run(expected)
    if pytestconfig.getoption("--rewrite-scenarios", default=False):
        path.write_text(found)
        return
    assert found == expected


def test_a_changed_outcome_is_noticed() -> None:
    text = FILES[0].read_text()
    assert run(text.replace("\n----\n", "\n----\nnever printed\n", 1)) == run(text)
