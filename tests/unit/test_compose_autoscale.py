"""`x-autoscale` and `x-metrics`: what they become, and that every fault is one line with file, line and field."""

from dataclasses import replace
from typing import Any

import pytest

from model.autoscale import (
    Autoscale,
    MetricsPort,
    ScaleIn,
    ScaleOut,
    ScalingFallback,
    ScalingMetric,
    ScalingSchedule,
)
from model.compose import validate_resolved
from model.compose.convert import to_stack
from model.spec import ContainerSpec, Resources, ServiceSpec
from model.spec_check import service_problems
from tests.compose_files import faults, ids, load

FULL = """
services:
  web:
    image: x
    x-metrics: {port: 9000}
    deploy: {resources: {reservations: {cpus: "0.5"}, limits: {memory: 64M}}}
    x-autoscale:
      min: ${MIN:-2}
      max: 20
      metrics:
        - cpu: 60%
        - memory: {target: 0.8}
        - connections: 50/s
        - inflight: 10
        - bytes: 60M/m
        - prometheus: {query: "sum(rate(x[30s]))", target: 100, url: "http://prometheus:9090/base"}
        - scrape: {metric: jobs_waiting, target: 3}
      scale_out: {step: 50%, at_least: 2, every: 5s, tolerance: 0.1}
      scale_in: {window: 1m, step: 0.5, every: 10s, tolerance: 20%, to_zero_after: 90s}
      fallback: {after: 5, replicas: 4, behavior: static}
      schedules: [{cron: "0 8 * * 1-5", time_zone: Europe/Lisbon, for: 10h, min: 4}]
      mode: on
      activation: 120/m
"""
POLICY = Autoscale(
    2,
    20,
    (
        ScalingMetric("cpu", 0.6),
        ScalingMetric("memory", 0.8),
        ScalingMetric("connections", 50.0),
        ScalingMetric("inflight", 10.0),
        ScalingMetric("bytes", float(1 << 20)),
        ScalingMetric("prometheus", 100.0, "sum(rate(x[30s]))", "http://prometheus:9090/base"),
        ScalingMetric("scrape", 3.0, "jobs_waiting"),
    ),
    ScaleOut(0.5, 2, 5.0, 0.1),
    ScaleIn(60.0, 0.5, 10.0, 0.2, 90.0),
    ScalingFallback(5, 4, "static"),
    (ScalingSchedule("0 8 * * 1-5", 36_000.0, "Europe/Lisbon", 4),),
    "on",
    2.0,
)


def read(text: str) -> ServiceSpec:
    project = load(text).project
    assert validate_resolved(project) == ()
    (service,) = to_stack(project, stack="s").services
    return service


def one(text: str) -> ServiceSpec:
    return read(f"services: {{web: {{image: x, {text}}}}}")


def test_every_key_is_read() -> None:
    service = read(FULL)
    assert service.autoscale == POLICY
    assert service.metrics == MetricsPort(9000, "/metrics")
    assert service.extensions == ()


def test_what_is_not_said_has_the_defaults() -> None:
    assert one("x-autoscale: {max: 5, metrics: [connections: 50]}").autoscale == Autoscale(
        1, 5, (ScalingMetric("connections", 50.0),), ScaleOut(1.0, 4, 15.0, 0.05), ScaleIn(300.0, 0.25, 60.0, 0.1, 300.0)
    )
    assert one("ports: ['80']").autoscale is None


@pytest.mark.parametrize(
    ("word", "mode"), [("on", "on"), ("off", "off"), ("true", "on"), ("'off'", "off"), ("recommend", "recommend")]
)
def test_modes_also_as_yaml_takes_them(word: str, mode: str) -> None:
    policy = one(f"x-autoscale: {{max: 5, metrics: [inflight: 3], mode: {word}}}").autoscale
    assert policy is not None
    assert policy.mode == mode


LABELS = {
    "shoal.autoscale.min": "2",
    "shoal.autoscale.max": "7",
    "shoal.autoscale.cpu": "60%",
    "shoal.autoscale.prometheus.query": "up",
    "shoal.autoscale.prometheus.target": "3",
    "shoal.autoscale.metrics.0.inflight": "4",
    "shoal.autoscale.scale_in.window": "20s",
    "shoal.autoscale.schedules.0.cron": "0 8 * * *",
    "shoal.autoscale.schedules.0.for": "1h",
    "shoal.autoscale.schedules.0.max": "9",
}


