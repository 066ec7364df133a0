"""Metrics that replicas expose: which are asked for, what of them counts, what a bad answer does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.core.clock import RealClock
from agent.core.scraping import BODY_BYTES_MAX, STALE_S, Scraper, fetched, parsed, place, rates
from agent.plan.records import Life, ReplicaId, WantedService
from model.autoscale import MetricsPort
from model.errors import Unavailable
from model.spec import Attachment, ContainerSpec, ServiceSpec
from tests.patience import PATIENCE

TEXT = """# HELP jobs_waiting Jobs.
# TYPE jobs_waiting gauge
jobs_waiting{queue="a"} 3
jobs_waiting{queue="b"} 4
jobs_waiting_long 99
# TYPE served_total counter
served_total 100
broken NaN
"""


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


def life(slot: int = 1, addresses: tuple[tuple[str, str], ...] = (("net", "10.0.0.9/24"),)) -> Life:
    spec = ServiceSpec("shop_web", ContainerSpec("web"))
    return Life(ReplicaId("s1", slot, 1, 1), spec, f"shop_web.{slot}", stage="running", addresses=addresses)


def asked(*names: str, port: int = 9100) -> list[WantedService]:
    return [WantedService("s1", "shop_web", scraped=names, metrics=MetricsPort(port, "/m"))]


def test_where_a_replica_is_asked() -> None:
    assert place(life()) == "10.0.0.9"
    shared = ServiceSpec("shop_web", ContainerSpec("web", networks=(Attachment("host"),)))
    assert place(replace(life(addresses=()), spec=shared)) == "127.0.0.1"
    assert place(life(addresses=())) == ""


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

    async def fetch(address: str, port: int, path: str) -> str:
        calls.append((address, port, path))
        return next(answers)

    clock = Hand()
    scraper = Scraper(clock, fetch)
    one, services = life(), asked("jobs_waiting", "served_total")
    await scraper.look([one], services)
    assert scraper.values(one.id) == {"jobs_waiting": 7.0}
    clock.s += 5
    await scraper.look([one], services)
    assert scraper.values(one.id) == {"jobs_waiting": 7.0, "served_total": 2.0}
    assert calls == [("10.0.0.9", 9100, "/m")] * 2
    clock.s += STALE_S
    assert scraper.values(one.id) == {}
    await scraper.look([one], [WantedService("s1", "shop_web")])
    clock.s -= STALE_S
    assert scraper.values(one.id) == {}, "no policy asks for it any more"
    assert not scraper.asks


async def test_one_that_fails_does_not_keep_the_others_from_speaking() -> None:
    async def fetch(address: str, port: int, path: str) -> str:
        fails.append(address)
        if len(fails) == 1:
            raise ConnectionRefusedError(111, "refused")
        return TEXT

    fails: list[str] = []
    scraper = Scraper(Hand(), fetch)
    rows = [life(1), life(2)]
    await scraper.look(rows, asked("jobs_waiting"))
    assert sorted(scraper.values(row.id).get("jobs_waiting", 0) for row in rows) == [0, 7.0]


async def served(answer: bytes) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(10 * PATIENCE):
        return await fetched("127.0.0.1", server.sockets[0].getsockname()[1], "/metrics")


async def test_a_body_over_http() -> None:
    assert await served(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + TEXT.encode()) == TEXT


@pytest.mark.parametrize("answer", [b"HTTP/1.0 404 Not Found\r\n\r\n", b"", b"x" * (BODY_BYTES_MAX + 1)])
async def test_anything_else_is_refused(answer: bytes) -> None:
    with pytest.raises(Unavailable):
        await served(answer)


async def test_nobody_there_is_a_failure_of_the_look_only() -> None:
    scraper = Scraper(RealClock())
    one = life(addresses=(("net", "127.0.0.1/8"),))
    await scraper.look([one], asked("jobs_waiting", port=1))
    assert scraper.values(one.id) == {}
