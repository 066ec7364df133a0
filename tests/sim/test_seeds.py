"""Ten thousand faults, a hundred to a seed: nothing is violated. Several runs of pytest's workers share them."""

from __future__ import annotations

import pytest

from sim.run import simulate
from sim.scenario import Scenario

FAULTS = 100
SEEDS_EACH = 5
CHUNKS = 20


def scenario(seed: int) -> Scenario:
    return Scenario(seed, nodes=6, minutes=5.0, faults=FAULTS)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_fault_breaks_a_promise(chunk: int) -> None:
    for seed in range(1_000 + chunk * SEEDS_EACH, 1_000 + (chunk + 1) * SEEDS_EACH):
        result = simulate(scenario(seed))
        told = "\n".join([*map(str, result.violations), *result.story])
        again = f"python -m shoal sim --seed {seed} --nodes 6 --minutes 5 --faults {FAULTS}"
        assert not result.violations, f"{again}\n{told}"
        assert result.faults == FAULTS
