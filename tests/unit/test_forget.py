"""An address is given again only after everybody forgot who had it."""

from __future__ import annotations

from agent.plan.forget import FORGET_ANYWAY_S, Forgetting
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames

NET, PLACE = "shop_default", ("shop_default", "10.0.0.2")


def told(number: int, *addresses: str, network: str = NET, of: str = "", whole: bool = False) -> EndpointsMessage:
    rows = tuple(EndpointName(f"shop_web.{n}", address, network=of) for n, address in enumerate(addresses))
    return EndpointsMessage(network, whole, (ServiceNames("1", "shop_web", endpoints=rows),), number=number)


def test_who_was_never_told_of_is_forgotten() -> None:
    forgetting = Forgetting()
    forgetting.floor(1)
    assert forgetting.forgotten(PLACE, 0)
    assert not forgetting.told(PLACE)


def test_until_the_first_floor_nobody_knows_what_an_earlier_agent_left() -> None:
    forgetting = Forgetting(100)
    forgetting.floor(0)
    forgetting.take(told(900, whole=True), 101)
    assert not forgetting.forgotten(PLACE, 101)
    assert forgetting.forgotten(PLACE, 101 + FORGET_ANYWAY_S)
    forgetting.floor(900)
    assert forgetting.forgotten(PLACE, 101)
    forgetting.floor(0)
    assert forgetting.forgotten(PLACE, 101)


def test_what_other_nodes_lose_does_not_pile_up_while_no_floor_is_told() -> None:
    forgetting = Forgetting()
    for number in range(1000):
        forgetting.take(told(number, f"10.0.{number // 250}.{number % 250}"), 10.0 * number)
    assert len(forgetting._gone) <= FORGET_ANYWAY_S / 10 + 1
    assert forgetting.told((NET, "10.0.0.0"))


def test_a_present_address_is_not_forgotten_and_a_removed_one_waits_for_the_floor() -> None:
    forgetting = Forgetting()
    forgetting.take(told(5, "10.0.0.2"), 0)
    forgetting.floor(5)
    assert not forgetting.forgotten(PLACE, 0)
    forgetting.take(told(7), 0)
    assert not forgetting.forgotten(PLACE, 0)
    forgetting.floor(6)
    assert not forgetting.forgotten(PLACE, 0)
    forgetting.floor(7)
    assert forgetting.forgotten(PLACE, 0)
    assert forgetting.told(PLACE)


def test_a_removed_service_and_a_whole_message_remove_alike() -> None:
    for message in (EndpointsMessage(NET, False, removed=("1",), number=3), EndpointsMessage(NET, True, number=3)):
        forgetting = Forgetting()
        forgetting.take(told(1, "10.0.0.2"), 0)
        forgetting.take(message, 0)
        assert not forgetting.forgotten(PLACE, 0)
        forgetting.floor(3)
        assert forgetting.forgotten(PLACE, 0)


def test_a_place_is_there_as_long_as_its_network_or_ingress_says_so() -> None:
    forgetting = Forgetting()
    forgetting.take(told(1, "10.0.0.2"), 0)
    forgetting.take(told(2, "10.0.0.2", network="ingress", of=NET), 0)
    forgetting.take(told(3), 0)
    forgetting.floor(3)
    assert not forgetting.forgotten(PLACE, 0)
    forgetting.take(told(4, network="ingress"), 0)
    forgetting.floor(4)
    assert forgetting.forgotten(PLACE, 0)


def test_an_address_that_comes_back_is_present_again() -> None:
    forgetting = Forgetting()
    forgetting.take(told(1, "10.0.0.2"), 0)
    forgetting.take(told(2), 0)
    forgetting.take(told(3, "10.0.0.2"), 0)
    forgetting.floor(3)
    assert not forgetting.forgotten(PLACE, 0)


def test_what_went_before_a_new_session_waits_for_its_first_floor() -> None:
    forgetting = Forgetting()
    forgetting.take(told(900, "10.0.0.2"), 0)
    forgetting.take(told(901), 0)
    forgetting.floor(0)
    assert not forgetting.forgotten(PLACE, 0)
    forgetting.floor(2)
    assert forgetting.forgotten(PLACE, 0)


def test_a_floor_that_never_comes_holds_an_address_up_for_minutes_only() -> None:
    forgetting = Forgetting()
    forgetting.take(told(1, "10.0.0.2"), 0)
    forgetting.take(told(2), 10)
    assert not forgetting.forgotten(PLACE, 10 + FORGET_ANYWAY_S)
    assert forgetting.forgotten(PLACE, 11 + FORGET_ANYWAY_S)


def test_a_network_that_was_left_is_no_longer_spoken_of() -> None:
    forgetting = Forgetting()
    forgetting.take(told(1, "10.0.0.2", "10.0.0.3"), 0)
    forgetting.take(told(2, "10.0.0.3"), 0)
    forgetting.floor(1)
    forgetting.leave(NET)
    assert forgetting.forgotten(PLACE, 0)
    assert forgetting.forgotten((NET, "10.0.0.3"), 0)
