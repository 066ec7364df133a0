"""Names of a network as data: which name gives which addresses, and what news change."""

from __future__ import annotations

import pytest

from agent.network.forward import Quota
from agent.plan.names import EndpointName, EndpointsMessage, NetworkNames, ServiceNames, in_turn
from agent.plan.zone import Zone, reversed_address, service_asked

WEB = ServiceNames(
    "id1",
    "shop_web",
    ("shop_web", "web", "web.shop", "front"),
    (
        EndpointName("shop_web.1", "10.64.0.2", "n1", True, ("web.1", "abcdef123456")),
        EndpointName("shop_web.2", "10.64.1.2", "n2", False, ("web.2",)),
    ),
)
API = ServiceNames("id4", "shop_api", ("shop_api", "api"), (EndpointName("shop_api.1", "10.64.0.9", "n1"),), "10.64.192.5")
PREFIX6 = "fd00:1::/96"


def addresses(zone: Zone, name: str) -> tuple[str, ...] | None:
    found = zone.find(name)
    return found.addresses if found is not None else None


def test_a_service_gives_its_ready_replicas_and_tasks_all_that_run() -> None:
    zone = Zone(NetworkNames((WEB,)))
    for name in ("web", "WEB.", "shop_web", "web.shop", "front"):
        assert addresses(zone, name) == ("10.64.0.2",)
    assert addresses(zone, "tasks.web") == ("10.64.0.2", "10.64.1.2")
    assert addresses(zone, "web.2") == ("10.64.1.2",)
    assert addresses(zone, "abcdef123456") == ("10.64.0.2",)


def test_a_service_with_an_address_of_its_own_gives_that_also_without_ready_replicas() -> None:
    zone = Zone(NetworkNames((API,)))
    assert addresses(zone, "api") == ("10.64.192.5",)
    assert addresses(zone, "tasks.api") == addresses(zone, "shop_api.1") == ("10.64.0.9",)
    zone.take(EndpointsMessage("net", False, (ServiceNames("id4", "shop_api", ("api",), (), "10.64.192.5"),)))
    assert addresses(zone, "api") == ("10.64.192.5",)
    assert addresses(zone, "tasks.api") == ()


def test_a_service_without_ready_replicas_exists_and_an_unknown_name_does_not() -> None:
    empty = Zone(NetworkNames((ServiceNames("id1", "shop_web", ("web",)),)))
    assert addresses(empty, "web") == ()
    assert addresses(empty, "db") is None


def test_a_host_name_equal_to_the_services_name_is_the_services() -> None:
    rows = (EndpointName("shop_db.1", "10.64.0.2", names=("db.1", "DB")), EndpointName("shop_db.2", "10.64.0.3", names=("db",)))
    assert addresses(Zone(NetworkNames((ServiceNames("i", "shop_db", ("db",), rows, "10.64.192.1"),))), "db") == (
        "10.64.192.1",
    )


def test_a_host_name_that_all_replicas_bear_gives_all() -> None:
    rows = (EndpointName("shop_db.1", "10.64.0.2", names=("pg",)), EndpointName("shop_db.2", "10.64.0.3", names=("pg",)))
    assert addresses(Zone(NetworkNames((ServiceNames("i", "shop_db", ("db",), rows),))), "pg") == ("10.64.0.2", "10.64.0.3")


def test_a_single_container_that_is_not_ready_has_its_names() -> None:
    single = ServiceNames("i", "c1", ("c1", "alias"), (EndpointName("c1", "10.64.0.2", ready=False),))
    zone = Zone(NetworkNames((single,)))
    assert addresses(zone, "c1") == addresses(zone, "alias") == ("10.64.0.2",)


def test_ipv6_addresses_follow_from_the_prefix() -> None:
    found = Zone(NetworkNames((API,), PREFIX6)).find("api")
    assert found is not None
    assert found.addresses6() == ("fd00:1::a40:c005",)
    without = Zone(NetworkNames((API,))).find("api")
    assert without is not None
    assert without.addresses6() == ()


def test_reverse_names() -> None:
    zone = Zone(NetworkNames((WEB, API), PREFIX6))
    assert reversed_address("2.1.64.10.in-addr.arpa.") == "10.64.1.2"
    assert zone.name_of("10.64.1.2") == "shop_web.2"
    assert zone.name_of("10.64.192.5") == "shop_api"
    assert zone.name_of("9.9.9.9") == zone.name_of("") == zone.name_of("fd00:2::a40:102") == ""
    nibbles = "2.0.1.0.0.4.a.0" + ".0" * 16 + ".1.0.0.0.0.0.d.f"
    assert reversed_address(f"{nibbles}.IP6.arpa") == "fd00:1::a40:102"
    assert zone.name_of("fd00:1::a40:102") == "shop_web.2"


@pytest.mark.parametrize(
    "name", ["nonsense", "x.1.64.10.in-addr.arpa", "1.64.10.in-addr.arpa", "1.2.ip6.arpa", "g" + ".0" * 31 + ".ip6.arpa", ""]
)
def test_what_is_no_reverse_name(name: str) -> None:
    assert reversed_address(name) == ""


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("_80._tcp.web", ("web", 80)),
        ("_53._UDP.tasks.web.", ("tasks.web", 53)),
        ("_http._tcp.web", ("web", 0)),
        ("_99999._tcp.web", ("web", 0)),
        ("_80._quic.web", None),
        ("_tcp.web", None),
        ("web", None),
    ],
)
def test_service_questions(name: str, asked: tuple[str, int] | None) -> None:
    assert service_asked(name) == asked


def test_news_replace_one_service_or_the_whole_network() -> None:
    db = ServiceNames("id2", "shop_db", ("db",))
    zone = Zone(NetworkNames((WEB,), PREFIX6))
    assert zone.take(EndpointsMessage("net", False, (db,)))
    assert [service.name for service in zone.names().services] == ["shop_web", "shop_db"]
    assert not zone.take(EndpointsMessage("net", False, (db,)))
    zone.take(EndpointsMessage("net", False, (), ("id1",)))
    assert zone.names() == NetworkNames((db,), PREFIX6)
    zone.take(EndpointsMessage("net", True, (WEB,), prefix6=PREFIX6))
    assert zone.names() == NetworkNames((WEB,), PREFIX6)
    assert addresses(zone, "db") is None


def test_a_name_that_two_services_bear_gives_both() -> None:
    other = ServiceNames("id3", "x_api", ("front",), (EndpointName("x_api.1", "10.64.2.2"),))
    assert addresses(Zone(NetworkNames((WEB, other))), "front") == ("10.64.0.2", "10.64.2.2")


def test_callers_who_take_the_first_address_are_spread() -> None:
    assert [in_turn(("a", "b", "c"), turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert in_turn((), 5) == ()


def test_one_asker_cannot_use_up_what_all_share() -> None:
    quota = Quota(3, 2)
    with quota.use("a"), quota.use("a"):
        assert quota.full("a")
        assert not quota.full("b")
        with quota.use("b"):
            assert quota.full("c")
    assert not quota.full("a")