@pytest.mark.parametrize("below", ["labels: {{{0}}}", "deploy: {{labels: {{{0}}}, resources: {{limits: {{cpus: '1'}}}}}}"])
def test_labels_mean_the_same(below: str) -> None:
    pairs = ", ".join(f"{name}: '{value}'" for name, value in LABELS.items())
    text = below.format(pairs)
    service = one(text if "resources" in text else f"{text}, cpus: 1")
    metrics = (ScalingMetric("inflight", 4.0), ScalingMetric("cpu", 0.6), ScalingMetric("prometheus", 3.0, "up"))
    schedule = ScalingSchedule("0 8 * * *", 3600.0, "UTC", None, 9)
    assert service.autoscale == Autoscale(2, 7, metrics, scale_in=ScaleIn(20.0), schedules=(schedule,))


@pytest.mark.parametrize(
    ("numbers", "wrong", "expected"),
    [(("3",), "3", 0), (("0", "2"), "2", 1), (("0", "01"), "01", 1), (("1", "0", "9" * 30), "9" * 30, 2)],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("place", ["labels", "deploy.labels"], ids=str)
def test_a_gap_in_numbered_labels_is_told(numbers: tuple[str, ...], wrong: str, expected: int, place: str) -> None:
    lines = ["shoal.autoscale.max: '9'", "shoal.autoscale.inflight: '3'"]
    for number in numbers:
        lines += [f"shoal.autoscale.schedules.{number}.{text}" for text in ("cron: '0 8 * * *'", "for: 1h", "min: '2'")]
    labels = "labels: {\n" + ",\n".join(lines) + "}"
    (line,) = faults(f"services: {{web: {{image: x, {f'deploy: {{{labels}}}' if '.' in place else labels}}}}}")
    assert line.startswith(f"/p/compose.yaml:{4 + 3 * numbers.index(wrong)}:")
    said = f"found number {wrong} where {expected} comes next: number the entries 0, 1, 2 without a gap"
    assert line.endswith(f": services.web.{place}.shoal.autoscale.schedules.{wrong}: {said}")


def test_a_policy_in_labels_changes_no_container() -> None:
    service = one("labels: {a: b, shoal.autoscale.max: 5, shoal.autoscale.inflight: 3}")
    assert service.container == one("labels: {a: b}").container


BAD = [
    ("", ".x-autoscale: is empty: say max and metrics, such as {max: 5, metrics: [connections: 50/s]}, or leave it out"),
    ("min: 1", "has no 'max', which is needed"),
    ("max: 3, min: 4, metrics: [inflight: 3]", ".max: found 3, but min says 4"),
    ("max: 0, metrics: [inflight: 3]", ".max: found 0, expected 1 to 1,000,000"),
    ("max: 3, min: -1, metrics: [inflight: 3]", ".min: found the number -1, expected a whole number of at least 0"),
    ("max: 3, metric: [inflight: 3]", ".metric: unknown field 'metric' (did you mean 'metrics'?)"),
    ("max: 3", ".metrics: found nothing, expected a metric such as cpu: 60%, or schedules"),
    ("max: 3, metrics: {inflight: 3}", ".metrics: found a mapping, expected a list"),
    ("max: 3, metrics: [inflight: 3, inflight: 4]", ".metrics[1]: inflight is named twice"),
    ("max: 3, metrics: [{inflight: 3, bytes: 4}]", ".metrics[0]: found a mapping, expected one of cpu, memory"),
    ("max: 3, metrics: [cpu: 60%]", ".metrics[0].cpu: is a share of what a replica reserves, or else may use at most, "
     "and this service says neither: say deploy.resources.reservations.cpus, or limits"),
    ("max: 3, metrics: [memory: 60%]", ".metrics[0].memory: is a share of what a replica reserves"),
    ("max: 3, metrics: [qps: 5]", ".qps: unknown field 'qps': expected one of cpu, memory, connections"),
    ("max: 3, metrics: [cpu: ]", ".metrics[0].cpu: has no value, such as 60%"),
    ("max: 3, metrics: [connections: ]", ".metrics[0].connections: has no value, such as 50/s"),
    ("max: 3, metrics: [prometheus: ]", ".metrics[0].prometheus: has no value, such as {query: "),
    ("max: 3, metrics: [cpu: 60]", ".metrics[0].cpu: found the number 60, expected a share of at most 1000%"),
    ("max: 3, metrics: [cpu: much]", ".metrics[0].cpu: found 'much', expected a share such as 60%"),
    ("max: 3, metrics: [connections: 50/h]", ".metrics[0].connections: found '50/h', expected a number per second"),
    ("max: 3, metrics: [bytes: 5X/s]", ".metrics[0].bytes: found '5X/s', expected a size per second such as 10M/s"),
    ("max: 3, metrics: [inflight: 0]", ".metrics[0].inflight: found 0, expected a target above 0"),
    ("max: 3, metrics: [prometheus: {target: 3}]", ".metrics[0].prometheus: has no 'query', which is needed"),
    ("max: 3, metrics: [prometheus: up]", ".metrics[0].prometheus: found 'up', expected a mapping with 'query' and 'target'"),
    ("max: 3, metrics: [prometheus: {query: ' ', target: 3}]", ".metrics[0].prometheus.query: expected PromQL"),
    ("max: 3, metrics: [prometheus: {query: up, target: 3, url: 'file:///etc/passwd'}]", ".metrics[0].prometheus.url: found "),
    ("max: 3, metrics: [prometheus: {query: up, target: 3, url: 'http://a:b@c'}]", ".url: found a name or password in it"),
    ("max: 3, metrics: [prometheus: {query: up, target: 3, url: 'http://c:99999'}]", ".url: found 'http://c:99999', expected"),
    ("max: 3, metrics: [scrape: {metric: jobs, target: 3}]", ".metrics[0].scrape: is read from the replicas, and x-metrics"),
    ("max: 3, metrics: [inflight: 3], mode: maybe", ".mode: found 'maybe', expected one of on, recommend, off"),
    ("max: 3, metrics: [inflight: 3], scale_in: {window: 3}", ".scale_in.window: found the number 3, expected a duration"),
    ("max: 3, metrics: [inflight: 3], scale_in: {window: 30d}", ".scale_in.window: found 2,592,000 s, expected 0 to 86,400 s"),
    ("max: 3, metrics: [inflight: 3], scale_in: {step: 200%}", ".scale_in.step: found 2, expected 0.001 to 1"),
    ("max: 3, metrics: [inflight: 3], scale_out: {step: 0%, at_least: 0}", ".scale_out: step and at_least are both 0"),
    ("max: 3, metrics: [inflight: 3], scale_out: {every: 0s}", ".scale_out.every: found 0 s, expected 0.1 to 86,400 s"),
    ("max: 3, metrics: [inflight: 3], scale_out: {tolerance: 1}", ".scale_out.tolerance: found 1, expected 0 to 0.99"),
    ("max: 3, metrics: [inflight: 3], fallback: {behavior: static}", ".fallback.replicas: found 0, but behavior static"),
    ("max: 3, metrics: [inflight: 3], fallback: {replicas: 4}", ".fallback.replicas: found 4, but max says 3"),
    ("max: 3, metrics: [inflight: 3], fallback: {after: 0, replicas: 1}", ".fallback.after: found 0, expected 1 to 10,000"),
    ("max: 3, schedules: [{cron: '0 8 * *', for: 1h, min: 2}]", ".schedules[0].cron: cron '0 8 * *': expected five fields"),
    ("max: 3, schedules: [{cron: '0 8 31 2 *', for: 1h, min: 2}]", "no month that it names has a day 31: it would never begin"),
    ("max: 3, schedules: [{cron: '0 8 * * *', min: 2}]", ".schedules[0]: has no 'for', which is needed"),
    ("max: 3, schedules: [{cron: '0 8 * * *', for: 1h}]", ".schedules[0]: says neither min nor max"),
    ("max: 3, schedules: [{cron: '0 8 * * *', for: 1h, min: 4}]", ".schedules[0].min: found 4, but max says 3"),
    ("max: 3, min: 2, schedules: [{cron: '0 8 * * *', for: 1h, max: 1}]", ".schedules[0].max: found 1, but min says 2"),
    ("max: 3, schedules: [{cron: '0 8 * * *', for: 1h, min: 2, time_zone: Mars}]", ".schedules[0].time_zone: time zone 'Mars'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD, ids=lambda value: value[:60])
def test_a_fault_is_one_line_with_file_line_and_field(text: str, said: str) -> None:
    (line,) = faults(f"services:\n  web:\n    image: x\n    x-autoscale:\n      {{{text}}}\n")
    assert line.startswith("/p/compose.yaml:5:")
    assert ": services.web.x-autoscale" in line
    assert said in line


@pytest.mark.parametrize("empty", ["", " null", " ~"])
def test_what_says_nothing_is_a_fault(empty: str) -> None:
    (line,) = faults(f"services:\n  web:\n    image: x\n    x-autoscale:{empty}\n")
    assert line.startswith("/p/compose.yaml:4:")
    assert ": services.web.x-autoscale: is empty: say max and metrics, such as {max: 5, metrics: [connections: 50/s]}" in line
    (line,) = faults(f"services:\n  web:\n    image: x\n    x-metrics:{empty}\n")
    assert ": services.web.x-metrics: is empty: say where replicas tell metrics, such as {port: 9000}, or leave it out" in line


def test_a_later_file_that_says_nothing_leaves_the_policy_and_may_take_it_away() -> None:
    (service,) = to_stack(load(FULL, "services: {web: {x-autoscale: }}").project, stack="s").services
    assert service.autoscale == POLICY
    (service,) = to_stack(load(FULL, "services: {web: {x-autoscale: !reset null}}").project, stack="s").services
    assert service.autoscale is None


def test_it_is_only_for_replicated_services_and_stands_in_one_place() -> None:
    policy = "x-autoscale: {max: 5, metrics: [inflight: 3]}"
    for mode in ("global", "replicated-job", "global-job"):
        (line,) = faults(f"services: {{web: {{image: x, deploy: {{mode: {mode}}}, {policy}}}}}")
        assert (
            f"services.web.x-autoscale: only a replicated service can be scaled, and this one is {mode}: leave it out" in line
        )
    (line,) = faults(f"services: {{web: {{image: x, labels: {{shoal.autoscale.max: 5}}, {policy}}}}}")
    assert "the policy stands in services.web.x-autoscale already: write it in one place" in line
    (line,) = faults(f"services: {{web: {{image: x, deploy: {{{policy}}}}}}}")
    assert "services.web.deploy.x-autoscale: stands on the service itself" in line
    (line,) = faults("services:\n web:\n  image: x\n  labels:\n   a: b\n   shoal.autoscale.maxi: 5\n   shoal.autoscale.max: 5")
    assert "/p/compose.yaml:6:" in line
    assert "services.web.labels.shoal.autoscale.maxi: unknown field 'maxi' (did you mean 'max'?)" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", ".x-metrics: is empty: say where replicas tell metrics, such as {port: 9000}, or leave it out"),
        ("{path: /x}", "has no 'port', which is needed"),
        ("{port: 0}", ".port: found 0, expected a port from 1 to 65535"),
        ("{port: 80, path: x}", ".path: found 'x', expected a path that begins with /"),
        ("80", "found the number 80, expected a mapping with 'port'"),
        ("{port: 80, paths: /x}", ".paths: unknown field 'paths' (did you mean 'path'?)"),
    ],
)
def test_where_replicas_expose_metrics(text: str, said: str) -> None:
    (line,) = faults(f"services: {{web: {{image: x, x-metrics: {text}}}}}")
    assert "services.web.x-metrics" in line
    assert said in line


def test_a_second_file_may_change_the_policy() -> None:
    over = "services: {web: {x-autoscale: {max: 30, metrics: !override [inflight: 3]}}}"
    loaded = load(FULL, over)
    (service,) = to_stack(loaded.project, stack="s").services
    assert service.autoscale == replace(POLICY, max=30, metrics=(ScalingMetric("inflight", 3.0),))
    assert ids(loaded) == []
    (service,) = to_stack(load(FULL, "services: {web: {x-autoscale: {metrics: [inflight: 30]}}}").project, stack="s").services
    assert service.autoscale is not None
    assert [metric.target for metric in service.autoscale.metrics if metric.kind == "inflight"] == [30.0]
    assert len(service.autoscale.metrics) == len(POLICY.metrics)


def spec(policy: Autoscale, **more: Any) -> ServiceSpec:
    return ServiceSpec("web", ContainerSpec("x", limits=Resources(1.0, 1 << 20)), autoscale=policy, **more)


def test_a_record_from_a_program_is_held_to_the_same() -> None:
    fine = Autoscale(0, 5, (ScalingMetric("cpu", 0.6), ScalingMetric("inflight", 3.0)))
    assert service_problems(spec(fine)) == []
    bad = [
        (spec(replace(fine, max=0, min=0)), "service web: autoscale.max: found 0, expected 1 to 1,000,000"),
        (spec(replace(fine, metrics=(ScalingMetric("inflight", float("nan")),))), "autoscale.metrics[0].inflight: found nan"),
        (spec(replace(fine, metrics=(ScalingMetric("cpu", 0.6, "up"),))), "autoscale.metrics[0].cpu: takes no query"),
        (spec(replace(fine, activation=float("inf"))), "autoscale.activation: found inf, expected 0 or more"),
        (spec(fine, mode="global"), "only a replicated service can be scaled, and this one is global"),
        (spec(fine, single=True), "only a replicated service can be scaled, and this one is single container"),
        (spec(fine, metrics=MetricsPort(70_000)), "service web: metrics.port: found 70000, expected a port"),
    ]
    for record, said in bad:
        (line,) = service_problems(record)
        assert said in line
