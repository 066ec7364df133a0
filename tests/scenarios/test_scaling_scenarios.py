"""Golden scenarios of the autoscaler's rule. `pytest tests/scenarios --rewrite-scenarios` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.scaling_interpreter import run

FILES = sorted((Path(__file__).parent / "scaling").glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    expected = path.read_text()
    found = run(expected)
    if pytestconfig.getoption("--rewrite-scenarios", default=False):
        path.write_text(found)
        return
    assert found == expected
