"""Each checker of safety: silent about a good history, and not about a bad one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model.documents import NetworkPlanDoc, NodeDoc, NodeHealthDoc, ServicePlanDoc, VolumeDoc, VolumePlaceDoc
from model.spec import ContainerSpec, Mount, Placement, Port, Resources, RestartPolicy, VolumeSpec
from tests.sim.history import History

MOUNTS = ContainerSpec("db:1", mounts=(Mount("volume", "/data", "data"),))


@pytest.fixture
def seen() -> History:
    return History()


def test_a_good_life_is_no_violation(seen: History) -> None:
    seen.service("web", 2, reservations=Resources(1.0))
    seen.assign(n1="web.1", n2="web.2")
    boxes = {node: seen.start(node, f"web.{slot}") for slot, node in ((1, "n1"), (2, "n2"))}
    seen.later(60)
    seen.change("web", version=2)
    for slot, node in ((1, "n1"), (2, "n2")):
        seen.assign(**{node: f"web.{slot}@2/9"})
        seen.end(node, boxes[node])
        boxes[node] = seen.start(node, f"web.{slot}@2/9")
        seen.later(10)
    seen.change("web", scale=1)
    seen.assign(n2="")
    seen.end("n2", boxes["n2"])
    seen.later(60)
    seen.lead("c2", 2)
    seen.remove("services", "web")
    seen.assign("c2", n1="")
    seen.end("n1", boxes["n1"])
    assert seen.rules == []


# ---- leaders


def test_a_deposed_leader_that_writes_is_seen(seen: History) -> None:
    seen.service("web")
    seen.lead("c2", 2)
    seen.assign("c1", n1="web.1")
    assert seen.rules == ["two leaders"]
    assert "c2 leads (epoch 2)" in seen.texts


def test_an_epoch_that_falls_is_seen(seen: History) -> None:
    seen.lead("c2", 3)
    seen.lead("c1", 2)
    assert set(seen.rules) == {"epoch"}


# ---- policy


def test_more_slots_than_the_scale_are_seen(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    seen.assign(n3="web.3")
    assert seen.rules == ["beyond policy"]


def test_a_picture_that_is_a_little_old_is_excused(seen: History) -> None:
    seen.service("web", 3)
    seen.change("web", scale=1)
    seen.later(1)
    seen.assign(n1="web.1", n2="web.2", n3="web.3")
    assert seen.rules == []


def test_two_holders_of_a_slot_are_a_move_and_three_are_not(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.assign(n2="web.1/2")
    assert seen.rules == []
    seen.assign(n3="web.1/3")
    assert seen.rules == ["beyond policy"]


def test_holders_on_nodes_that_are_down_do_not_count(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.lose("n1")
    seen.assign(n2="web.1/2")
    seen.later(30)
    seen.lose("n2")
    seen.assign(n3="web.1/3")
    assert seen.rules == []


def test_a_global_service_has_one_replica_a_node(seen: History) -> None:
    seen.service("agent", mode="global")
    seen.assign(n1="agent.0", n2="agent.0")
    assert seen.rules == []
    seen.assign(n1="agent.0 agent.0/2")
    assert seen.rules == ["beyond policy"]


# ---- capacity, ports, placement


def test_more_than_a_node_has_is_seen(seen: History) -> None:
    seen.service("web", 5, reservations=Resources(1.0, 1 << 30))
    seen.assign(n1="web.1 web.2 web.3 web.4")
    assert seen.rules == []
    seen.assign(n1="web.1 web.2 web.3 web.4 web.5")
    assert seen.rules == ["capacity"]


def test_replacing_on_a_full_node_takes_no_more(seen: History) -> None:
    seen.service("web", 4, reservations=Resources(1.0))
    seen.assign(n1="web.1 web.2 web.3 web.4")
    seen.change("web", version=2)
    seen.assign(n1="web.1@2 web.2 web.3 web.4")
    assert seen.rules == []


def test_a_reservation_that_grows_under_what_runs_is_no_violation(seen: History) -> None:
    seen.service("web", 4, reservations=Resources(1.0))
    seen.assign(n1="web.1 web.2 web.3 web.4")
    seen.service("web", 4, reservations=Resources(2.0))
    seen.later(30)
    seen.service("other")
    seen.assign(n1="web.1 web.2 web.3 web.4 other.1")
    assert seen.rules == []


def test_a_port_of_a_node_given_twice_is_seen(seen: History) -> None:
    for name in ("web", "other"):
        seen.service(name, container=ContainerSpec(name, ports=(Port(80, 8080, mode="host"),)))
    seen.assign(n1="web.1", n2="other.1")
    assert seen.rules == []
    seen.assign(n1="web.1 other.1/2", n2="")
    assert "port" in seen.rules


@pytest.mark.parametrize(
    ("kind", "document", "text"),
    [
        ("nodes", NodeDoc("n1", "id-n1", availability="drain"), "drain"),
        ("nodes", NodeDoc("n1", "id-n1", availability="pause"), "pause"),
        ("nodes", NodeDoc("n1", "id-n1", labels=(("zone", "b"),)), "constraints"),
        ("health", NodeHealthDoc("n1", "unreachable"), "unreachable"),
        ("health", NodeHealthDoc("n1", "down"), "down"),
    ],
)
def test_a_node_that_may_not_be_used_is_seen(seen: History, kind: str, document: Any, text: str) -> None:
    seen.put("nodes", "n1", NodeDoc("n1", "id-n1", labels=(("zone", "a"),)))
    seen.service("web", placement=Placement(constraints=("node.labels.zone==a",)))
    if kind == "health":
        seen.trouble.add("n1")
    seen.put(kind, "n1", document)
    seen.later(1)
    seen.assign(n1="web.1")
    assert seen.rules == [], "it was allowed a second ago"
    seen.later(30)
    seen.assign(n1="web.1 web.2/2")
    assert "placement" in seen.rules
    assert text in seen.texts


def test_too_many_on_one_node_are_seen(seen: History) -> None:
    seen.service("web", 2, placement=Placement(max_replicas_per_node=1))
    seen.assign(n1="web.1 web.2")
    assert seen.rules == ["placement"]


# ---- volumes


def test_a_replica_away_from_its_volume_is_seen(seen: History) -> None:
    seen.put("volumes", "data", VolumeDoc("v", VolumeSpec("data")))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.service("db", container=MOUNTS)
    seen.assign(n1="db.1")
    assert seen.rules == []
    seen.assign(n1="", n2="db.1/2")
    assert "volume" in seen.rules


def test_a_volume_that_changes_its_node_is_seen(seen: History) -> None:
    seen.put("volumes", "data", VolumeDoc("v", VolumeSpec("data")))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.put("places", "data", VolumePlaceDoc("data", ("n2",)))
    assert seen.rules == ["volume"]


def test_a_volume_of_a_removed_node_begins_anew(seen: History) -> None:
    seen.put("volumes", "data", VolumeDoc("v", VolumeSpec("data")))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.remove("nodes", "n1")
    seen.put("places", "data", VolumePlaceDoc("data", ("n2",)))
    assert seen.rules == []


def test_two_copies_of_a_volume_are_seen_unless_it_is_a_global_services(seen: History) -> None:
    seen.service("db", container=MOUNTS, mode="global")
    seen.put("places", "data", VolumePlaceDoc("data", ("n1", "n2")))
    assert seen.rules == []
    seen.remove("services", "db")
    seen.service("db", container=MOUNTS)
    seen.put("places", "data", VolumePlaceDoc("data", ("n1", "n2", "n3")))
    assert seen.rules == ["volume"]


def test_a_volume_that_was_removed_and_is_still_there_is_seen_unless_a_service_names_it(seen: History) -> None:
    seen.checks.volume_removed("data", [])
    assert seen.rules == []
    seen.service("db", container=MOUNTS)
    seen.checks.volume_removed("data", ["n2"])
    assert seen.rules == []
    seen.remove("services", "db")
    seen.later(200)
    seen.checks.volume_removed("data", ["n2"])
    assert seen.rules == ["volume"]
    assert "it was removed, nobody said why not, and it is still on n2" in seen.texts


# ---- taking away


def test_taking_away_what_nobody_asked_for_is_seen(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    seen.later(30)
    seen.assign(n1="")
    assert seen.rules == ["removed without reason"]


def test_what_a_lost_node_holds_may_go_when_the_service_is_scaled_in(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    seen.lose("n1")
    seen.service("web", 1)
    seen.later(60)
    seen.assign(n1="")
    assert seen.rules == []


@pytest.mark.parametrize(("later_s", "found"), [(0, []), (60, ["removed without reason"])])
def test_what_was_decided_before_a_node_was_down_may_count_on_it(seen: History, later_s: float, found: list[str]) -> None:
    """The leader's loops decide beside each other (seed 20261125218)."""
    seen.service("web", 3)
    seen.assign(n1="web.1 web.3", n2="web.2")
    seen.later(60)
    seen.change("web", scale=2)
    seen.lose("n1")
    seen.later(later_s)
    seen.assign(n1="web.3")
    assert seen.rules == found


