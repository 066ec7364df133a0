"""The tests of the tests: bugs that other orchestrators had are put back one at a time, and the simulation finds each.

The same plot without the bug is found to be in order, so what was found is the bug.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.sim import known_bugs_plots
from tests.sim.known_bugs import BUGS, Bug
from tests.sim.known_bugs_world import Plot, play

PLOTS: Mapping[str, Plot] = {name: plot for name, plot in vars(known_bugs_plots).items() if isinstance(plot, Plot)}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_without_its_bugs_is_in_order(name: str) -> None:
    played = play(PLOTS[name])
    assert not played.violations, str(played)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_known_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.patch(monkeypatch)
    played = play(bug.plot)
    assert bug.rule in played.rules, f"{bug.patched}: wanted {bug.rule!r}, found:\n{played}"


def test_twenty_bugs_with_names_of_their_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
    assert {bug.plot for bug in BUGS} == set(PLOTS.values()), "every plot is used"
