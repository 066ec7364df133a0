"""What must hold of the autoscaler's rule under whatever its sensors say: 10,000 loads with gaps, late rows and nonsense.

A scale-in is wrong when the true demand needed more: in some minute that ended within the last window every second of it needed
more replicas than are left, and the sensor had said anything at all of that minute. It is also wrong while a sensor is silent.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest

from controller.decide.scaling.rule import HISTORY_MAX, decide
from controller.decide.scaling.types import ScaleFacts, ScaleStep, Series
from model.autoscale import Autoscale, MetricKind, ScaleIn, ScaleOut, ScalingFallback, ScalingMetric
from model.codec import decode, encode
from model.documents import ScaleDoc, ScaleOrderDoc

TRACES = 10_000
PARTS = 10
SECONDS = 200
START_MS = 1_700_000_000_000
MINUTE_S = 60
SILENT_S = 30
NONSENSE = (-1.0, -1e12, float("nan"), float("inf"), float("-inf"), 1e300)
KINDS: tuple[MetricKind, ...] = ("connections", "inflight", "bytes", "prometheus", "cpu", "memory", "scrape")
Row = tuple[int, float, int | None]


@dataclass
class Sensor:
    """`true`: the demand of each second; `sent`: (second it is heard, row), by the row's time."""

    metric: ScalingMetric
    true: list[float]
    sent: list[tuple[int, Row]]

    def heard(self, second: int, since: int) -> tuple[Row, ...]:
        low = bisect_right(self.sent, START_MS + since * 1000, key=_row_ms)
        high = bisect_right(self.sent, START_MS + second * 1000, key=_row_ms)
        return tuple(row for at, row in self.sent[low:high] if at <= second)


def _row_ms(entry: tuple[int, Row]) -> int:
    return entry[1][0]


def silent_s(second: int, rows: Sequence[Row]) -> int:
    """For how long there was nothing of use."""
    newest = next((at for at, value, _ in reversed(rows) if 0 <= value <= 1e15), START_MS)
    return second - (newest - START_MS) // 1000


@dataclass
class Trace:
    """One service and what happened to it. `scales`: the count after each second of a decision."""

    seed: int
    policy: Autoscale
    sensors: list[Sensor]
    scale: int
    order: ScaleOrderDoc | None
    random: Random
    ready: int = 0
    began: int = -10_000
    document: ScaleDoc | None = None
    scales: list[tuple[int, int]] = field(default_factory=list)
    heard: dict[tuple[str, int], bool] = field(default_factory=dict)


def made(seed: int) -> Trace:
    random = Random(seed)
    fallback = random.choice([None, None, ScalingFallback(random.randint(1, 5), random.randint(0, 12), "higher")])
    low = random.choice([0, 1, 1, 2, 5])
    metrics = [
        ScalingMetric(kind, random.choice([0.6, 5.0, 50.0]), "q" if kind in ("prometheus", "scrape") else "")
        for kind in random.sample(KINDS, random.choice([1, 1, 2, 3]))
    ]
    policy = Autoscale(
        low, low + random.choice([0, 3, 20, 200]), tuple(metrics),
        ScaleOut(random.choice([0.5, 1.0]), random.choice([0, 2, 4]), random.choice([5, 15, 30])),
        ScaleIn(random.choice([10, 30, 60, 90]), random.choice([0.1, 0.25, 1.0]), random.choice([5, 15, 60]), 0.1,
                random.choice([10, 60])),
        fallback, (), "on", random.choice([0.0, 0.0, 2.0]),
    )  # fmt: skip
    ordered = ScaleOrderDoc("id", "web", random.choice(["in", "out", "both", ""]), 4, START_MS + 99_000)
    order = random.choice([None, None, None, ordered])
    scale = random.randint(low, low + 20)
    return Trace(seed, policy, [sensor(random, metric) for metric in metrics], scale, order, random, ready=scale)


def sensor(random: Random, metric: ScalingMetric) -> Sensor:
    true: list[float] = []
    while len(true) < SECONDS:
        level = metric.target * random.choice([0.0, 0.01, 0.5, 1.0, 3.7, 9.0, 40.0]) * random.uniform(0.9, 1.1)
        true += [level] * random.choice([5, 20, 60, 90, 200])
    every, late, bad = random.choice([2, 5, 5, 10]), random.choice([0, 0, 2, 45]), random.choice([0.0, 0.0, 0.02, 0.5])
    gaps = [(begin, begin + random.randint(5, 120)) for begin in random.sample(range(SECONDS), random.choice([0, 0, 1, 3]))]
    sent = []
    for second in range(random.randrange(every) - 90, SECONDS, every):
        if any(begin <= second < end for begin, end in gaps):
            continue
        value = random.choice(NONSENSE) if random.random() < bad else true[max(0, second)]
        spoke = None if metric.kind in ("connections", "inflight", "bytes", "prometheus") else random.randint(-1, 30)
        sent.append((second + random.randint(0, late), (START_MS + second * 1000, value, spoke)))
    return Sensor(metric, true[:SECONDS], sent)


