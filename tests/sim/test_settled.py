"""Liveness: what is not as it should be when the faults have ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from model.documents import (
    Availability,
    DecisionDoc,
    NetworkPlanDoc,
    NodeDoc,
    NodeHealthDoc,
    ReplicaStatus,
    ServicePlanDoc,
    StatusDoc,
    VolumeDoc,
    VolumePlaceDoc,
)  # fmt: skip
from model.spec import ContainerSpec, Mount, Placement, Resources, UpdateConfig, VolumeSpec
from sim.checks.settled import End, unfinished
from tests.sim.history import History, Made


@pytest.fixture
def seen() -> History:
    """A service of two replicas that run."""
    found = History()
    found.service("web", 2)
    found.assign(n1="web.1", n2="web.2")
    return found


def boxes(**more: Sequence[Made]) -> dict[str, Sequence[Made]]:
    return {"n1": [Made("a", "id-web", 1)], "n2": [Made("b", "id-web", 2)], **more}


def missing(seen: History, end: End | None = None) -> list[tuple[str, str]]:
    return [(row.rule, row.about) for row in unfinished(end or End(seen.checks.facts, boxes(), {}))]


def test_what_runs_as_wanted_is_finished(seen: History) -> None:
    assert missing(seen) == []


def test_a_replica_that_does_not_run_is_missing_unless_it_is_complete(seen: History) -> None:
    end = End(seen.checks.facts, boxes(n2=[]), {})
    assert missing(seen, end) == [("spec not reached", "service/web")]
    status = StatusDoc("n2", replicas=(ReplicaStatus("id-web", 2, 1, 1, "complete"),))
    assert missing(seen, End(seen.checks.facts, boxes(n2=[]), {"n2": status})) == []


def test_a_missing_slot_may_wait_only_when_nobody_has_room(seen: History) -> None:
    seen.assign(n2="")
    end = End(seen.checks.facts, boxes(n2=[]), {})
    assert missing(seen, end) == [("spec not reached", "service/web")]
    seen.put("decisions", "web", DecisionDoc("web", waiting=((2, "3 nodes: not enough memory"),)))
    assert missing(seen, end) == [("spec not reached", "service/web")], "n2 would have had room"
    seen.service("web", 2, reservations=Resources(100.0))
    assert missing(seen, end) == []


def test_an_old_version_is_missing_unless_the_update_is_paused(seen: History) -> None:
    seen.change("web", version=2)
    assert missing(seen) == [("spec not reached", "service/web")] * 2
    seen.put("decisions", "web", DecisionDoc("web", notes=("update to version 2 is paused: it does not stay up",)))
    assert missing(seen) == []


def test_an_old_version_may_wait_for_room_only_when_there_is_none(seen: History) -> None:
    for scale, found in ((3, []), (2, [("spec not reached", "service/web")] * 2)):
        placement = Placement(max_replicas_per_node=1)
        rows = {f"n{slot}": f"web.{slot}" if slot <= scale else "" for slot in (1, 2, 3)}
        seen.service("web", scale, placement=placement, update=UpdateConfig(order="start-first"))
        seen.assign(**rows)
        seen.change("web", version=2)
        stays = tuple(f"web.{slot} stays on n{slot} (version 1): no room" for slot in range(1, scale + 1))
        seen.put("decisions", "web", DecisionDoc("web", notes=stays))
        held = boxes(n3=[Made("c", "id-web", 3)] if scale == 3 else [])
        assert missing(seen, End(seen.checks.facts, held, {})) == found


def test_an_old_version_stays_on_a_paused_node_only_when_no_other_has_room(seen: History) -> None:
    """Found by seed 1055."""
    seen.service("web")
    seen.assign(n1="web.1", n2="")
    seen.change("web", version=2)
    seen.put("decisions", "web", DecisionDoc("web", notes=("web.1 stays on n1 (version 1): no room",)))
    end = End(seen.checks.facts, {"n1": [Made("a", "id-web", 1)]}, {})
    cases: tuple[tuple[Availability, Availability, int], ...] = (
        ("pause", "drain", 0), ("active", "drain", 1), ("pause", "active", 1)
    )  # fmt: skip
    seen.put("nodes", "n3", NodeDoc("n3", "id-n3", availability="drain"))
    for own, other, found in cases:
        seen.put("nodes", "n1", NodeDoc("n1", "id-n1", availability=own))
        seen.put("nodes", "n2", NodeDoc("n2", "id-n2", availability=other))
        assert missing(seen, end) == [("spec not reached", "service/web")] * found


def test_a_surplus_is_seen(seen: History) -> None:
    seen.change("web", scale=1)
    assert missing(seen) == [("surplus", "service/web")]
    seen.change("web", scale=2)
    seen.assign(n3="web.2/2")
    found = missing(seen, End(seen.checks.facts, boxes(n3=[Made("c", "id-web", 2, 2)]), {}))
    assert found == [("surplus", "service/web")]


def test_a_global_service_is_on_every_node_that_may(seen: History) -> None:
    seen.service("agent", mode="global")
    seen.assign(n1="web.1 agent.0", n2="web.2 agent.0")
    held = boxes()
    held = {node: [*held[node], Made(f"agent-{node}", "id-agent", 0)] for node in held}
    end = End(seen.checks.facts, held, {})
    assert missing(seen, end) == [("spec not reached", "service/agent")]
    seen.put("health", "n3", NodeHealthDoc("n3", "down"))
    assert missing(seen, end) == [("not ready", "node/n3")]


def test_no_leader_is_seen(seen: History) -> None:
    seen.remove("leader", "")
    assert missing(seen) == [("no leader", "controller/*")]


def test_what_is_left_over_is_seen(seen: History) -> None:
    facts = seen.checks.facts
    orphan = [Made("c", "id-gone", 1)]
    ended = [Made("c", "id-web", 7, running=False)]
    assert missing(seen, End(facts, boxes(n3=orphan), {})) == [("left over", "node/n3")]
    assert missing(seen, End(facts, boxes(n3=ended), {})) == [("left over", "node/n3")]
    assert missing(seen, End(facts, boxes(), {"n9": StatusDoc("n9")})) == [("left over", "node/n9")]
    assert missing(seen, End(facts, boxes(), {}, leases=2)) == [("left over", "controller/*")]
    assert missing(seen, End(facts, boxes(), {}, kept={"n1": [("journal", "x")]})) == [("left over", "node/n1")]
    sends = {"n1": [("net", "10.0.1.2", "id-web")]}
    assert missing(seen, End(facts, boxes(), {}, sends=sends)) == [("stale endpoint", "service/web")]
    there = boxes(n1=[Made("a", "id-web", 1, addresses=(("net", "10.0.1.2/16"),))])
    assert missing(seen, End(facts, there, {}, sends=sends)) == []
    seen.put("netplans", "net", NetworkPlanDoc("i", "net", 1, "10.0.0.0/16", (("n9", "10.0.0.0/24"),)))
    seen.put("svcplans", "gone", ServicePlanDoc("i", "gone"))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.assign(n9="")
    assert {about for _, about in missing(seen)} == {"network/net", "service/gone", "volume/data", "node/n9"}


def test_a_removed_or_stopped_service_leaves_nothing(seen: History) -> None:
    seen.change("web", stopped=True)
    assert missing(seen) == [("left over", "service/web")] * 2
    seen.remove("services", "web")
    assert missing(seen) == [("left over", "service/web")] * 2


def test_a_second_copy_of_a_volume_is_left_over_and_one_without_a_place_is_somebodys(seen: History) -> None:
    seen.put("volumes", "data", VolumeDoc("v", VolumeSpec("data")))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    held: dict[str, list[str]] = {"n1": ["data"], "n2": ["data", "old"], "n9": ["data"]}
    assert missing(seen, End(seen.checks.facts, boxes(), {}, volumes=held)) == [("volume", "volume/data")]
    held["n2"].remove("data")
    assert missing(seen, End(seen.checks.facts, boxes(), {}, volumes=held)) == []


def test_a_container_that_runs_without_its_volume_is_seen(seen: History) -> None:
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.service("db", container=ContainerSpec("db:1", mounts=(Mount("volume", "/data", "data"),)))
    seen.assign(n1="web.1 db.1", n2="web.2")
    held = boxes(n1=[Made("a", "id-web", 1), Made("d", "id-db", 1)])
    assert missing(seen, End(seen.checks.facts, held, {}, volumes={"n1": ["data"]})) == []
    assert missing(seen, End(seen.checks.facts, held, {}, volumes={"n1": []})) == [("volume", "volume/data")]