def test_everything_moved_after_a_failover_is_seen(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    seen.start("n1", "web.1")
    seen.start("n2", "web.2")
    seen.later(30)
    seen.lead("c2", 2)
    seen.assign("c2", n1="web.2/2", n2="web.1/2")
    assert seen.rules == ["removed without reason"]


def test_the_surplus_of_a_node_that_came_back_may_go(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.start("n1", "web.1")
    seen.lose("n1")
    seen.assign(n2="web.1/2")
    seen.start("n2", "web.1/2")
    seen.later(60)
    seen.put("health", "n1", NodeHealthDoc("n1", "ready"))
    seen.later(1)
    seen.assign(n2="")
    assert seen.rules == []


def test_trimming_the_one_that_ran_is_seen(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.assign(n2="web.1/2")
    seen.start("n2", "web.1/2")
    seen.later(60)
    seen.assign(n2="")
    assert seen.rules == ["removed without reason"]
    assert "not one of" in seen.texts


def test_a_drained_node_may_be_left(seen: History) -> None:
    seen.put("volumes", "data", VolumeDoc("v", VolumeSpec("data")))
    seen.put("places", "data", VolumePlaceDoc("data", ("n1",)))
    seen.service("db", container=MOUNTS)
    seen.assign(n1="db.1")
    seen.later(60)
    seen.put("nodes", "n1", NodeDoc("n1", "id-n1", availability="drain"))
    seen.assign(n1="")
    assert seen.rules == []


# ---- containers


def test_a_container_that_was_never_assigned_is_seen(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.start("n2", "web.1")
    assert seen.rules == ["not assigned"]


def test_a_start_long_after_the_assignment_went_is_seen_unless_the_node_is_cut_off(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1", n2="")
    seen.remove("services", "web")
    seen.assign(n1="")
    seen.later(5)
    box = seen.start("n1", "web.1")
    seen.end("n1", box)
    seen.later(60)
    seen.trouble.add("n1")
    seen.end("n1", seen.start("n1", "web.1"))
    assert seen.rules == []
    seen.trouble.clear()
    seen.start("n1", "web.1")
    assert seen.rules == ["not assigned"]


def test_an_ended_replica_on_a_lost_node_keeps_its_slot(seen: History) -> None:
    seen.service("job", 2, container=ContainerSpec("x", restart=RestartPolicy("on-failure")))
    seen.assign(n1="job.1", n2="job.2")
    seen.lose("n1")
    seen.change("job", scale=1)
    seen.assign(n2="")
    assert seen.rules == []


def test_a_node_that_was_removed_while_it_was_away_goes_on_until_its_owner_ends_it(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    box = seen.start("n1", "web.1")
    seen.remove("nodes", "n1")
    seen.assign(n1="")
    seen.later(60)
    seen.end("n1", box)
    seen.start("n1", "web.1")
    assert seen.rules == []


def test_two_containers_of_one_slot_on_a_node_are_seen(seen: History) -> None:
    seen.service("web")
    seen.change("web", version=2)
    seen.assign(n1="web.1 web.1@2/2")
    seen.start("n1", "web.1")
    seen.start("n1", "web.1@2/2")
    assert seen.rules == [], "both are wanted: an update that starts the new one first"
    seen.start("n1", "web.1@2/2", "again")
    assert seen.rules == ["runs twice"]


def test_an_old_life_that_still_runs_beside_the_new_one_is_seen(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.start("n1", "web.1")
    seen.change("web", version=2)
    seen.assign(n1="web.1@2/2")
    seen.start("n1", "web.1@2/2")
    assert seen.rules == ["runs twice"]


def test_a_healthy_container_that_is_stopped_is_seen(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    box = seen.start("n1", "web.1")
    seen.later(60)
    seen.trouble.add("n1")
    seen.end("n1", box)
    assert seen.rules == ["stopped without reason"], "no trouble excuses it"


def test_a_new_services_container_is_no_less_safe(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.later(1)
    seen.end("n1", seen.start("n1", "web.1"))
    assert seen.rules == ["stopped without reason"]


@pytest.mark.parametrize("why", ["crashed", "power"])
def test_what_ends_by_itself_is_nobodys_fault(seen: History, why: str) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.end("n1", seen.start("n1", "web.1"), why)
    assert seen.rules == []


def test_a_stopped_services_containers_may_end(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    box = seen.start("n1", "web.1")
    seen.later(60)
    seen.change("web", stopped=True)
    seen.end("n1", box)
    assert seen.rules == []


def test_a_restart_storm_is_seen_unless_the_service_asked_for_it(seen: History) -> None:
    seen.service("calm", container=ContainerSpec("c", restart=RestartPolicy(delay_s=0.0)))
    seen.service("web")
    seen.assign(n1="web.1 calm.1")
    for _ in range(10):
        seen.later(1)
        seen.end("n1", seen.start("n1", "calm.1"), "crashed")
    assert seen.rules == []
    for number in range(10):
        seen.later(1)
        seen.end("n1", seen.start("n1", "web.1", f"c{number}"), "crashed")
    assert seen.rules == ["restart storm"]


# ---- addresses


def test_an_address_twice_is_seen(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    first = seen.start("n1", "web.1", addresses=(("net", "10.0.1.2/16"),))
    seen.end("n1", first, "crashed")
    seen.start("n1", "web.1", "again", addresses=(("net", "10.0.1.2/16"),))
    seen.start("n3", "other.1", addresses=(("second", "10.0.1.2/16"), ("bridge", "172.17.0.2/16")))
    assert "address" not in seen.rules
    seen.start("n2", "web.2", addresses=(("net", "10.0.1.2/16"), ("bridge", "172.17.0.2/16")))
    assert "address" in seen.rules


def test_an_address_twice_is_seen_when_it_came_while_the_container_ran(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    one = seen.start("n1", "web.1", addresses=(("net", "10.0.1.2/16"),))
    other = seen.start("n2", "web.2")
    seen.checks.container_rewired("n1", replace(one, addresses=()))
    seen.checks.container_rewired("n2", replace(other, addresses=(("net", "10.0.1.2/16"),)))
    assert seen.rules == []
    seen.checks.container_rewired("n1", one)
    assert seen.rules == ["address"]


def test_an_address_on_a_node_that_is_cut_off_is_excused(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1", n2="web.2")
    seen.start("n1", "web.1", addresses=(("net", "10.0.1.2/16"),))
    seen.trouble.add("n1")
    seen.start("n2", "web.2", addresses=(("net", "10.0.1.2/16"),))
    assert seen.rules == []


def test_a_port_twice_on_a_node_is_seen(seen: History) -> None:
    seen.service("web", 2)
    seen.assign(n1="web.1 web.2", n2="")
    seen.start("n1", "web.1", ports=(("80/tcp", "0.0.0.0:8080"),))
    assert seen.rules == []
    seen.start("n1", "web.2", ports=(("81/tcp", "0.0.0.0:8080"),))
    assert seen.rules == ["port"]


def test_an_address_that_others_still_send_to_is_seen(seen: History) -> None:
    seen.service("web")
    seen.assign(n1="web.1")
    seen.checks.ground.believes["n3"] = lambda network, address: ("id-web",) if address == "10.0.1.2" else ()
    seen.start("n1", "web.1", addresses=(("net", "10.0.1.2/16"),))
    assert seen.rules == []
    seen.service("other", 2)
    seen.assign(n2="other.1 other.2")
    seen.start("n2", "other.1", addresses=(("net", "10.0.1.3/16"),))
    seen.trouble.add("n3")
    seen.start("n2", "other.2", addresses=(("net", "10.0.1.2/16"),))
    assert "stale endpoint" not in seen.rules
    seen.trouble.clear()
    seen.start("n2", "other.2", "again", addresses=(("net", "10.0.1.2/16"),))
    assert "stale endpoint" in seen.rules


def test_networks_and_services_share_nothing(seen: History) -> None:
    def network(name: str, vni: int, subnet: str, **slices: str) -> None:
        seen.put("netplans", name, NetworkPlanDoc(f"id-{name}", name, vni, subnet, tuple(slices.items())))

    network("a", 1, "10.1.0.0/16", n1="10.1.0.0/24", n2="10.1.1.0/24")
    network("b", 2, "10.2.0.0/16", n1="10.2.0.0/24")
    network("b", 2, "10.2.0.0/16", n1="10.2.0.0/24", n2="10.2.1.0/24")
    seen.put("svcplans", "web", ServicePlanDoc("w", "web", (("a", "10.1.9.1"),), (Port(80, 8080),)))
    seen.put("svcplans", "web", ServicePlanDoc("w", "web", (("a", "10.1.9.1"),), (Port(80, 8080), Port(81, 8081))))
    assert seen.rules == []
    network("c", 2, "10.3.0.0/16")
    network("d", 4, "10.1.128.0/17")
    network("e", 5, "10.5.0.0/16", n1="10.5.0.0/24", n2="10.5.0.0/25")
    network("f", 6, "10.6.0.0/16", n1="10.7.0.0/24")
    assert [violation.about for violation in seen.checks.violations] == [f"network/{name}" for name in "cdef"]
    seen.put("svcplans", "x", ServicePlanDoc("x", "x", (("a", "10.1.9.1"),)))
    seen.put("svcplans", "y", ServicePlanDoc("y", "y", (), (Port(9, 8081),)))
    assert seen.rules[-2:] == ["address", "port"]