def facts_at(trace: Trace, second: int) -> ScaleFacts:
    series = {}
    for one in trace.sensors:
        rows = one.heard(second, max(trace.began, second - 90))
        trace.heard[one.metric.name, second] = silent_s(second, rows) < MINUTE_S
        series[one.metric.name] = Series(rows)
    return ScaleFacts(
        "id", "web", trace.policy, trace.scale, min(trace.ready, trace.scale), trace.scale - min(trace.ready, trace.scale), 0,
        series, trace.document, trace.order,
    )  # fmt: skip


def run(trace: Trace) -> None:
    for second in range(0, SECONDS, 5):
        if trace.random.random() < 0.01:
            trace.began = second  # a new leader, whose memory is empty
        facts = facts_at(trace, second)
        step = decide(facts, START_MS + second * 1000)
        if trace.random.random() < 0.03:
            same_again(facts, step, START_MS + second * 1000)
        within(trace, facts, step)
        if step.scale < facts.scale <= trace.policy.max:
            no_wrong_scale_in(trace, facts, step.scale, second)
        limited(trace, facts, step, second)
        trace.ready = trace.random.choice([trace.ready, facts.scale, step.scale])
        trace.scale, trace.document = step.scale, step.document
        trace.scales.append((second, step.scale))


def same_again(facts: ScaleFacts, step: ScaleStep, now_ms: int) -> None:
    """Twice is once, and whoever reads the document goes on with it as its writer would."""
    again = decide(replace(facts, document=step.document), now_ms)
    assert (again.scale, again.document) == (step.scale, step.document)
    assert again.document is step.document
    copy = decode(ScaleDoc, encode(facts.document)) if facts.document else None
    assert decide(replace(facts, document=copy), now_ms) == step
    assert decode(ScaleDoc, encode(step.document)) == step.document


def within(trace: Trace, facts: ScaleFacts, step: ScaleStep) -> None:
    assert len(step.document.history) <= HISTORY_MAX
    assert "\n" not in step.sentence
    paused = trace.order.paused if trace.order else ""
    if paused:
        assert paused == "in" or step.scale <= facts.scale
        assert paused == "out" or step.scale >= facts.scale
    else:
        assert trace.policy.min <= step.scale <= trace.policy.max


def no_wrong_scale_in(trace: Trace, facts: ScaleFacts, left: int, second: int) -> None:
    fallen = trace.policy.fallback is not None
    for one in trace.sensors:
        if one.metric.kind not in ("cpu", "memory", "scrape") or facts.scale:
            silent = silent_s(second, facts.series[one.metric.name].rows)
            assert silent <= SILENT_S or fallen, f"{one.metric.name} is silent for {silent} s"
        window_s = trace.policy.scale_in.window_s if left else trace.policy.scale_in.to_zero_after_s
        first = max(MINUTE_S, second - int(window_s) + 1)
        for end in range(first + -first % 5, second + 1, 5):
            if not trace.heard[one.metric.name, end]:
                continue
            lowest = min(one.true[end - MINUTE_S + 1 : end + 1])
            if left == 0 and (one.metric.kind in ("cpu", "memory") or lowest < trace.policy.activation):
                continue
            needed = math.ceil(lowest / (one.metric.target * 1.05) - 1e-6)
            assert left >= min(needed, trace.policy.max), f"{one.metric.name} needed {needed} at {end} s"


def limited(trace: Trace, facts: ScaleFacts, step: ScaleStep, second: int) -> None:
    """Steps are no larger than said, from wherever the count stood within their time."""
    out, into = trace.policy.scale_out, trace.policy.scale_in
    if step.scale > facts.scale >= trace.policy.min and not (trace.order and trace.order.floor):
        lowest = min([facts.scale, *before(trace, second - out.every_s)])
        assert step.scale <= lowest + max(1, out.at_least, int(out.step * lowest))
    if step.scale < facts.scale <= trace.policy.max:
        highest = max([facts.scale, *before(trace, second - into.every_s)])
        assert step.scale >= highest - max(1, int(into.step * highest))


def before(trace: Trace, since: float) -> list[int]:
    """The counts that stood at any time after `since`."""
    return [scale for (_, scale), (until, _) in pairwise(trace.scales) if until > since]


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_the_sensors_say(part: int) -> None:
    for seed in range(part, TRACES, PARTS):
        trace = made(seed)
        try:
            run(trace)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_traces_have_scale_ins_to_judge() -> None:
    """Else the sentence above would be empty."""
    ins = outs = 0
    for seed in range(200):
        trace = made(seed)
        run(trace)
        moves = [after - now for (_, now), (_, after) in pairwise(trace.scales)]
        ins, outs = ins + sum(move < 0 for move in moves), outs + sum(move > 0 for move in moves)
    assert ins > 150
    assert outs > 60
