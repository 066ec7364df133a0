"""The launcher: which folder goes on sys.path, and who gets the words."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from shoal import __main__ as launcher

ROOT = str(Path(__file__).parents[2])


def test_a_wheel_uses_its_own_folders_and_a_checkout_its_root(tmp_path: Path) -> None:
    package = tmp_path / "shoal"
    package.mkdir()
    assert launcher.app_root(str(package)) == str(tmp_path)
    (package / "_app").mkdir()
    assert launcher.app_root(str(package)) == str(package / "_app")


def test_the_root_goes_first_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/elsewhere", ROOT, "/other"])
    assert launcher.use_app_root() == ROOT
    launcher.use_app_root()
    assert sys.path == [ROOT, "/elsewhere", "/other"]


@pytest.mark.parametrize(
    ("words", "module", "passed_on"),
    [
        (["agent", "--node", "n1"], "agent.main", ["--node", "n1"]),
        (["controller"], "controller.main", []),
        (["node", "ls"], "cli.main", ["node", "ls"]),
        (["autoscale", "replay", "trace.csv", "--help"], "sim.replay.main", ["trace.csv", "--help"]),
        (["autoscale", "ls"], "cli.main", ["autoscale", "ls"]),
        ([], "cli.main", []),
    ],
)
def test_words_reach_the_right_entry_point(
    words: list[str], module: str, passed_on: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def entry(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    made_up = ModuleType(module)
    made_up.main = entry  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, made_up)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert launcher.main(words) == 3
    assert seen == [passed_on]
