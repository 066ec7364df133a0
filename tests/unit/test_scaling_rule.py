"""The autoscaler's rule, case by case: one service, its metrics, its clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.scaling import words
from controller.decide.scaling.rule import HISTORY_MAX, decide
from controller.decide.scaling.types import ScaleStep, Series
from model.autoscale import ScaleIn, ScaleOut, ScalingFallback, ScalingMetric
from model.codec import encode
from model.documents import ScaleDoc, ScaleOrderDoc
from tests.scenarios.model_service import CONNECTIONS, NOW, Service

CPU = ScalingMetric("cpu", 0.6)


def steady(scale: int, *metrics: ScalingMetric, connections: float = 190, **policy: Any) -> Service:
    """One that has run for ten minutes under what it should bear."""
    return Service(scale, *metrics, **policy).load(600, connections=connections)


def test_a_steady_service_writes_once_and_never_again() -> None:
    service = steady(4)
    assert (service.scale, service.written) == (4, 1)


def test_the_largest_wish_wins_and_the_sentence_has_its_inputs() -> None:
    service = Service(4, CPU, CONNECTIONS).load(120, cpu=2.3, connections=190).load(70, cpu=2.3, connections=338)
    assert service.scale == 7
    said = service.kept.history[-1]
    assert said.sentence == "6 -> 7 replicas: connections 338/s of 50/s a replica over 10 s want 7"
    assert [row.metric for row in said.readings] == ["cpu", "connections"]
    assert service.step.sentence == "7 replicas: connections 338/s of 50/s a replica want 7"


def test_a_burst_of_ten_seconds_is_enough_to_scale_out() -> None:
    service = steady(4).load(10, connections=800)
    assert service.scale == 8
    assert service.load(20, connections=800).scale == 16


@pytest.mark.parametrize("connections", [265, 300, 400, 1500])
def test_a_step_in_load_that_was_followed_does_not_look_like_too_much_to_a_short_window(connections: float) -> None:
    service = steady(4, scale_in=ScaleIn(window_s=5, every_s=1))
    service.load(600, connections=connections)
    counts = [row.wanted for row in service.kept.history]
    assert counts == sorted(counts)
    assert service.scale == connections // 50 + (connections % 50 > 0)
    service.load(120, connections=190)
    assert service.scale == 4


def test_no_more_than_the_step_in_its_time() -> None:
    service = steady(4).load(5, connections=5000)
    assert service.scale == 8
    assert "at most +4 in 15 s" in service.step.sentence
    service.load(10, connections=5000)
    assert service.scale == 8
    service.load(5, connections=5000)
    assert service.scale == 16
    assert "at most +8 in 15 s" in service.step.sentence


def test_replicas_that_start_are_not_ordered_twice() -> None:
    service = steady(4)
    service.follows = False
    service.load(60, connections=338)
    assert (service.scale, service.ready, service.starting) == (7, 4, 3)
    assert len(service.kept.history) == 2


def test_within_tolerance_nothing_changes() -> None:
    assert steady(20, connections=1000).load(120, connections=1040).scale == 20
    assert steady(20, connections=1000).load(900, connections=910).scale == 20
    assert steady(20, connections=1000).load(900, connections=890).scale == 18


def test_in_only_to_the_largest_of_the_window_and_by_a_quarter_a_minute() -> None:
    service = steady(20, connections=1000).load(295, connections=100)
    assert service.scale == 20
    assert "fewer only when this lasts for 300 s" in service.step.sentence
    seen = []
    for _ in range(8):
        service.load(60, connections=100)
        seen.append(service.scale)
    assert seen == [15, 12, 9, 7, 6, 5, 4, 3]


def test_a_peak_within_the_window_holds_all_of_it() -> None:
    service = steady(20, connections=1000).load(200, connections=100).load(60, connections=1000).load(290, connections=100)
    assert service.scale == 20
    assert service.load(120, connections=100).scale < 20


@pytest.mark.parametrize("bad", [None, -1.0, float("nan"), float("inf"), 1e300])
def test_a_metric_without_a_proper_value_never_scales_in(bad: float | None) -> None:
    service = steady(20, connections=1000).load(1200, connections=bad)
    assert service.scale == 20
    assert "no fewer while connections are not known: no sample in 60 s" in service.step.sentence
    assert service.kept.failing


def test_one_missing_metric_holds_what_the_other_would_let_go_but_not_what_it_wants_more() -> None:
    service = Service(10, CPU, CONNECTIONS).load(600, cpu=6.0, connections=500)
    service.load(900, connections=100)
    assert service.scale == 10
    assert "no fewer while cpu is not known: no sample in 60 s" in service.step.sentence
    service.load(60, connections=900)
    assert service.scale == 18


def test_what_was_not_known_within_the_window_was_as_it_is_now() -> None:
    service = steady(20, connections=1000).load(200, connections=100).load(200, connections=None).load(300, connections=100)
    assert service.scale == 20
    assert service.load(400, connections=100).scale < 20


def test_a_problem_of_the_sensor_is_told_and_blocks_at_once() -> None:
    service = steady(20, connections=1000).load(290, connections=100)
    service.problems["connections"] = "prometheus answers 503"
    service.load(400, connections=100)
    assert service.scale == 20
    assert service.step.sentence.endswith("no fewer while connections are not known: prometheus answers 503")


def test_the_first_minute_of_a_service_is_told_in_plain_words() -> None:
    service = Service(2, CPU, ScalingMetric("memory", 0.8), min=1)
    service.ready, service.starting, service.follows = 0, 2, False
    service.problems |= {"cpu": "no replica has told its cpu yet", "memory": "no replica has told its memory yet"}
    service.rows |= {"cpu": [], "memory": []}
    service.decide()
    assert service.step.sentence == "2 replicas: no fewer while cpu and memory are not known: no replica is ready"
    service.ready, service.starting = 2, 0
    service.problems.clear()
    service.load(5, cpu=0.02, memory=0.2)
    assert service.step.sentence == "2 replicas: cpu 2% of 60% a replica wants 1; fewer only when this lasts for 300 s"


def test_what_is_not_known_of_a_sleeping_service_is_told_and_holds_nothing() -> None:
    service = Service(0, CONNECTIONS, min=0)
    service.rows["connections"], service.problems["connections"] = [], "no node has sent measurements yet"
    said = "0 replicas: asleep until the first caller; connections are not known: no node has sent measurements yet"
    assert service.decide().sentence == said


def test_a_sensor_that_comes_and_goes_is_told_of_once_a_minute() -> None:
    service = steady(20, connections=1000)
    told = set()
    for turn in range(120):
        service.problems["connections"] = "prometheus answers 503" if turn % 2 else ""
        service.load(5, connections=1000)
        told.add(service.kept.last)
    assert 5 <= len(told) <= 11
    assert service.kept.history == ()


def test_replicas_that_do_not_speak_are_idle_on_the_way_up_and_busy_on_the_way_down() -> None:
    service = Service(10, CPU).load(400, cpu=6.0)
    service.rows["cpu"].clear()
    for second in range(-300, 1):  # five of ten speak, each at half of what it should bear
        service.rows["cpu"].append((service.now_ms + second * 1000, 1.5, 5))
    assert service.decide().scale == 10
    assert service.kept.recommended[-1][1] == 8  # 5 x 0.3 and 5 x 0.6 of 0.6
    service.rows["cpu"][:] = [(at, 5 * 0.7, 5) for at, _, _ in service.rows["cpu"]]  # more than they should, but not in all
    assert service.decide().scale == 10


def test_fallback_after_so_many_failures() -> None:
    higher = ScalingFallback(3, 6, "higher")
    service = steady(4, fallback=higher).load(80, connections=None)
    assert service.scale == 6
    assert service.kept.history[-1].sentence == "4 -> 6 replicas: connections are not known: the fallback is 6"
    assert service.load(600, connections=None).scale == 6
    assert steady(8, connections=390, fallback=higher).load(600, connections=None).scale == 8
    assert steady(8, connections=390, fallback=ScalingFallback(3, 6, "current")).load(600, connections=None).scale == 8
    static = steady(8, connections=390, fallback=ScalingFallback(3, 6, "static"))
    assert static.load(300, connections=None).scale == 8
    assert static.load(300, connections=None).scale == 6


def test_bounds_hold_at_once_whatever_is_known() -> None:
    service = Service(2, min=5)
    assert service.decide().scale == 5
    assert service.step.sentence.startswith("2 -> 5 replicas: at least 5 by the policy")
    service = steady(4, max=6).load(120, connections=5000)
    assert service.scale == 6
    assert "at most 6 are allowed" in service.step.sentence
    assert Service(50, max=20).decide().scale == 20


def test_pauses_hold_their_direction_only() -> None:
    service = steady(4)
    service.order = ScaleOrderDoc("id", "web", paused="out")
    service.load(60, connections=900)
    assert service.scale == 4
    assert service.step.sentence.endswith("8 when it is no longer paused (out)")
    service.order = replace(service.order, paused="in")
    service.load(60, connections=900)
    assert service.scale == 18
    assert service.load(900, connections=50).scale == 18
    service.order = replace(service.order, paused="both")
    assert service.load(60, connections=5000).scale == 18


def test_a_floor_by_hand_holds_until_its_time() -> None:
    service = Service(4)
    service.order = ScaleOrderDoc("id", "web", floor=10, floor_until_ms=NOW + 900_000)
    service.load(5, connections=100)
    assert service.scale == 10
    assert "10 were set by hand" in service.step.sentence
    assert service.load(890, connections=100).scale == 10
    assert service.load(30, connections=100).scale == 8
    service.order = replace(service.order, floor=500, floor_until_ms=service.now_ms + 900_000)
    assert service.load(5, connections=100).scale == 100


def test_recommend_tells_and_does_nothing() -> None:
    service = steady(4, mode="recommend").load(60, connections=600)
    assert service.scale == 4
    assert service.kept.wanted == 8
    assert not any(row.acted for row in service.kept.history)
    assert service.step.sentence.endswith("only recommended")
    written = service.written
    service.load(300, connections=600)
    assert service.written == written


def test_off_remembers_nothing_of_what_was_wanted() -> None:
    service = steady(20, connections=1000).load(290, connections=100)
    service.policy = replace(service.policy, mode="off")
    service.load(1200, connections=1000)
    assert (service.scale, service.kept.recommended) == (20, ())
    service.policy = replace(service.policy, mode="on")
    assert service.load(240, connections=100).scale == 20


def test_to_zero_only_when_allowed_unused_and_long_enough() -> None:
    service = steady(1, connections=40, min=0)
    assert service.load(290, connections=0).scale == 1
    assert service.load(60, connections=0).scale == 0
    assert service.step.sentence == "0 replicas: asleep until the first caller"
    assert "unused for 300 s" in service.kept.history[-1].sentence
    assert steady(1, connections=40).load(1000, connections=0).scale == 1
    assert steady(1, connections=40, min=0).load(1000, connections=0.1).scale == 1
    assert steady(1, connections=40, min=0, activation=5.0).load(1000, connections=4.9).scale == 0
    assert steady(1, connections=40, min=0, activation=5.0).load(1000, connections=5.0).scale == 1


def test_a_silent_sensor_sends_nobody_to_sleep() -> None:
    service = steady(1, connections=40, min=0).load(200, connections=0).load(1000, connections=None)
    assert service.scale == 1


def test_asleep_nothing_is_written_and_callers_or_a_metric_wake_at_once() -> None:
    service = steady(1, connections=40, min=0).load(700, connections=0)
    written = service.written
    service.load(600, connections=0)
    assert (service.scale, service.written) == (0, written)
    service.waiting = 3
    assert service.decide().scale == 1
    assert service.step.sentence == "0 -> 1 replica: 3 callers waiting"
    service.waiting = 0
    assert service.load(120, connections=0).scale == 1, "it was just woken"
    asleep = steady(1, connections=40, min=0).load(700, connections=0)
    assert asleep.load(5, connections=120).scale >= 1
    paused = steady(1, connections=40, min=0).load(700, connections=0)
    paused.order = ScaleOrderDoc("id", "web", paused="out")
    paused.waiting = 1
    assert paused.decide().scale == 0


def test_cpu_beside_callers_does_not_keep_it_awake_but_work_does() -> None:
    service = Service(1, CPU, CONNECTIONS, min=0)
    service.load(300, cpu=0.02, connections=40).load(700, cpu=0.02, connections=0)
    assert service.scale == 0
    busy = Service(2, CPU, CONNECTIONS, min=0).load(300, cpu=1.1, connections=40).load(700, cpu=1.1, connections=0)
    assert busy.scale == 2


def test_a_new_leader_without_samples_waits_and_then_goes_on() -> None:
    service = steady(20, connections=1000).load(280, connections=100)
    service.rows["connections"].clear()
    assert service.load(25, connections=100).scale == 20
    assert service.load(5, connections=100).step.sentence.endswith("no fewer until connections are known for a minute")
    assert service.load(20, connections=100).scale == 15, "what the one before it remembered still counts"


@pytest.mark.parametrize("step_s", [1, 5, 20, 60])
def test_samples_that_come_seldom_are_known_too(step_s: int) -> None:
    """As those of thousands of nodes do; what stops coming is missed after three of them."""
    facts = Service(10).facts()
    rows = tuple((NOW + at * 1000, 100.0, None) for at in range(-900, 1, step_s))

    def said(age_s: int, document: ScaleDoc | None = None) -> ScaleStep:
        series = {"connections": Series(rows[-180 // step_s - 1 :], "", step_s * 1000)}
        return decide(replace(facts, series=series, document=document), NOW + age_s * 1000)

    remembered = ScaleDoc("id", "web", 10, ((NOW - 900_000, 2),))
    assert said(step_s, remembered).scale == 8
    assert said(max(31, 3 * step_s + 1), remembered).scale == 10


def test_the_history_is_bounded_and_the_document_small() -> None:
    service = steady(4, scale_in=ScaleIn(window_s=10, every_s=5), scale_out=ScaleOut(every_s=5))
    for _ in range(30):
        service.load(60, connections=900).load(90, connections=100)
    assert len(service.kept.history) == HISTORY_MAX
    assert len(encode(service.kept)) < 16_000


def test_a_load_that_swings_writes_a_few_times_a_minute() -> None:
    service = steady(20, connections=1000)
    before = service.written
    for _ in range(60):
        service.load(30, connections=1000).load(30, connections=600)
    assert service.written - before <= 4 * 60


def test_without_metrics_the_minimum_holds() -> None:
    service = Service(5, min=2)
    service.policy = replace(service.policy, metrics=())
    assert service.load(295).scale == 5
    assert service.load(600).scale == 2


def test_a_count_that_somebody_else_changed_is_where_it_goes_on() -> None:
    service = steady(4)
    service.scale = service.ready = 12
    assert service.load(5, connections=190).scale == 9
    assert service.kept.wanted == 9


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("cpu", 0.003641, "0.36%"),
        ("connections", 0.04993, "0.05/s"),
        ("connections", 12.345, "12.3/s"),
        ("bytes", 2.5e6, "2.5 MB/s"),
    ],
)
def test_a_number_has_no_more_digits_than_count(kind: str, value: float, said: str) -> None:
    assert words.amount(kind, value) == said
