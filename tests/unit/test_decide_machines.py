"""Machines come for replicas that cannot be placed, and go when nobody needs them; what a provider does wrong ends in a clear
state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.decide.machines.calls import due
from controller.decide.machines.explain import explain_group, for_service
from controller.decide.machines.types import GROUP_LABEL, Listed, MachineFacts, Memory, Outcome, Report, token_prefix
from model.autoscale import MachineTemplate, ProviderSpec
from model.documents import Machine, MachinesDoc, NodeGroupDoc, NodeInfo, VolumePlaceDoc, key
from model.spec import ContainerSpec, Mount, Placement, Port
from tests.properties.machine_world import GIB, QUICK, Cloud, World, group


def loaded(world: World, scale: int = 12, **changes: Any) -> World:
    world.cluster.service("web", scale=scale, cpus=1.0, **changes)
    return world


def until(world: World, true: Callable[[], bool], seconds: int = 300) -> None:
    for _ in range(seconds):
        if true():
            return
        world.second()
    raise AssertionError(f"not within {seconds} s")


def test_as_many_machines_as_the_waiting_replicas_need_and_they_run() -> None:
    world = loaded(World(group(), nodes=2), 13).run(10)
    assert world.names() == ["burst-1", "burst-2"]
    assert world.waiting() == 0
    assert "burst adds 2 machines (burst-1 to burst-2): 5 replicas of web had no room" in world.said


def test_load_alone_adds_nothing() -> None:
    world = loaded(World(group(), nodes=2), 8).run(30)
    assert world.names() == []


def test_machines_on_their_way_count_as_there() -> None:
    world = World(group(), nodes=1)
    world.clouds["burst"].boot_s = 30
    loaded(world, 8).run(25)
    assert world.names("burst", "joining") == ["burst-1"]
    loaded(world, 12).run(1)
    assert world.names() == ["burst-1", "burst-2"]


def test_never_more_than_max_and_it_says_so() -> None:
    world = loaded(World(group(max=2), nodes=1), 40).run(20)
    assert len(world.names()) == 2
    assert world.step.notes["burst"][0] == "28 replicas of web wait: the group has 2 machines of at most 2"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"placement": Placement(constraints=("node.labels.disk==ssd",))}, "constraint node.labels.disk==ssd not met"),
        ({"memory": 64 * GIB}, "not enough memory"),
        ({"placement": Placement(node="n1")}, "node n1 does not exist"),
    ],
)
def test_what_not_even_an_empty_machine_would_take_adds_nothing(changes: dict[str, Any], why: str) -> None:
    world = loaded(World(group(), nodes=1), 6, **changes).run(5)
    assert world.names() == []
    assert world.step.notes["burst"][0].endswith(f"of web would not fit an empty machine either: {why}")


def test_one_replica_that_waits_is_told_by_its_name() -> None:
    world = loaded(World(group(max=1), nodes=1), 9).run(20)
    world.cluster.service("box", scale=1, cpus=1.0, single=True)
    world.cluster.service("big", scale=1, cpus=6.0)
    world.run(3)
    assert "burst adds burst-1: web.9 had no room" not in world.said
    assert set(world.step.notes["burst"][:3]) == {
        "web.9 waits: the group has 1 machine of at most 1",
        "box waits: the group has 1 machine of at most 1",
        "big.1 would not fit an empty machine either: not enough cpus",
    }
    world = loaded(World(group(), nodes=1), 5).run(1)
    assert world.said == ["burst adds burst-1: web.5 had no room"]
    view = replace(World(group()).cluster.view(), groups={"burst": NodeGroupDoc("id", group())})
    told = explain_group(view, world.cluster.settings, "burst", 0)
    assert told.sentence == "burst: 0 machines of 0 to 4; it has made no machine yet"


def test_that_there_is_no_other_node_is_said() -> None:
    world = loaded(World(group(min=1), nodes=0), 1).run(200)
    assert world.step.notes["burst"] == ("burst-1 stays: web would not fit elsewhere: there is no other node",)


def test_a_volumes_place_adds_nothing() -> None:
    world = World(group(), nodes=1)
    world.cluster.volume("data")
    world.cluster.docs["places"]["data"] = VolumePlaceDoc("data", ("n1",))
    container = ContainerSpec("busybox", mounts=(Mount("volume", "/data", "data"),))
    loaded(world, 6, container=container).run(5)
    assert world.names() == []
    assert "volume data is on n1" in world.step.notes["burst"][0]


def test_the_templates_labels_count_and_the_node_gets_them() -> None:
    template = MachineTemplate(4.0, 8 * GIB, (("disk", "ssd"),))
    world = World(group(template=template), nodes=1)
    loaded(world, 3, placement=Placement(constraints=("node.labels.disk==ssd",))).run(10)
    assert world.names() == ["burst-1"]
    assert dict(world.doc("burst-1").labels) == {"disk": "ssd", GROUP_LABEL: "burst"}
    assert world.waiting() == 0


def test_host_ports_ask_for_a_machine_each() -> None:
    container = ContainerSpec("busybox", ports=(Port(80, 8080, mode="host"),))
    world = loaded(World(group(), nodes=1), 3, container=container).run(10)
    assert len(world.names()) == 2
    assert world.waiting() == 0


def test_the_group_that_would_stand_idle_the_least_is_chosen() -> None:
    big = MachineTemplate(32.0, 64 * GIB)
    world = loaded(World(group("big", template=big), group("small"), nodes=1), 7).run(10)
    assert (world.names("big"), world.names("small")) == ([], ["small-1"])
    loaded(world, 34).run(10)
    assert world.names("big") == ["big-1"], "one of 32 for 26 more is less waste than seven of four could place"


def test_what_only_the_other_group_can_run_goes_there() -> None:
    big = MachineTemplate(32.0, 64 * GIB)
    world = World(group("big", template=big), group("small"), nodes=1)
    world.cluster.service("huge", scale=1, cpus=16.0)
    loaded(world, 7).run(10)
    assert (world.names("big"), world.waiting()) == (["big-1"], 0)


def test_a_machine_smaller_than_promised_is_reckoned_as_it_is() -> None:
    world = World(group(max=10), nodes=1)
    world.cluster.service("web", scale=1, cpus=4.0)
    world.cluster.service("more", scale=1, cpus=4.0)
    world.second()
    world.groups["burst"] = replace(world.groups["burst"], spec=group(max=10))
    world.cluster.node("burst-1", NodeInfo(cpus=3.5, memory_bytes=8 * GIB))
    world.run(60)
    assert world.machines["burst"].number == 1, "another one like it would not help"
    assert "not enough cpus" in world.step.notes["burst"][0]


def test_min_and_buffer_are_kept() -> None:
    world = World(group(min=1, buffer=1), nodes=1).run(200)
    assert len(world.names("burst", "ready")) == 1, "an empty machine is spare"
    loaded(world, 6).run(20)
    assert len(world.names("burst", "ready")) == 2, "one works, one is spare"
    loaded(world, 0).run(200)
    assert len(world.names("burst", "ready")) == 1


def test_nothing_leaves_before_it_was_idle_long_enough_nor_soon_after_an_addition() -> None:
    world = loaded(World(group(idle_s=30.0, after_add_s=100.0), nodes=2), 12).run(10)
    loaded(world, 1).run(80)
    assert world.names("burst", "ready") == ["burst-1"]
    world.run(40)
    assert world.names() == []
    assert any("burst-1 is drained" in text and text.endswith(("for 95 s", "for 96 s")) for text in world.said)


def test_one_that_is_not_empty_at_a_time() -> None:
    world = loaded(World(group(), nodes=4), 32).run(10)
    assert len(world.names("burst", "ready")) == 4
    world.cluster.service("own", scale=4, cpus=1.0, placement=Placement(constraints=(f"node.labels.{GROUP_LABEL}==burst",)))
    loaded(world, 16).run(2)
    loaded(world, 0)
    most = 0
    for _ in range(200):
        world.second()
        most = max(most, len(world.names("burst", "draining")))
    assert (most, len(world.names())) == (1, 2), "at two, half of each is requested"


def test_empty_ones_go_together() -> None:
    world = loaded(World(group(), nodes=4), 32).run(10)
    loaded(world, 0)
    until(world, lambda: bool(world.names("burst", "draining")))
    assert len(world.names("burst", "draining")) == 4


def test_what_would_not_fit_elsewhere_stays() -> None:
    world = World(group(template=MachineTemplate(16.0, 32 * GIB)), nodes=1)
    world.cluster.service("big", scale=1, cpus=6.0)
    world.run(200)
    assert world.names("burst", "ready") == ["burst-1"]
    why = "burst-1 stays: big would not fit elsewhere: 1 node: not enough cpus"
    assert world.step.notes["burst"] == (why,)


def test_the_holder_of_a_volume_stays_unless_allowed() -> None:
    world = World(group(), nodes=1)
    world.cluster.volume("data")
    container = ContainerSpec("busybox", mounts=(Mount("volume", "/data", "data"),))
    loaded(world, 4).run(2)
    world.cluster.service("db", scale=1, cpus=1.0, container=container)
    world.run(10)
    assert world.cluster.docs["places"]["data"].nodes == ("burst-1",)
    loaded(world, 1).run(200)
    assert world.names("burst", "ready") == ["burst-1"]
    assert world.step.notes["burst"] == ("burst-1 stays: it holds volume data",)
    world.groups["burst"] = replace(world.groups["burst"], spec=group(remove_volumes=True))
    world.run(100)
    assert world.names() == []
    assert world.cluster.docs["places"]["data"].nodes == ("n1",)


def test_a_job_is_not_run_again_for_it() -> None:
    world = loaded(World(group(), nodes=1), 4).run(2)
    world.cluster.service("job", scale=1, cpus=1.0, mode="replicated-job")
    world.run(10)
    loaded(world, 1).run(200)
    assert world.names("burst", "ready") == ["burst-1"]
    assert world.step.notes["burst"] == ("burst-1 stays: job job runs there",)
    world.cluster.finish("job")
    world.cluster.agents()
    world.run(300)
    assert world.names("burst", "ready") == ["burst-1"]
    why = "job job has ended there 5 min ago, and elsewhere it would run again: `shoal service rm job` lets it go"
    assert world.step.notes["burst"] == (f"burst-1 stays: {why}",)
    del world.cluster.docs["services"]["job"]
    world.run(100)
    assert world.names() == []


def test_a_job_of_every_node_keeps_its_machine_until_it_has_ended() -> None:
    world = loaded(World(group(), nodes=1), 5).run(10)
    world.cluster.service("job", cpus=0.0, mode="global-job")
    loaded(world, 1).run(100)
    assert world.names("burst", "ready") == ["burst-1"]
    assert world.step.notes["burst"] == ("burst-1 stays: job job runs there",)
    world.cluster.finish("job")
    world.cluster.agents()
    world.run(100)
    assert world.names() == []
    assert [row.name for row in world.cluster.docs["assignments"]["n1"].services] == ["job", "web"], "and nowhere else"


def test_nothing_is_removed_while_many_nodes_are_not_ready() -> None:
    world = loaded(World(group(), nodes=3), 16).run(10)
    loaded(world, 1)
    world.cluster.dead.update(("n1", "n2"))
    world.run(100)
    assert world.names("burst", "ready") == ["burst-1"]
    assert "50% of all nodes are not ready: nothing is removed" in world.step.notes["burst"]
    world.cluster.dead.clear()
    world.run(100)
    assert world.names() == []


def test_a_draining_machine_is_taken_back_before_a_new_one_is_made() -> None:
    world = loaded(World(group(), nodes=2), 12).run(10)
    world.cluster.service("other", scale=1, cpus=1.0)
    loaded(world, 2)
    until(world, lambda: bool(world.names("burst", "draining")))
    loaded(world, 11)
    world.cluster.decide()
    world.decide()
    assert world.names("burst", "ready") == ["burst-1"]
    assert world.doc("burst-1").availability == "active"
    assert world.machines["burst"].number == 1
    assert "burst-1 stays: 4 replicas had no room" in world.said


def test_what_a_person_drained_or_paused_is_left_alone() -> None:
    world = loaded(World(group(), nodes=2), 12).run(10)
    loaded(world, 1)
    world.set_availability("burst-1", "pause")
    world.run(100)
    assert world.doc("burst-1").availability == "pause"
    assert world.step.notes["burst"] == ("burst-1 stays: somebody has set it to pause",)


def test_a_person_who_activates_it_keeps_it() -> None:
    world = loaded(World(group(), nodes=2), 12).run(10)
    loaded(world, 1)
    until(world, lambda: bool(world.names("burst", "draining")))
    world.set_availability("burst-1", "active")
    world.decide()
    assert world.names("burst", "ready") == ["burst-1"]
    assert "burst-1 stays: somebody has set it to active" in world.said


def test_a_failed_creation_is_deleted_and_the_next_one_waits_longer_each_time() -> None:
    world = World(group(), nodes=1)
    world.clouds["burst"].lies = {"create"}
    loaded(world, 6).run(300)
    failed = [text for text in world.said if "failed" in text]
    pauses = [float(text.split("the next one in ")[1].split(" s")[0]) for text in failed]
    assert pauses[:4] == [20, 40, 80, 160]
    assert failed[0].startswith("burst-1 failed: quota exceeded")
    assert len(world.names()) <= 1
    world.clouds["burst"].lies.clear()
    world.run(200)
    assert (world.waiting(), world.machines["burst"].failures) == (0, 0)


def test_a_machine_that_never_joins_is_given_up() -> None:
    world = World(group(), nodes=1)
    world.clouds["burst"].lies = {"mute"}
    loaded(world, 6).run(70)
    assert any("burst-1 failed: it has not joined after 60 s" in text for text in world.said)
    assert "after 1 failure the next machine is made" in "".join(world.step.notes["burst"])


def test_a_machine_that_joins_too_late_is_welcome_until_it_is_deleted() -> None:
    world = World(group(), nodes=1)
    world.clouds["burst"].boot_s = 66
    world.clouds["burst"].lies = {"no-delete"}
    loaded(world, 6).run(100)
    assert "burst-1" not in world.names("burst", "ready"), "its deletion had begun"
    assert "cannot be deleted: the service is unavailable" in [row.message for row in world.machines["burst"].machines]
    world.clouds["burst"] = Cloud()
    world.run(120)
    assert world.waiting() == 0


def test_a_list_that_omits_everything_takes_no_ready_node_away() -> None:
    world = loaded(World(group(), nodes=1), 6).run(10)
    world.clouds["burst"].lies = {"omit"}
    world.run(200)
    assert world.names("burst", "ready") == ["burst-1"]
    assert world.machines["burst"].machines[0].message == "the provider does not list it"


def test_a_machine_that_vanished_leaves_the_cluster_and_is_replaced() -> None:
    world = loaded(World(group(), nodes=2), 10).run(10)
    world.cluster.dead.add("burst-1")
    world.clouds["burst"].there.pop("burst-1")
    world.run(40)
    assert "burst-1 is deleted: the provider no longer lists it" in world.said
    assert world.names("burst", "ready") == ["burst-2"]
    assert "burst-1" not in world.cluster.docs["nodes"]


def test_a_machine_the_provider_says_is_deleted_and_lists_still_is_not_forgotten() -> None:
    world = loaded(World(group(), nodes=2), 10).run(10)
    loaded(world, 1)
    world.clouds["burst"].lies = {"keep"}
    world.run(200)
    (machine,) = world.machines["burst"].machines
    assert (machine.state, machine.message) == ("deleting", "the provider says that it is deleted, and lists it still")
    world.clouds["burst"].lies.clear()
    world.run(200)
    assert world.names() == []


def test_a_machine_of_ours_that_the_cluster_no_longer_knows_is_deleted_and_a_strangers_is_not() -> None:
    world = loaded(World(group(), nodes=2), 10).run(10)
    loaded(world, 1).run(100)
    assert world.names() == []
    world.clouds["burst"].there.update({"burst-1": 0, "their-machine": 0, "burst-99": 0})
    world.run(30)
    assert "burst-1" in world.clouds["burst"].deleted[1:]
    assert sorted(world.clouds["burst"].there) == ["burst-99", "their-machine"]
    note = "the provider also lists burst-99, their-machine, which this group has not made: left alone"
    assert note in world.step.notes["burst"]


def test_a_node_that_a_person_removed_is_deleted_at_the_provider() -> None:
    world = loaded(World(group(), nodes=2), 8).run(2)
    loaded(world, 10).run(10)
    world._forget("burst-1")
    world.cluster.dead.add("burst-1")
    world.run(20)
    assert world.clouds["burst"].deleted == ["burst-1"]


def test_a_new_leader_goes_on_with_what_was_stored() -> None:
    world = World(group(), nodes=1)
    world.clouds["burst"].boot_s = 20
    loaded(world, 6).run(2)
    world.new_leader()
    world.run(30)
    assert world.clouds["burst"].made == 1, "it asked the list first"
    assert (world.names("burst", "ready"), world.waiting()) == (["burst-1"], 0)


def test_a_new_leader_asks_again_for_what_was_not_made() -> None:
    world = World(group(), nodes=1)
    loaded(world, 6)
    world.cluster.decide()
    world.decide()  # stored, and the leader died before it asked
    world.cluster.now_ms += 1_000
    world.new_leader()
    world.run(20)
    assert (world.clouds["burst"].made, world.names("burst", "ready")) == (1, ["burst-1"])


def test_a_group_that_is_removed_gives_its_machines_back_and_goes() -> None:
    world = loaded(World(group(min=2), nodes=2), 8).run(20)
    assert len(world.names("burst", "ready")) == 2
    world.groups["burst"] = replace(world.groups["burst"], removing=True)
    world.run(60)
    assert (world.groups, world.machines) == ({}, {})
    assert world.clouds["burst"].there == {}
    assert world.waiting() == 0


def test_fewer_at_most_than_there_are_lets_the_surplus_go_at_once_where_it_fits() -> None:
    world = loaded(World(group(), nodes=2), 24).run(30)
    assert len(world.names("burst", "ready")) == 4
    loaded(world, 11)
    world.groups["burst"] = replace(world.groups["burst"], spec=group(max=2, idle_s=10_000.0))
    world.run(60)
    assert len(world.names()) == 2


def test_tokens_of_machines_that_do_not_wait_to_join_are_taken_back() -> None:
    world = loaded(World(group(), nodes=1), 6).run(3)
    waiting, other = f"{token_prefix('id-burst', 'burst-1')}aaaa", "feedfeedfeed0000"
    facts = replace(world.facts(), tokens=(waiting, other))
    from controller.decide.machines.decide import decide_machines

    assert key("tokens", waiting) not in decide_machines(facts, world.now_ms).plan.deletes
    world.run(10)
    facts = replace(world.facts(), tokens=(waiting, other))
    assert decide_machines(facts, world.now_ms).plan.deletes == (key("tokens", waiting),)


def test_machines_by_ssh_are_the_hosts_there_are() -> None:
    provider = ProviderSpec("ssh", hosts=("10.0.0.1", "10.0.0.2"))
    world = World(group(provider=provider, max=9), nodes=1)
    loaded(world, 40).run(3)
    assert [row.id for row in world.machines["burst"].machines] == ["10.0.0.1", "10.0.0.2"]


def test_at_most_eight_calls_at_a_time() -> None:
    document = MachinesDoc("g", "g", tuple(Machine(f"g-{at}", "creating", 5) for at in range(20)))
    found = due(group("g"), document, Memory(Report(tried_ms=10), calling=frozenset({("create", "g-0")})), 0, 20)
    assert len(found.create) == 7


def test_no_groups_cost_nothing() -> None:
    world = World(nodes=2)
    world.machines["left"] = MachinesDoc("x", "left")
    assert world.decide().plan.deletes == (key("machines", "left"),)
    facts = MachineFacts(world.cluster.view(), world.cluster.settings)
    from controller.decide.machines.decide import decide_machines

    assert decide_machines(facts, 1).plan.empty()


def test_another_groups_document_of_the_same_name_is_not_taken_over() -> None:
    world = loaded(World(group(), nodes=1), 6)
    world.machines["burst"] = MachinesDoc("id-old", "burst", failures=3, back_off_until_ms=10**15)
    world.run(10)
    assert world.names("burst", "ready") == ["burst-1"]
    assert isinstance(world.groups["burst"], NodeGroupDoc)
    assert QUICK["idle_s"] == 30.0


def test_what_is_wrong_with_the_provider_stands_in_the_store_for_who_shows_it() -> None:
    world = World(group(), nodes=1)
    strangers = (Listed("prod-db", ""), Listed("burst-77", ""))
    world.reports["burst"] = Report(5, strangers, "list: credentials expired", 9, ("no key",))
    world.decide()
    lines = (
        "no key", "its provider gives no list: list: credentials expired",
        "the provider also lists burst-77, prod-db, which this group has not made: left alone",
    )  # fmt: skip
    assert world.machines["burst"].problems == lines
    assert world.said == ["no key"]
    world.new_leader()
    world.decide()
    assert world.machines["burst"].problems == lines, "who has heard nothing yet believes who led before"
    view = replace(world.cluster.view(), groups=world.groups, machines=world.machines)
    assert explain_group(view, world.cluster.settings, "burst", world.now_ms).lines == lines
    world.reports["burst"] = Report(20, (), "", 20)
    world.decide()
    assert not world.machines["burst"].problems


def test_many_strangers_are_not_all_named() -> None:
    world = World(group(), nodes=1)
    world.reports["burst"] = Report(5, tuple(Listed(f"x{at}" + "y" * 100, "") for at in range(9)), "", 5)
    world.decide()
    (line,) = world.machines["burst"].problems
    assert line.count("y" * 58) == 5
    assert "4 more" in line
    assert len(line) < 500


def test_a_machine_that_was_never_made_is_gone_although_it_cannot_be_deleted() -> None:
    world = loaded(World(group(), nodes=1), 6)
    world.clouds["burst"].lies = {"create", "no-delete"}
    until(world, lambda: bool(world.names()), 5)
    world.groups["burst"] = replace(world.groups["burst"], removing=True)
    until(world, lambda: not world.groups, 30)
    assert "burst-1 is gone: it was never made, and is not listed" in world.said


def test_without_a_list_or_once_made_it_is_not_taken_for_gone() -> None:
    for lies in ({"create", "no-delete", "no-list"}, {"mute", "no-delete"}):
        world = loaded(World(group(provision_s=5.0), nodes=1), 6)
        world.clouds["burst"].lies = lies
        world.run(90)
        assert "burst-1" in world.names()


def test_a_program_that_cannot_be_run_has_made_nothing() -> None:
    world = loaded(World(group(), nodes=1), 6)
    world.decide()
    world.cluster.decide()
    world.decide()
    world.outcomes["burst"]["create", "burst-1"] = Outcome(world.now_ms, False, "", "no such program", begun=False)
    world.decide()
    document = world.machines["burst"]
    assert (document.machines, document.failures) == ((), 1)
    assert document.back_off_until_ms > world.now_ms


def test_a_group_removed_by_force_goes_at_once_and_its_nodes_stay() -> None:
    world = loaded(World(group(), nodes=1), 6).run(10)
    assert world.names("burst", "ready") == ["burst-1"]
    token = f"{token_prefix('id-burst', 'burst-1')}abcdef01"
    world.groups["burst"] = replace(world.groups["burst"], removing=True, forget=True)
    from controller.decide.machines.decide import decide_machines

    plan = decide_machines(replace(world.facts(), tokens=(token,)), world.now_ms).plan
    assert set(plan.deletes) == {key("tokens", token), key("nodegroups", "burst"), key("machines", "burst")}
    assert plan.nodes == ()


def test_a_service_without_room_is_told_what_node_groups_do_for_it() -> None:
    world = World(group(max=1), nodes=1)

    def lines(service: str = "web") -> tuple[str, ...]:
        view = replace(world.cluster.view(), groups=world.groups, machines=world.machines)
        return for_service(view, world.cluster.settings, service, world.now_ms)

    loaded(world, 12).run(2)
    assert lines()[0].startswith("node group burst: burst-1 (id-burst-1) is joining since ")
    assert lines()[1] == "node group burst: 4 replicas of web wait: the group has 1 machine of at most 1"
    assert lines("other") == ()
    failing = World(group(), nodes=1)
    failing.clouds["burst"].lies = {"create"}
    world = loaded(failing, 6).run(4)
    waits, why = lines()
    assert waits.startswith("node group burst: 2 replicas of web wait: after 1 failure the next machine is made in ")
    assert why == "node group burst: burst-1 failed: quota exceeded"
    loaded(world, 1).run(2)
    assert lines() == ()
