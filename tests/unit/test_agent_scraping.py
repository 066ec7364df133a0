"""Metrics that replicas expose: which are asked for, what of them counts, what a bad answer does."""

from __future__ import annotations

import pytest

from agent.core.metrics_replica import Limits, Page
from agent.core.scraping import LIMITS, PROBLEM_MAX, STALE_S, Scraper, parsed, rates
from agent.plan.records import Life, ReplicaId, WantedService
from model.autoscale import MetricsPort
from model.errors import Unavailable
from model.spec import ContainerSpec, ServiceSpec

TEXT = """# HELP jobs_waiting Jobs.
# TYPE jobs_waiting gauge
jobs_waiting{queue="a"} 3
jobs_waiting{queue="b"} 4
jobs_waiting_long 99
# TYPE served_total counter
served_total 100
broken NaN
"""


WHERE = MetricsPort(9100, "/m")


def page(text: str) -> Page:
    return Page("text/plain", text.encode())


class Hand:
    """A clock in the test's hand."""

    def __init__(self) -> None:
        self.s = 100.0

    def now(self) -> float:
        return self.s

    def monotonic(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


def life(slot: int = 1) -> Life:
    spec = ServiceSpec("shop_web", ContainerSpec("web"))
    return Life(ReplicaId("s1", slot, 1, 1), spec, f"shop_web.{slot}", stage="running")


def asked(*names: str) -> list[WantedService]:
    return [WantedService("s1", "shop_web", scraped=names, metrics=WHERE)]


def test_series_of_one_name_are_added_up_and_counters_are_known() -> None:
    assert parsed(TEXT, {"jobs_waiting", "served_total", "broken", "none"}) == {
        "jobs_waiting": (7.0, False),
        "served_total": (100.0, True),
    }
    assert parsed("served_total 3\n", {"served_total"})["served_total"].counter, "by its name, without a type"


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r".*"):
        parsed('jobs_waiting{queue="a 3\n', {"jobs_waiting"})


def test_of_a_counter_its_rate_counts() -> None:
    first, second = parsed(TEXT, {"served_total"}), parsed("served_total 150", {"served_total"})
    assert rates({}, first, 5.0) == {}
    assert rates(first, second, 5.0) == {"served_total": 10.0}
    assert rates(second, first, 5.0) == {}, "it went back"


async def test_values_are_those_of_the_last_look_until_they_are_old() -> None:
    answers = iter([TEXT, TEXT.replace("served_total 100", "served_total 110")])
    calls = []

    async def read(life: Life, where: MetricsPort, limits: Limits) -> Page:
        calls.append((life.name, where, limits))
        return page(next(answers))

    clock = Hand()
    scraper = Scraper(clock, read)
    one, services = life(), asked("jobs_waiting", "served_total")
    await scraper.look([one], services)
    assert scraper.values(one.id) == {"jobs_waiting": 7.0}
    clock.s += 5
    await scraper.look([one], services)
    assert scraper.values(one.id) == {"jobs_waiting": 7.0, "served_total": 2.0}
    assert calls == [("shop_web.1", WHERE, LIMITS)] * 2
    clock.s += STALE_S
    assert scraper.values(one.id) == {}
    await scraper.look([one], [WantedService("s1", "shop_web")])
    clock.s -= STALE_S
    assert scraper.values(one.id) == {}, "no policy asks for it any more"
    assert not scraper.asks


async def test_another_place_is_asked_at_once_and_what_the_old_one_said_counts_no_more() -> None:
    pages = {9100: "served_total 100\njobs_waiting 3\n", 9200: "served_total 900\njobs_waiting 4\n"}

    async def read(life: Life, where: MetricsPort, limits: Limits) -> Page:
        if where.port not in pages:
            raise Unavailable(f"port {where.port}: Connection refused")
        return page(pages[where.port])

    def at(port: int) -> list[WantedService]:
        return [WantedService("s1", "shop_web", scraped=("jobs_waiting", "served_total"), metrics=MetricsPort(port))]

    clock = Hand()
    scraper, one = Scraper(clock, read), life()
    for port, values in (
        (9100, {"jobs_waiting": 3.0}), (9100, {"jobs_waiting": 3.0, "served_total": 0.0}), (9200, {"jobs_waiting": 4.0}),
        (9200, {"jobs_waiting": 4.0, "served_total": 0.0}), (9300, {}),
    ):  # fmt: skip
        clock.s += 5
        await scraper.look([one], at(port))
        assert scraper.values(one.id) == values
    assert scraper.problem(one.id) == "shop_web.1: port 9300: Connection refused"


async def test_one_that_fails_does_not_keep_the_others_from_speaking() -> None:
    async def read(life: Life, where: MetricsPort, limits: Limits) -> Page:
        if life.id.slot == 1:
            raise Unavailable("port 9100: Connection refused")
        return page(TEXT if life.id.slot == 2 else 'jobs_waiting{queue="a 3')

    scraper = Scraper(Hand(), read)
    rows = [life(1), life(2), life(3)]
    await scraper.look(rows, asked("jobs_waiting"))
    assert [dict(scraper.values(row.id)) for row in rows] == [{}, {"jobs_waiting": 7.0}, {}]
    assert [scraper.problem(row.id) for row in rows] == [
        "shop_web.1: port 9100: Connection refused",
        "",
        "shop_web.3: port 9100: what it answers is no metrics",
    ]


async def test_a_metric_that_is_not_on_the_page_is_named_until_it_is() -> None:
    answers = iter(["other 3\n", TEXT])

    async def read(life: Life, where: MetricsPort, limits: Limits) -> Page:
        return page(next(answers))

    scraper, one, long = Scraper(Hand(), read), life(), "x" * (2 * PROBLEM_MAX)
    await scraper.look([one], asked("jobs_waiting", "other", long))
    assert scraper.problem(one.id).startswith("shop_web.1: no metric jobs_waiting, xxx")
    assert len(scraper.problem(one.id)) == PROBLEM_MAX
    await scraper.look([one], asked("jobs_waiting"))
    assert scraper.problem(one.id) == ""
    await scraper.look([], asked("jobs_waiting"))
    assert not scraper.asks
