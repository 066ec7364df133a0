"""Open connections from what opened and ended, put right by passes now and then. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.plan.open_count import OpenCount

A, B = "10.0.0.1", "10.0.0.2"
EVENTS = st.lists(st.tuples(st.sampled_from("oooeellr"), st.sampled_from([A, B])), max_size=40)
"""One opens, ends, is lost without a word, or the counts of an address begin anew."""


class Kernel:
    """Its table of connections, and the counts of those that open and end."""

    def __init__(self) -> None:
        self.table = {A: 0, B: 0}
        self.opened = {A: (0, 0), B: (0, 0)}
        self.ended = {A: (0, 0), B: (0, 0)}

    def does(self, event: str, address: str) -> None:
        if event == "o":
            self.table[address] += 1
            self.opened[address] = (self.opened[address][0] + 1, 60)
        elif event == "r":
            self.opened[address] = self.ended[address] = (0, 0)
        elif self.table[address]:
            self.table[address] -= 1
            if event == "e":
                self.ended[address] = (self.ended[address][0] + 1, 60)

    def turned(self) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        return dict(self.opened), dict(self.ended)

    def open(self) -> dict[str, int]:
        return {address: number for address, number in self.table.items() if number}


@given(EVENTS)
def test_while_nothing_is_lost_the_counts_alone_are_right(events: list[tuple[str, str]]) -> None:
    kernel, count = Kernel(), OpenCount()
    for event, address in events:
        if event in "oe":
            kernel.does(event, address)
            assert count.take(*kernel.turned()) == kernel.open()


@given(EVENTS, EVENTS, EVENTS)
def test_whatever_was_lost_a_pass_in_a_quiet_moment_puts_right(
    events: list[tuple[str, str]], meanwhile: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    kernel, count = Kernel(), OpenCount()
    for moment in (events, meanwhile):
        for event, address in moment:
            kernel.does(event, address)
            assert min(count.take(*kernel.turned()).values(), default=1) > 0
        before, passed = kernel.turned(), kernel.open()
    count.correct(before, kernel.turned(), passed)
    assert count.take(*kernel.turned()) == kernel.open()
    for event, address in after:
        if event in "oe":
            kernel.does(event, address)
    assert count.take(*kernel.turned()) == kernel.open()


@given(EVENTS, EVENTS, EVENTS)
def test_what_comes_and_goes_during_a_pass_makes_no_difference(
    events: list[tuple[str, str]], before_it: list[tuple[str, str]], after_it: list[tuple[str, str]]
) -> None:
    kernel, count = Kernel(), OpenCount()
    quiet = [row for row in events + before_it + after_it if row[0] in "oe"]
    for row in quiet[: len(events)]:
        kernel.does(*row)
    before = kernel.turned()
    for row in quiet[len(events) : len(events) + len(before_it)]:
        kernel.does(*row)
    passed = kernel.open()
    for row in quiet[len(events) + len(before_it) :]:
        kernel.does(*row)
    count.correct(before, kernel.turned(), passed)
    assert count.take(*kernel.turned()) == kernel.open()


def test_an_address_that_is_counted_no_longer_is_forgotten() -> None:
    count = OpenCount()
    count.correct(({A: (0, 0)}, {}), ({A: (0, 0)}, {}), {A: 3})
    assert count.take({A: (1, 0)}, {}) == {A: 4}
    count.correct(({B: (0, 0)}, {}), ({B: (0, 0)}, {}), {A: 3})
    assert count.take({A: (1, 0)}, {}) == {A: 1}
