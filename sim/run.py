"""One whole run: from a scenario to its result; and the smallest list of faults with which it still fails.

Rules: a result depends on the scenario alone: not on the process, its hash seed, or what ran before it.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace

from sim.chance import Chance
from sim.checks.verdicts import Violation
from sim.faults import KINDS, OF_LOAD, Fault, plan_faults
from sim.scenario import Scenario
from sim.shrink import TRIES, smallest
from sim.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """`faults`: how many began. `cpu_s`: of this process. `story`: the last lines about what the first violation
    is about, up to that moment."""

    seed: int
    violations: tuple[Violation, ...]
    faults: int
    trace_sha256: str
    cpu_s: float
    steps: int
    virtual_s: float
    story: tuple[str, ...] = ()


def faults_of(scenario: Scenario) -> tuple[Fault, ...]:
    """Those of the scenario, or the ones planned from its seed."""
    if scenario.fault_list is not None:
        return scenario.fault_list
    rng = Chance(scenario.seed).stream("faults")
    return plan_faults(
        rng, scenario.node_names(), scenario.controller_names(), scenario.faults_until_s, scenario.faults,
        OF_LOAD if scenario.loaded else KINDS, begin_s=scenario.begin_s,
    )  # fmt: skip


def simulate(scenario: Scenario) -> Result:
    """Runs it to its end."""
    began_s = time.process_time()
    world = _made(scenario)
    world.run()
    violations = world.checks.violations
    return Result(
        scenario.seed, violations, world.injected, world.trace.sha256(), time.process_time() - began_s, world.loop.steps,
        world.loop.time(), world.told,
    )  # fmt: skip


def _made(scenario: Scenario) -> World:
    """All that is made lasts as long as the run: the garbage collector would look at it again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return World(scenario, faults_of(scenario))
    finally:
        if collecting:
            gc.enable()


def shrink(scenario: Scenario, result: Result, tries: int = TRIES) -> tuple[Fault, ...]:
    """The smallest part of its faults with which the first violation's rule is still broken."""
    rule = result.violations[0].rule

    def fails(faults: tuple[Fault, ...]) -> bool:
        again = simulate(replace(scenario, fault_list=faults))
        return any(violation.rule == rule for violation in again.violations)

    return smallest(faults_of(scenario), fails, tries)
