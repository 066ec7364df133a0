"""The API's handlers about autoscaling, without a server: rows, the reasons, pauses, and the floor of a manual scale."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from controller.api import autoscale, history, services, stacks
from controller.api.context import Api
from controller.api.schemas import PauseBody, ScaleBody
from controller.decide.scaled import policy_lines
from controller.decide.scaling.readings import read
from controller.decide.scaling.types import ScaleFacts, Series
from model import codec
from model.autoscale import Autoscale, ScalingMetric, ScalingSchedule
from model.documents import MetricReading, ScaleDecision, ScaleDoc, key
from model.errors import BadInput, NotFound
from model.spec import ContainerSpec, ServiceSpec
from model.store_port import Put
from tests.unit.api_kit import call, controllers

POLICY = Autoscale(2, 20, (ScalingMetric("connections", 50.0), ScalingMetric("prometheus", 5.0, "up")))
EXPECTED_METRICS = ["connections ? of 50/s", "prometheus up ? of 5"]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with controllers(1) as (made,):
        await services.create_service(made, call(ServiceSpec("web", ContainerSpec("x"), autoscale=POLICY)))
        await services.create_service(made, call(ServiceSpec("plain", ContainerSpec("x"))))
        yield made


def order(api: Api) -> Any:
    return api.snapshot().of("scaleorders").get("web")


async def test_a_row_says_what_the_policy_is_and_knows(api: Api) -> None:
    (row,) = await autoscale.list_autoscaled(api, call())
    assert (row["service"], row["mode"], row["min"], row["max"], row["now"], row["wanted"]) == ("web", "on", 2, 20, 2, 2)
    assert [metric["text"] for metric in row["metrics"]] == EXPECTED_METRICS
    assert row["metrics"][0]["problem"] == "no node has sent measurements yet"
    assert row["metrics"][1]["problem"].startswith("no Prometheus is named")
    assert (row["paused"], row["floor"], row["last"]) == ("", 0, None)


async def test_reasons_and_history(api: Api) -> None:
    service = api.snapshot().of("services")["web"]
    readings = (MetricReading("connections", 300.0, 2, 6),)
    decision = ScaleDecision(api.now_ms() - 5000, 2, 6, "2 -> 6 replicas: connections 300/s of 50/s a replica want 6", readings)
    document = ScaleDoc(service.id, "web", 6, last=decision, history=(decision,))
    await api.commit([], [Put(key("scales", "web"), codec.encode(document))])
    found = await autoscale.get_autoscaled(api, call(name="web"))
    assert found["sentence"].startswith("web: 2 replicas: ")
    by = "connections (50/s a replica), prometheus up (5 a replica)"
    assert found["lines"][0] == f"scales itself from 2 to 20 replicas by {by}"
    assert found["lines"][1].startswith("last decision, 5 s ago: 2 -> 6 replicas")
    kept = replace(decision, wanted=2, sentence="2 replicas: no fewer while cpu is not known: no replica is ready")
    over, fails = replace(document, last=kept), replace(document, last=kept, failing=(("cpu", 1),))
    assert len(policy_lines(POLICY, over, None, api.now_ms())) == 1, "what went without saying is not told for ever"
    assert len(policy_lines(POLICY, fails, None, api.now_ms())) == 2
    assert found["history"][0]["metrics"] == [
        {"metric": "connections", "value": 300.0, "replicas": 2, "wanted": 6, "problem": ""}
    ]
    assert found["last"] == found["history"][0]
    assert found["policy"]["max"] == 20
    told = await services.explain(api, call(name="web"))
    assert told["lines"][0] == "2 replicas wanted by its autoscaler"
    assert told["lines"][1] == found["lines"][0]
    assert (await services.get_service(api, call(name="web")))["autoscaling"][0] == found["lines"][0]
    assert (await services.get_service(api, call(name="plain")))["autoscaling"] == []


async def test_what_only_was_recommended_or_said_of_another_policy_is_not_told_as_done(api: Api) -> None:
    service = api.snapshot().of("services")["web"]
    done = ScaleDecision(1000, 1, 2, "1 -> 2 replicas: inflight", (MetricReading("inflight", 30.0, 1, 2),))
    said = ScaleDecision(2000, 2, 5, "2 -> 5 replicas: inflight; only recommended", done.readings, acted=False)
    document = ScaleDoc(service.id, "web", 5, last=said, history=(done, said))
    await api.commit([], [Put(key("scales", "web"), codec.encode(document))])
    scaled = {row["name"]: row["decision"] for row in history.newest(api)["services"]}
    assert scaled == {"plain": None, "web": {"at_ms": 1000, "before": 1, "wanted": 2, "sentence": done.sentence}}
    lines = (await autoscale.get_autoscaled(api, call(name="web")))["lines"]
    assert " ago, of an earlier policy: 2 -> 5 replicas" in lines[1]
    off = replace(service, spec=replace(service.spec, autoscale=replace(POLICY, mode="off")))
    await api.commit([], [Put(key("services", "web"), codec.encode(off))])
    (row,) = await autoscale.list_autoscaled(api, call())
    assert (row["mode"], row["last"]) == ("off", None)


async def test_who_does_not_tell_a_metric_is_named_beside_it() -> None:
    metric, reason = ScalingMetric("scrape", 5.0, "jobs"), "n2: web.2: port 9100: Connection refused"
    policy, rows = Autoscale(1, 9, (metric,)), tuple((1_000_000 + at * 1000, 6.0, 2) for at in range(60))
    said = []
    for note, problem in (("", ""), (reason, ""), ("", reason)):
        series = {metric.name: Series(rows, problem=problem, note=note)}
        facts = ScaleFacts("id", "web", policy, 3, 3, series=series)
        (reading,) = read(facts, 1_060_000)
        said.append((autoscale._metric_line(reading, facts), autoscale._metric(reading, facts)["text"]))
    wish, text = "scrape jobs 6 of 5 a replica wants 3", "scrape jobs 2 of 5"
    assert said == [
        (f"{wish} (told by 2 of 3 replicas)", text),
        (f"{wish} (told by 2 of 3 replicas: {reason})", text),
        (f"{wish} ({reason})", f"{text} (not known now)"),
    ]


async def test_who_has_no_policy_is_told_so(api: Api) -> None:
    for handler in (autoscale.get_autoscaled, autoscale.pause, autoscale.resume):
        with pytest.raises(BadInput, match="service plain does not scale itself: give it x-autoscale"):
            await handler(api, call(PauseBody(), name="plain"))
        with pytest.raises(NotFound):
            await handler(api, call(PauseBody(), name="nobody"))


async def test_pauses_add_up_and_resume_leaves_nothing_behind(api: Api) -> None:
    assert (await autoscale.pause(api, call(PauseBody(direction="in"), name="web")))["paused"] == "in"
    assert (await autoscale.pause(api, call(PauseBody(direction="in"), name="web")))["paused"] == "in"
    assert (await autoscale.pause(api, call(PauseBody(direction="out"), name="web")))["paused"] == "both"
    (row,) = await autoscale.list_autoscaled(api, call())
    assert row["paused"] == "both"
    assert "paused: it keeps the count it has" in (await autoscale.get_autoscaled(api, call(name="web")))["lines"][1]
    assert (await autoscale.resume(api, call(name="web")))["paused"] == ""
    assert order(api) is None
    await autoscale.resume(api, call(name="web"))


async def test_a_manual_scale_sets_a_floor_for_a_while(api: Api) -> None:
    before_ms = api.now_ms()
    told = await services.scale(api, call(ScaleBody(replicas=7), name="web"))
    assert (told["before"], told["replicas"], told["floor"]) == (2, 7, 7)
    assert 599_000 <= order(api).floor_until_ms - before_ms <= 601_000
    (row,) = await autoscale.list_autoscaled(api, call())
    assert (row["min"], row["floor"], row["now"]) == (7, 7, 7)
    lines = (await autoscale.get_autoscaled(api, call(name="web")))["lines"]
    assert any(line.startswith("at least 7 for another ") and line.endswith("set by hand") for line in lines)
    await services.scale(api, call(ScaleBody(replicas=7, floor_s=60.0), name="web"))
    assert order(api).floor_until_ms - before_ms <= 62_000
    assert (await services.scale(api, call(ScaleBody(replicas=3, floor_s=0.0), name="web")))["floor"] == 0
    assert order(api) is None


async def test_a_manual_scale_tells_the_count_there_was_also_when_the_autoscaler_is_quicker(api: Api) -> None:
    class Quick:
        """The API of a controller whose autoscaler acts on an order before the order's edit has come back."""

        def __getattr__(self, name: str) -> Any:
            return getattr(api, name)

        async def edit(self, kind: str, name: str, change: Any) -> Any:
            done = await api.edit(kind, name, change)
            if kind == "scaleorders":
                await api.edit("services", name, lambda old: replace(old, scale=7))
            return done

    quick: Any = Quick()
    told = await services.scale(quick, call(ScaleBody(replicas=7), name="web"))
    assert (told["before"], told["replicas"]) == (2, 7)


