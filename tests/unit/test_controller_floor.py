"""How far everybody follows: who is waited for, and who is told."""

from __future__ import annotations

from random import Random

import pytest

from controller.dispatch.floor import LATE_S, FloorBook
from controller.dispatch.session import NodeSession
from controller.dispatch.status import NodeStatus
from model.documents import StatusDoc


def session(node: str) -> NodeSession:
    """One that has just been told everything up to number 10 and follows it."""
    found = NodeSession(node, "", NodeStatus(StatusDoc(node)), frozenset(), 0)
    found.news, found.told, found.acked = False, 10, 10
    return found


class Told:
    """Sessions, a newest number, and the book. Time stands still unless said."""

    def __init__(self, *nodes: str) -> None:
        self.book, self.number = FloorBook(), 10
        self.sessions = {node: session(node) for node in nodes}

    def change(self, *nodes: str, now_s: float = 0.0) -> int:
        """A change that concerns these nodes, told to them at once."""
        before, self.number = self.number, self.number + 1
        for node in nodes:
            found = self.sessions[node]
            found.news = True
            self.book.fell_behind(found, before, now_s)
            found.said(self.number)
            self.book.said(found)
        return self.number

    def ack(self, node: str, number: int, now_s: float = 0.0) -> None:
        self.sessions[node].take_ack(number)
        self.book.counts(self.sessions[node], now_s)

    def settle(self, now_s: float = 0.0) -> list[str]:
        return [found.node for found in self.book.settle(self.number, now_s)]


def test_the_floor_is_the_newest_number_when_nobody_is_behind() -> None:
    told = Told("n1")
    told.settle()
    assert told.book.number == 10
    assert told.book.wake_at_s() is None


def test_it_waits_for_every_node_that_a_change_concerns_and_for_no_other() -> None:
    told = Told("n1", "n2", "n3")
    number = told.change("n1", "n2")
    told.book.owe(told.sessions["n1"], number)
    assert told.settle() == []
    told.ack("n1", number)
    assert (told.settle(), told.book.number) == ([], 10)
    told.ack("n2", number)
    assert told.settle() == ["n1"]
    assert told.sessions["n1"].floor == number


def test_who_was_up_to_date_holds_later_changes_back_only() -> None:
    told = Told("n1", "n2")
    for _ in range(5):
        told.ack("n1", told.change("n1"))
    number = told.change("n2")
    told.settle()
    assert told.book.number == number - 1, "n2 has nothing to do with what came before"


def test_a_part_that_is_acknowledged_moves_it_a_part() -> None:
    told = Told("n1")
    first, second = told.change("n1"), told.change("n1")
    told.ack("n1", first)
    told.settle()
    assert (told.book.number, second) == (first, first + 1)


def test_a_number_in_the_middle_of_what_was_said_counts_for_nothing() -> None:
    told = Told("n1")
    first = told.change("n1")
    told.number += 4  # several networks' changes, said at once
    last = told.change("n1")
    told.ack("n1", last - 1)
    told.settle()
    assert told.book.number == first
    told.ack("n1", last)
    told.settle()
    assert told.book.number == last


def test_it_never_falls() -> None:
    told = Told("n1")
    told.settle()
    told.sessions["n2"] = newcomer = session("n2")
    newcomer.news, newcomer.told, newcomer.acked = True, 0, 0
    told.book.fell_behind(newcomer, 0, 0.0)
    told.settle()
    assert told.book.number == 10


def test_one_that_says_nothing_is_waited_for_a_bounded_time_and_then_never_again_until_it_speaks() -> None:
    told = Told("old", "n2")
    number = told.change("old")
    told.book.owe(told.sessions["n2"], number)
    assert told.book.wake_at_s() == LATE_S
    assert told.settle(LATE_S - 0.1) == []
    assert told.settle(LATE_S) == ["n2"]
    later = told.change("old", now_s=LATE_S)
    told.settle(LATE_S)
    assert told.book.number == later
    told.ack("old", number, LATE_S)
    told.change("old", now_s=LATE_S)
    told.settle(LATE_S)
    assert told.book.number == later, "it speaks again: it counts again"
    assert told.book.wake_at_s() == 2 * LATE_S


def test_one_that_acknowledges_something_gets_its_time_anew() -> None:
    told = Told("slow", "n2")
    first = told.change("slow")
    told.change("slow")
    told.ack("slow", first, LATE_S - 1)
    told.settle(LATE_S)
    assert told.book.number == first
    assert told.book.wake_at_s() == 2 * LATE_S - 1


def test_a_node_that_is_not_ready_and_one_that_is_gone_hold_nobody_up() -> None:
    told = Told("n1", "n2")
    number = told.change("n1", "n2")
    told.book.excuse(told.sessions["n1"])
    told.settle()
    assert told.book.number == number - 1
    told.book.gone(told.sessions["n2"])
    told.settle()
    assert told.book.number == number


def test_a_node_that_is_ready_again_is_waited_for_again() -> None:
    told = Told("n1")
    told.book.excuse(told.sessions["n1"])
    told.book.counts(told.sessions["n1"], 0.0)
    number = told.change("n1")
    told.settle()
    assert told.book.number == number - 1


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_floor_never_passes_what_a_node_does_not_follow(seed: int) -> None:
    """Changes and acknowledgements in any order; each node hears of its own changes only."""
    chance = Random(seed)
    told = Told("n1", "n2", "n3", "n4")
    concerns: dict[str, list[int]] = {node: [] for node in told.sessions}
    before = told.book.number
    for _ in range(200):
        if chance.random() < 0.4:
            nodes = chance.sample(sorted(told.sessions), chance.randint(0, 3))
            number = told.change(*nodes)
            for node in nodes:
                concerns[node].append(number)
        else:
            node = chance.choice(sorted(told.sessions))
            found = told.sessions[node]
            if found.open_numbers:
                told.ack(node, chance.randint(found.acked, found.told))
        told.settle()
        assert before <= told.book.number <= told.number
        before = told.book.number
        for node, numbers in concerns.items():
            open_ones = [number for number in numbers if number > told.sessions[node].acked]
            assert not open_ones or told.book.number < open_ones[0]
    for node, found in told.sessions.items():
        told.ack(node, found.told)
    told.settle()
    assert told.book.number == told.number


def test_many_floors_that_are_owed_are_told_once() -> None:
    told = Told("n1", "n2")
    numbers = [told.change("n2") for _ in range(3)]
    for number in numbers:
        told.book.owe(told.sessions["n1"], number)
    told.ack("n2", numbers[-1])
    assert told.settle() == ["n1"]
    assert told.sessions["n1"].floor == numbers[-1]
    assert told.settle() == []
