"""The checkers that were added for known bugs: silent about a good history, and not about a bad one."""

from __future__ import annotations

from typing import Literal

import pytest

from model.documents import NodeHealthDoc
from model.spec import ContainerSpec, UpdateConfig
from tests.sim.history import History, Made


@pytest.fixture
def seen() -> History:
    return History()


def health(seen: History, state: str, *nodes: str) -> None:
    for node in nodes:
        seen.put("health", node, NodeHealthDoc(node, state))  # type: ignore[arg-type]


# ---- silence


def test_a_silent_node_may_go_down(seen: History) -> None:
    seen.trouble.add("n1")
    health(seen, "unreachable", "n1")
    health(seen, "down", "n1")
    assert seen.rules == []


def test_a_node_with_which_nothing_is_wrong_may_not(seen: History) -> None:
    health(seen, "unreachable", "n1")
    health(seen, "down", "n1")
    assert seen.rules == ["down without reason"]


def test_a_new_leader_that_loses_nodes_at_once_is_seen(seen: History) -> None:
    seen.trouble |= {"n1", "n2", "n3"}
    seen.lead("c2", 2)
    seen.later(3)
    seen.put("health", "n1", NodeHealthDoc("n1", "down"), place="c2")
    assert seen.rules == ["down without reason"]
    assert "3.0 s after the reign" in seen.texts


def test_losing_most_nodes_is_seen_unless_the_first_are_long_gone(seen: History) -> None:
    seen.trouble |= {"n1", "n2", "n3"}
    health(seen, "down", "n1")
    seen.later(60)
    health(seen, "down", "n2")
    seen.later(60)
    health(seen, "down", "n3")
    assert seen.rules == []
    health(seen, "ready", "n1", "n2", "n3")
    health(seen, "unreachable", "n1", "n2", "n3")
    health(seen, "down", "n1")
    assert seen.rules == ["mass move"]


# ---- updates


def updated(seen: History, failure_action: Literal["pause", "continue"], *, code: int = 1, again: bool = False) -> None:
    """Two of three replicas are replaced by a new version; the first one's container has ended in between."""
    seen.service("web", 3, update=UpdateConfig(failure_action=failure_action, monitor_s=5.0))
    seen.assign(n1="web.1 web.2 web.3")
    old = [seen.start("n1", f"web.{slot}") for slot in (1, 2, 3)]
    seen.later(60)
    seen.change("web", version=2)
    seen.later(20)
    seen.assign(n1="web.1@2/9 web.2 web.3")
    seen.end("n1", old[0])
    new = seen.start("n1", "web.1@2/9")
    seen.later(1)
    seen.checks.container_ended("n1", new, code, "crashed")
    if again:
        seen.start("n1", "web.1@2/9", "again")
        seen.later(10)
    seen.later(10)
    seen.assign(n1="web.1@2/9 web.2@2/10 web.3")


def test_an_update_that_goes_on_although_it_fails_is_seen(seen: History) -> None:
    updated(seen, "pause")
    assert seen.rules == ["update not paused"]


def test_an_update_that_may_go_on_is_none(seen: History) -> None:
    updated(seen, "continue")
    assert seen.rules == []


def test_a_replica_that_ran_again_for_long_enough_has_not_failed(seen: History) -> None:
    updated(seen, "pause", again=True)
    assert seen.rules == []


def test_a_replica_that_ended_well_has_not_failed(seen: History) -> None:
    updated(seen, "pause", code=0)
    assert seen.rules == []


# ---- jobs


def begun(seen: History) -> Made:
    seen.service("job", mode="replicated-job")
    seen.assign(n1="job.1")
    box = seen.start("n1", "job.1")
    seen.later(5)
    return box


def ends(seen: History, box: Made, code: int = 0) -> None:
    seen.checks.container_ended("n1", box, code, "crashed")
    seen.later(30)


def done(seen: History, code: int) -> None:
    ends(seen, begun(seen), code)


def test_a_job_that_is_done_and_started_again_is_seen(seen: History) -> None:
    done(seen, 0)
    seen.start("n1", "job.1", "again")
    assert seen.rules == ["job run twice"]


def test_a_job_that_failed_may_be_started_again(seen: History) -> None:
    done(seen, 1)
    seen.start("n1", "job.1", "again")
    assert seen.rules == []


def test_who_stops_and_starts_a_service_wants_its_jobs_once_more(seen: History) -> None:
    done(seen, 0)
    seen.change("job", stopped=True)
    seen.change("job", stopped=False)
    seen.start("n1", "job.1", "again")
    assert seen.rules == []


def test_a_job_that_ended_before_it_heard_of_the_stop_is_wanted_once_more(seen: History) -> None:
    box = begun(seen)
    seen.change("job", stopped=True)
    ends(seen, box)
    seen.change("job", stopped=False)
    seen.start("n1", "job.1", "again")
    assert seen.rules == []


def test_a_job_that_ended_when_its_service_was_started_again_is_wanted_once_more(seen: History) -> None:
    box = begun(seen)
    seen.change("job", stopped=True)
    seen.change("job", stopped=False)
    ends(seen, box)
    seen.start("n1", "job.1", "again")
    assert seen.rules == []


def test_a_job_that_is_done_is_not_started_again_by_a_stop(seen: History) -> None:
    done(seen, 0)
    seen.change("job", stopped=True)
    seen.start("n1", "job.1", "again")
    assert seen.rules == ["job run twice"]


def test_a_job_that_was_wanted_once_more_is_started_once(seen: History) -> None:
    done(seen, 0)
    seen.change("job", stopped=True)
    seen.change("job", stopped=False)
    seen.later(1)
    ends(seen, seen.start("n1", "job.1", "again"))
    seen.start("n1", "job.1", "a third time")
    assert seen.rules == ["job run twice"]


# ---- drains


@pytest.mark.parametrize(
    ("sends_to", "trouble", "why", "rules"),
    [
        ("id-web", "", "stopped", ["stopped while sent to"]),
        ("id-other", "", "stopped", []),
        ("id-web", "n2", "stopped", []),
        ("id-web", "", "crashed", []),
    ],
)
def test_who_is_stopped_while_others_send_to_him_is_seen(
    seen: History, sends_to: str, trouble: str, why: str, rules: list[str]
) -> None:
    seen.service("web", container=ContainerSpec("web:1", stop_grace_period_s=10.0))
    seen.assign(n1="web.1")
    box = seen.start("n1", "web.1", addresses=(("net", "10.0.0.5/16"),))
    seen.checks.ground.believes["n2"] = lambda network, address: [sends_to] if address == "10.0.0.5" else []
    seen.trouble |= {trouble} - {""}
    seen.later(60)
    seen.remove("services", "web")
    seen.assign(n1="")
    seen.end("n1", box, why)
    assert seen.rules == rules
