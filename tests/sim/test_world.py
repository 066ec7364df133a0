"""Whole runs: the same seed gives the same trace whatever PYTHONHASHSEED, faults break nothing, and what is broken is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.runner import Runner
from sim.load import LoadedBalancer
from sim.main import main
from sim.run import faults_of, shrink, simulate
from sim.scenario import Scenario

ROOT = Path(__file__).parents[2]
SMALL = ("--nodes", "4", "--minutes", "3", "--faults", "15", "--tries", "0", "--json")


def run(hash_seed: str, *words: str) -> tuple[int, dict[str, Any]]:
    found = subprocess.run(
        [sys.executable, "-m", "shoal", "sim", *words], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return found.returncode, json.loads(found.stdout)


@pytest.mark.parametrize("seed", ["7", "5"], ids=["plain", "with load"])
def test_one_seed_gives_one_trace_whatever_the_hash_seed(seed: str) -> None:
    (code, one), (_, other) = run("1", "--seed", seed, *SMALL), run("4242", "--seed", seed, *SMALL)
    assert code == 0, one["violations"]
    assert one["trace_sha256"] == other["trace_sha256"]
    assert one["steps"] == other["steps"] > 1000
    assert one["violations"] == []
    assert one["faults"] == 15


def test_another_seed_gives_another_trace() -> None:
    results = [simulate(Scenario(seed, 3, 2, 5)) for seed in (1, 2, 1)]
    traces = [result.trace_sha256 for result in results]
    assert traces[0] == traces[2] != traces[1]


@pytest.mark.parametrize("seed", range(1, 4))
def test_faults_break_nothing(seed: int) -> None:
    result = simulate(Scenario(seed, 6, 5, 40))
    assert result.violations == ()
    assert result.faults == 40


def test_a_broken_agent_is_found_and_its_faults_are_made_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent that begins with a clean machine ends healthy containers: only where it is killed does it show."""
    recover = Runner.recover

    async def clean(runner: Runner) -> None:
        for found in await runner.ports.runtime.recover():
            await runner.ports.runtime.delete(found.container_id)
        await recover(runner)

    monkeypatch.setattr(Runner, "recover", clean)
    scenario = Scenario(3, 3, 3, 20)
    result = simulate(scenario)
    assert result.violations
    assert float(result.story[-1].split()[0]) <= round(result.violations[0].at_s, 6), "what came later tells nothing of it"
    faults = shrink(scenario, result, tries=12)
    assert len(faults) < len(faults_of(scenario))
    again = simulate(replace(scenario, fault_list=faults))
    assert result.violations[0].rule in {violation.rule for violation in again.violations}
    assert main(["--seed", "3", "--nodes", "3", "--minutes", "3", "--faults", "20", "--tries", "2"]) == 1
    said = capsys.readouterr().err
    assert "seed 3 fails" in said
    assert "the smallest faults" in said
    assert "the story of" in said


def test_an_error_in_what_measures_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent goes on without its samples, whatever it is; the simulation does not."""

    async def broken(balancer: LoadedBalancer) -> None:
        raise TypeError("no such row")

    scenario = Scenario(seed=5, nodes=4, minutes=3.0, faults=0)
    assert scenario.loaded
    monkeypatch.setattr(LoadedBalancer, "load", broken)
    violations = simulate(scenario).violations
    assert ("crashed", "TypeError: no such row") in [(violation.rule, violation.text) for violation in violations]
