"""Names of a network as data: which name gives which addresses, and what news change."""

from __future__ import annotations

from agent.plan.names import (
    Answer,
    EndpointName,
    EndpointsMessage,
    NetworkNames,
    ServiceNames,
    in_turn,
    merged,
    zone,
)

WEB = ServiceNames(
    "id1",
    "shop_web",
    ("shop_web", "web", "web.shop", "front"),
    (
        EndpointName("shop_web.1", "10.64.0.2", "n1", True, ("web.1", "abcdef123456")),
        EndpointName("shop_web.2", "10.64.1.2", "n2", False, ("web.2",)),
    ),
)


def test_a_service_gives_its_ready_replicas_and_tasks_all_that_run() -> None:
    found = zone(NetworkNames((WEB,)))
    for name in ("web", "WEB.", "shop_web", "web.shop", "front"):
        assert found.address_of(name) == Answer(True, ("10.64.0.2",))
    assert found.address_of("tasks.web") == Answer(True, ("10.64.0.2", "10.64.1.2"))
    assert found.address_of("web.2") == Answer(True, ("10.64.1.2",))
    assert found.address_of("abcdef123456") == Answer(True, ("10.64.0.2",))


def test_a_service_without_ready_replicas_exists_and_an_unknown_name_does_not() -> None:
    empty = zone(NetworkNames((ServiceNames("id1", "shop_web", ("web",)),)))
    assert empty.address_of("web") == Answer(True, ())
    assert empty.address_of("db") == Answer(False)


def test_reverse_names() -> None:
    found = zone(NetworkNames((WEB,)))
    assert found.name_of("2.1.64.10.in-addr.arpa.") == "shop_web.2"
    assert found.name_of("9.9.9.9.in-addr.arpa.") == ""
    assert found.name_of("nonsense") == ""


def test_news_replace_one_service_or_the_whole_network() -> None:
    db = ServiceNames("id2", "shop_db", ("db",))
    both = merged(NetworkNames((WEB,)), EndpointsMessage("net", False, (db,)))
    assert [service.name for service in both.services] == ["shop_web", "shop_db"]
    assert merged(both, EndpointsMessage("net", False, (), ("id1",))) == NetworkNames((db,))
    assert merged(both, EndpointsMessage("net", True, (WEB,))) == NetworkNames((WEB,))


def test_a_name_that_two_services_bear_gives_both() -> None:
    other = ServiceNames("id3", "x_api", ("front",), (EndpointName("x_api.1", "10.64.2.2"),))
    assert zone(NetworkNames((WEB, other))).address_of("front").addresses == ("10.64.0.2", "10.64.2.2")


def test_callers_who_take_the_first_address_are_spread() -> None:
    assert [in_turn(("a", "b", "c"), turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert in_turn((), 5) == ()