async def test_a_manual_scale_keeps_to_what_the_policy_may_ever_allow(api: Api) -> None:
    for replicas, said in ((21, "its policy keeps at most 20 replicas: change max"), (1, "at least 2 replicas: change min")):
        with pytest.raises(BadInput, match=said):
            await services.scale(api, call(ScaleBody(replicas=replicas), name="web"))
    assert order(api) is None
    with pytest.raises(BadInput, match="service plain does not scale itself: a floor means nothing there"):
        await services.scale(api, call(ScaleBody(replicas=3, floor_s=5.0), name="plain"))
    assert (await services.scale(api, call(ScaleBody(replicas=3), name="plain")))["floor"] == 0
    night = replace(POLICY, schedules=(ScalingSchedule("0 0 * * *", 3600.0, max=30),))
    await services.create_service(api, call(ServiceSpec("night", ContainerSpec("x"), autoscale=night)))
    assert (await services.scale(api, call(ScaleBody(replicas=25), name="night")))["floor"] == 25


async def test_apply_keeps_the_count_that_the_service_has(api: Api) -> None:
    policy = {"max": 9, "min": 2, "metrics": [{"inflight": 3}]}
    project = {"name": "s", "services": {"a": {"image": "x", "x-autoscale": policy, "deploy": {"replicas": 1}}}}
    await stacks.apply(api, call(project, stack="s"))
    assert api.snapshot().of("services")["s_a"].scale == 2
    await services.scale(api, call(ScaleBody(replicas=6), name="s_a"))
    told = await stacks.apply(api, call(project, stack="s"))
    assert {row["action"] for row in told["changes"]} == {"none"}
    assert api.snapshot().of("services")["s_a"].scale == 6
