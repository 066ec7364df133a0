"""Who is given which source for a blob."""

from __future__ import annotations

from controller.decide.sharing import CLAIM_S, GOT_S, REGISTRY, SUSPECT_S, UPLOADS_MAX, WAIT, Answer, Sharing

BIG = 50 << 20
SMALL = 2000


def sharing(nodes: int, **held: int) -> Sharing:
    """`held`: bits of the holders, by digest."""
    made = Sharing(lambda digest: held.get(digest, 0))
    for node in range(nodes):
        made.came(node)
    return made


def told(answers: list[Answer]) -> dict[int, int]:
    """The last word to each."""
    return {answer.asker: answer.source for answer in answers}


def test_a_node_alone_goes_straight_to_the_registry() -> None:
    assert told(sharing(1).wanted(0, "x", BIG, 0, 0.0)) == {0: REGISTRY}


def test_one_asks_the_registry_and_the_others_wait_until_he_has_it() -> None:
    made = sharing(3)
    assert told(made.wanted(2, "x", BIG, 0, 0.0)) == {2: REGISTRY}
    assert told(made.wanted(0, "x", BIG, 0, 0.1)) == {0: WAIT}
    assert told(made.wanted(1, "x", BIG, 0, 0.1)) == {1: WAIT}
    assert told(made.got(2, "x", 1.0)) == {0: 2, 1: 2}


def test_another_blob_is_fetched_meanwhile() -> None:
    made = sharing(2)
    made.wanted(0, "x", BIG, 0, 0.0)
    assert told(made.wanted(1, "y", BIG, 0, 0.0)) == {1: REGISTRY}


def test_a_holder_gives_to_a_few_at_a_time_and_who_has_it_gives_on() -> None:
    made = sharing(9, x=1)
    answers = [told(made.wanted(node, "x", BIG, 0, 0.0)) for node in range(1, 9)]
    assert [list(each.values()) for each in answers] == [[0]] * UPLOADS_MAX + [[WAIT]] * (8 - UPLOADS_MAX)
    assert set(told(made.got(1, "x", 1.0)).values()) == {0, 1}


def test_what_is_small_takes_no_place() -> None:
    made = sharing(9, x=1, y=1)
    for node in range(1, 1 + UPLOADS_MAX):
        made.wanted(node, "x", BIG, 0, 0.0)
    assert [told(made.wanted(node, "y", SMALL, 0, 0.0)) for node in range(1, 9)] == [{node: 0} for node in range(1, 9)]


def test_asked_again_before_the_answer_came_it_is_the_same() -> None:
    made = sharing(3, x=0b110)
    first = told(made.wanted(0, "x", BIG, 0, 0.0))
    assert told(made.wanted(0, "x", BIG, 0, 2.0)) == first


def test_a_peer_that_did_not_deliver_is_not_given_to_him_again() -> None:
    made = sharing(4, x=0b1110)
    (first,) = told(made.wanted(0, "x", BIG, 0, 0.0)).values()
    (second,) = told(made.wanted(0, "x", BIG, 1 << first, 1.0)).values()
    assert (first >= 0, second >= 0, first != second) == (True, True, True)
    assert told(made.wanted(0, "x", BIG, 1 << first | 1 << second, 2.0)) == {0: REGISTRY}


def test_who_failed_one_is_given_to_others_only_where_nobody_else_has_it() -> None:
    made = sharing(5, x=0b110, y=0b010)
    made.wanted(0, "x", BIG, 0b010, 0.0)
    assert told(made.wanted(3, "x", BIG, 0, 0.0)) == {3: 2}
    assert told(made.wanted(3, "y", BIG, 0, 0.0)) == {3: REGISTRY}
    assert told(made.gave_up(3, "y", 0.1)) == {}
    assert told(made.wanted(4, "y", BIG, 0, 0.2)) == {4: 1}
    made.gave_up(4, "y", 0.3)
    made.look(SUSPECT_S)
    assert told(made.wanted(3, "y", BIG, 0, SUSPECT_S)) == {3: 1}


def test_a_claim_without_news_ends() -> None:
    made = sharing(3)
    made.wanted(0, "x", BIG, 0, 0.0)
    made.wanted(1, "x", BIG, 0, 5.0)
    assert made.look(CLAIM_S - 0.1) == []
    assert told(made.look(CLAIM_S)) == {1: REGISTRY}
    made.fetching(1, "x", BIG, CLAIM_S + 5)
    made.wanted(2, "x", BIG, 0, CLAIM_S + 5)
    assert made.look(2 * CLAIM_S) == []


def test_an_upload_that_is_not_heard_of_gives_its_place_back() -> None:
    made = sharing(9, x=1)
    for node in range(1, 9):
        made.wanted(node, "x", BIG, 0, 0.0)
    for node in range(1 + UPLOADS_MAX, 9):
        made.wanted(node, "x", BIG, 0, CLAIM_S)
    assert list(told(made.look(CLAIM_S)).values()) == [0] * UPLOADS_MAX


def test_a_session_that_ends_frees_what_it_held() -> None:
    made = sharing(3)
    made.wanted(0, "x", BIG, 0, 0.0)
    made.wanted(1, "x", BIG, 0, 0.0)
    assert told(made.left(0, 1.0)) == {1: REGISTRY}
    made.got(1, "x", 2.0)
    made.left(1, 3.0)
    assert told(made.wanted(2, "x", BIG, 0, 3.0)) == {2: REGISTRY}


def test_who_comes_back_without_it_lets_more_go() -> None:
    """No login there, or none has it: not all wait for one after the other."""
    made = sharing(9)
    for node in range(8):
        made.wanted(node, "x", BIG, 0, 0.0)
    assert told(made.gave_up(0, "x", 1.0)) == {1: REGISTRY, 2: REGISTRY}
    assert told(made.gave_up(1, "x", 2.0)) == {3: REGISTRY, 4: REGISTRY, 5: REGISTRY}
    assert told(made.got(2, "x", 3.0)) == {6: 2, 7: 2}


def test_a_new_leader_believes_who_says_that_he_fetches() -> None:
    made = sharing(2)
    assert made.fetching(0, "x", BIG, 0.0) == []
    assert told(made.wanted(1, "x", BIG, 0, 0.0)) == {1: WAIT}
    assert told(made.got(0, "x", 1.0)) == {1: 0}


def test_nothing_is_kept_of_what_nobody_wants() -> None:
    made = sharing(2)
    made.wanted(0, "x", BIG, 0, 0.0)
    made.got(0, "x", 1.0)
    made.look(GOT_S)
    assert not made.is_idle()
    made.look(GOT_S + 1)
    assert made.is_idle()
    made.wanted(0, "y", BIG, 0, 2000.0)
    made.gave_up(0, "y", 2000.0)
    made.look(2061.0)
    assert made.is_idle()
