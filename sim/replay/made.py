"""Loads made from a seed: units a second, one value a second, with the abruptness that per-minute records have lost.

Rules: the same name, seed and length give the same load. Times of change are drawn by the second, so they meet no autoscaler's
rhythm. Every second has noise like that of independent callers, and a slower wander.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, pi, sin, sqrt
from random import Random
from typing import Final

from sim.chance import Chance
from sim.replay.service import DAY_S

MEAN: Final = 1_000.0


def load(name: str, seed: int, seconds: int = DAY_S) -> list[float]:
    """One of KINDS, about `MEAN` units a second."""
    random = Chance(seed).stream(f"load/{name}")
    return _noisy(random, KINDS[name](random, seconds))


def _days(random: Random, seconds: int) -> list[float]:
    """Nights at a third, evenings at the top."""
    phase = random.uniform(0, DAY_S)
    return [MEAN * (1 + 0.5 * sin(2 * pi * (second + phase) / DAY_S)) for second in range(seconds)]


def _steps(random: Random, seconds: int) -> list[float]:
    """Another level every ten minutes or so, at once."""
    level, until, found = MEAN, 0.0, []
    for second in range(seconds):
        if second >= until:
            level, until = MEAN * random.uniform(0.3, 2.0), second + random.expovariate(1 / 600)
        found.append(level)
    return found


def _spikes(random: Random, seconds: int) -> list[float]:
    """About two an hour on top of the day: half to twice the mean more."""
    return _spiked(random, seconds, 0.5, 2.0)


def _surges(random: Random, seconds: int) -> list[float]:
    """The same, but up to five times the mean."""
    return _spiked(random, seconds, 1.0, 4.0)


def _spiked(random: Random, seconds: int, lowest: float, highest: float) -> list[float]:
    """Up within 20 s, away again within minutes; heights in means."""
    found = _days(random, seconds)
    at = random.expovariate(1 / 1800)
    while at < seconds:
        height, rise_s, fade_s = MEAN * random.uniform(lowest, highest), random.uniform(1, 20), random.uniform(30, 300)
        for second in range(int(at) + 1, min(seconds, int(at + 6 * fade_s))):
            past = second - at
            found[second] += height * min(1.0, past / rise_s) * exp(-max(0.0, past - rise_s) / fade_s)
        at += random.expovariate(1 / 1800)
    return found


def _batches(random: Random, seconds: int) -> list[float]:
    """A steady load, and jobs that more than double it for minutes, every quarter of an hour with some delay."""
    found = [MEAN * 0.7] * seconds
    for begin in range(0, seconds, 900):
        first = begin + int(random.uniform(0, 120))
        for second in range(first, min(seconds, first + int(random.uniform(60, 400)))):
            found[second] += MEAN
    return found


def _mixed(random: Random, seconds: int) -> list[float]:
    """A third of each."""
    parts = [make(random, seconds) for make in (_days, _steps, _spikes)]
    return [sum(values) / 3 for values in zip(*parts, strict=True)]


def _noisy(random: Random, levels: list[float]) -> list[float]:
    """A wander of some per cent over half a minute, and callers that come independently of each other."""
    wander, found = 0.0, []
    gauss = random.gauss
    for level in levels:
        wander = 0.97 * wander + gauss(0, 0.012)
        mean = level * exp(wander)
        found.append(max(0.0, mean + gauss(0, 1) * sqrt(mean)))
    return found


KINDS: Final[Mapping[str, Callable[[Random, int], list[float]]]] = {
    "days": _days, "steps": _steps, "spikes": _spikes, "mixed": _mixed, "surges": _surges, "batches": _batches,
}  # fmt: skip
USUAL: Final = ("days", "steps", "spikes", "mixed")
"""As bursty as public records by the second; the others are more so."""
