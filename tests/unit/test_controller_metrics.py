"""What /metrics says of the cluster, from documents; and that counting what changed gives what counting everything gives."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.api.metrics import Facts, render
from controller.api.metrics_scaling import Measured, count, measured
from controller.api.tally import READY, Tally
from controller.clock import RealClock
from controller.decide.replicas import replica_rows
from controller.loops.measuring import Measuring
from controller.loops.picture import KINDS, Change, Snapshot
from controller.loops.views import view_of
from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.queries import Queries
from controller.samples.store import MemorySamples
from model.autoscale import Autoscale, NodeGroupSpec, ProviderSpec, ScalingMetric
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    DecisionDoc,
    LeaderDoc,
    Machine,
    MachinesDoc,
    MetricReading,
    NodeDoc,
    NodeGroupDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ScaleDecision,
    ScaleDoc,
    ServiceDoc,
    StatusDoc,
)
from model.spec import ContainerSpec, Mode, Resources, ServiceSpec
from protos import node_pb2 as pb

Documents = dict[str, dict[str, Any]]


def service(name: str, scale: int, version: int = 1, mode: Mode = "replicated", stopped: bool = False) -> ServiceDoc:
    spec = ServiceSpec(name, ContainerSpec("demo/web"), mode=mode, reservations=Resources(0.5, 64 << 20))
    return ServiceDoc(f"id-{name}", spec, scale, version, stopped)


def cluster(*services: ServiceDoc, **nodes: str) -> Documents:
    """Documents with these services and nodes (name and state), nothing assigned."""
    documents: Documents = {kind: {} for kind in KINDS}
    documents["services"] = {doc.spec.name: doc for doc in services}
    documents["nodes"] = {name: NodeDoc(name, name) for name in nodes}
    documents["health"] = {name: NodeHealthDoc(name, state) for name, state in nodes.items()}  # type: ignore[arg-type]
    documents["leader"] = {"": LeaderDoc("c1", 7)}
    return documents


def run(documents: Documents, node: str, name: str, *replicas: tuple[int, int, str, str]) -> None:
    """Assigns (slot, version, state, health) of a service to the node; state "" is not reported."""
    rows = AssignedService.of(f"id-{name}", name, [Assigned(slot, version, 5) for slot, version, _, _ in replicas])
    before = documents["assignments"].get(node, AssignmentDoc(node)).services
    documents["assignments"][node] = AssignmentDoc(node, 1, (*before, rows))
    rows_told = [(slot, version, state, health) for slot, version, state, health in replicas if state]
    told = [ReplicaStatus(f"id-{name}", slot, version, 5, state, health=health) for slot, version, state, health in rows_told]
    seen = documents["status"].get(node, StatusDoc(node)).replicas
    documents["status"][node] = StatusDoc(node, NodeInfo(cpus=2, memory_bytes=1 << 30), 1, 0, (*seen, *told))


def snapshot(documents: Documents) -> Snapshot:
    return Snapshot({kind: dict(rows) for kind, rows in documents.items()}, {}, 42)


def scrape(documents: Documents, leads: bool = True, tally: Tally | None = None) -> dict[str, float]:
    return samples_of(render(tally or Tally(), Facts(snapshot(documents), leads, 3)).decode())


def samples_of(text: str) -> dict[str, float]:
    """By name and labels, as they stand in the text."""
    rows = re.findall(r"^(shoal_\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def of(found: dict[str, float], what: str, name: str) -> float:
    return found[f'shoal_service_replicas_{what}{{service="{name}"}}']


def test_a_service_is_told_as_it_is() -> None:
    documents = cluster(service("web", 6, version=2), n1="ready", n2="ready")
    run(documents, "n1", "web", (1, 2, "running", "healthy"), (2, 2, "running", "starting"), (3, 1, "running", ""))
    run(documents, "n2", "web", (4, 2, "failed", ""), (5, 2, "", ""))
    documents["decisions"]["web"] = DecisionDoc("web", waiting=((6, "no node has room"),))
    found = scrape(documents)
    told = {what: of(found, what, "web") for what in ("wanted", "ready", "unplaced", "failed", "outdated")}
    assert told == {"wanted": 6, "ready": 2, "unplaced": 1, "failed": 1, "outdated": 1}
    assert found['shoal_replicas{state="assigned"}'] == 1
    assert found['shoal_service_reserved_cpu_cores{service="web"}'] == 0.5


def test_replicas_of_a_node_that_is_down_do_not_count() -> None:
    documents = cluster(service("web", 2), n1="ready", n2="down")
    run(documents, "n1", "web", (1, 1, "running", ""))
    run(documents, "n2", "web", (2, 1, "running", ""))
    found = scrape(documents)
    assert (of(found, "ready", "web"), of(found, "unplaced", "web"), of(found, "outdated", "web")) == (1, 1, 0)
    assert found['shoal_replicas{state="lost"}'] == 1


def test_a_global_service_wants_what_it_has_and_what_waits() -> None:
    documents = cluster(service("everywhere", 1, mode="global"), n1="ready", n2="ready", n3="ready")
    run(documents, "n1", "everywhere", (0, 1, "running", ""))
    run(documents, "n2", "everywhere", (0, 1, "preparing", ""))
    documents["decisions"]["everywhere"] = DecisionDoc("everywhere", waiting=((0, "n3: no room"),))
    found = scrape(documents)
    assert [of(found, what, "everywhere") for what in ("wanted", "ready", "unplaced")] == [3, 1, 1]


def test_a_stopped_service_wants_nothing_and_a_complete_job_is_ready() -> None:
    documents = cluster(service("idle", 3, stopped=True), service("job", 1, mode="replicated-job"), n1="ready")
    run(documents, "n1", "job", (1, 1, "complete", ""))
    found = scrape(documents)
    assert (of(found, "wanted", "idle"), of(found, "unplaced", "idle"), of(found, "ready", "job")) == (0, 0, 1)


def test_nodes_are_counted_by_state_and_availability_and_offer_what_is_usable() -> None:
    documents = cluster(n1="ready", n2="ready", n3="down")
    documents["nodes"]["n2"] = NodeDoc("n2", "n2", availability="drain")
    for name in documents["nodes"]:
        documents["status"][name] = StatusDoc(name, NodeInfo(cpus=2, memory_bytes=1 << 30))
    documents["nodes"]["n4"] = NodeDoc("n4", "n4")
    found = scrape(documents)
    assert found['shoal_nodes{availability="active",state="ready"}'] == 1
    assert found['shoal_nodes{availability="drain",state="ready"}'] == 1
    assert found['shoal_nodes{availability="active",state="unreachable"}'] == 1
    assert (found["shoal_cluster_cpu_cores"], found["shoal_cluster_memory_bytes"]) == (2, 1 << 30)


def test_only_the_leader_tells_of_the_cluster() -> None:
    documents = cluster(service("web", 1), n1="ready")
    led, standby = scrape(documents), scrape(documents, leads=False)
    assert (led["shoal_leader"], led["shoal_epoch"], led["shoal_sessions"]) == (1, 7, 3)
    assert standby["shoal_leader"] == 0
    assert not [name for name in standby if name.startswith(("shoal_service_", "shoal_nodes", "shoal_replicas"))]


POLICY = Autoscale(1, 9, (ScalingMetric("cpu", 0.6), ScalingMetric("connections", 50.0)))


def autoscaled() -> ServiceDoc:
    doc = service("web", 2)
    return replace(doc, spec=replace(doc.spec, autoscale=POLICY))


def test_what_an_autoscaler_sees_and_wants_is_told() -> None:
    documents = cluster(autoscaled(), service("fixed", 1))
    reading = MetricReading("connections", 150.0, 2, 3)
    last = ScaleDecision(1, 2, 3, "more", (reading,))
    documents["scales"] = {"web": ScaleDoc("id-web", "web", 3, failing=(("cpu", 40_000),), last=last)}
    facts = Facts(snapshot(documents), True, 0, 42_000, {"web": Measured({"connections": 150.0}, 4)})
    found = samples_of(render(Tally(), facts).decode())
    replicas = {what: found[f'shoal_autoscale_replicas_{what}{{service="web"}}'] for what in ("min", "max", "wanted")}
    assert replicas == {"min": 1, "max": 9, "wanted": 3}
    assert found['shoal_service_held_callers{service="web"}'] == 4
    told = {name: value for name, value in found.items() if name.startswith("shoal_autoscale_metric") and value}
    assert told == {
        'shoal_autoscale_metric_target{metric="cpu",service="web"}': 0.6,
        'shoal_autoscale_metric_target{metric="connections",service="web"}': 50,
        'shoal_autoscale_metric_value{metric="connections",service="web"}': 150,
        'shoal_autoscale_metric_wanted{metric="connections",service="web"}': 3,
        'shoal_autoscale_metric_failing_seconds{metric="cpu",service="web"}': 2,
    }


def test_what_was_known_of_an_earlier_service_of_that_name_is_not_told() -> None:
    documents = cluster(autoscaled())
    documents["scales"] = {"web": ScaleDoc("another", "web", 7)}
    assert not [name for name in scrape(documents) if name.startswith("shoal_autoscale_replicas_wanted{")]


async def test_the_newest_of_what_nodes_measure_counts() -> None:
    clock = RealClock()
    samples = MemorySamples(clock)
    at_ms = int(clock.now() * 1000)
    key = pb.ReplicaKey(service_id="id-web", slot=1, created_ms=5)
    row = pb.ReplicaSample(key=key, cpu_cores=0.25, memory_bytes=1000)
    row.metrics.add(name="jobs", value=4.0)
    flow = pb.TrafficSample(service_id="id-web", replica="web.1", connections_per_s=30.0)
    samples.take("n1", pb.Samples(at_ms=at_ms, interval_ms=3000, replicas=[row], traffic=[flow]))
    samples.wake("n1", "id-web", 3)
    prometheus = MemoryPrometheus()
    prometheus.answers["up"] = [7.0]
    queries = Queries(prometheus, clock, "http://p:9090")
    asking = asyncio.create_task(queries.run())
    await asyncio.sleep(0)  # it begins with nothing
    queries.series("", "up")  # who reads it has it asked
    for _ in range(20):
        await asyncio.sleep(0)
    asking.cancel()
    doc = autoscaled()
    more = (
        ScalingMetric("prometheus", 5.0, "up"),
        ScalingMetric("prometheus", 5.0, "down"),
        ScalingMetric("scrape", 5.0, "jobs"),
    )
    policy = replace(POLICY, metrics=(*POLICY.metrics, *more))
    facts = snapshot(cluster(replace(doc, spec=replace(doc.spec, autoscale=policy)), service("fixed", 1)))
    found = await measured(facts, samples, Measuring(samples, queries))
    assert found == {"web": Measured({"cpu": 0.5, "connections": 30.0, more[0].name: 7.0, more[2].name: 4.0}, 3)}


def test_a_groups_machines_are_told_by_state() -> None:
    documents = cluster()
    documents["nodegroups"] = {"g": NodeGroupDoc("1", NodeGroupSpec("g", ProviderSpec("lab"), 1, 5))}
    machines = (Machine("g-1", "ready", 0), Machine("g-2", "ready", 0), Machine("g-3", "creating", 0))
    documents["machines"] = {"g": MachinesDoc("1", "g", machines, back_off_until_ms=9_000)}
    found = samples_of(render(Tally(), Facts(snapshot(documents), True, 0, 4_000)).decode())
    assert found['shoal_node_group_machines{group="g",state="ready"}'] == 2
    assert found['shoal_node_group_machines{group="g",state="creating"}'] == 1
    assert (found['shoal_node_group_max{group="g"}'], found['shoal_node_group_back_off_seconds{group="g"}']) == (5, 5)


def test_own_decisions_are_counted_once_and_others_not() -> None:
    def told() -> dict[str, float]:
        return {name: value for name, value in scrape(cluster(), leads=False).items() if "counted" in name}

    def scale(wanted: int, before: int, at_ms: int, acted: bool = True) -> ScaleDoc:
        return ScaleDoc("1", "counted", wanted, last=ScaleDecision(at_ms, before, wanted, "", acted=acted))

    grown = scale(4, 2, 1)
    count([Change("scales", "counted", None, grown, 1, own=True), Change("scales", "counted", None, grown, 1)])
    count([Change("scales", "counted", grown, replace(grown, quiet_since_ms=1), 2, own=True)])
    count([Change("scales", "counted", grown, scale(3, 4, 2), 3, own=True)])
    count([Change("scales", "counted", grown, scale(9, 3, 3, acted=False), 3, own=True)])
    two = MachinesDoc("1", "counted", (Machine("a", "ready", 0), Machine("b", "creating", 0)))
    count([Change("machines", "counted", None, two, 4, own=True)])
    count([Change("machines", "counted", two, None, 5, own=True)])
    assert told() == {
        'shoal_autoscale_decisions_total{direction="out",service="counted"}': 1,
        'shoal_autoscale_decisions_total{direction="in",service="counted"}': 1,
        'shoal_node_group_changes_total{direction="out",group="counted"}': 2,
        'shoal_node_group_changes_total{direction="in",group="counted"}': 2,
    }


STATES = st.sampled_from(["", "preparing", "running", "failed", "shutdown"])
REPLICAS = st.dictionaries(
    st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.sampled_from(["web", "db"]), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), STATES, st.sampled_from(["", "healthy", "unhealthy"])),
)
NODES = st.fixed_dictionaries({name: st.sampled_from(["ready", "unreachable", "down"]) for name in ("n1", "n2", "n3")})


@given(st.lists(st.tuples(REPLICAS, NODES), min_size=1, max_size=4))
def test_counting_what_changed_is_counting_everything(looks: list[tuple[dict[Any, Any], dict[str, str]]]) -> None:
    kept = Tally()
    for replicas, nodes in looks:
        documents = cluster(service("web", 3), service("db", 3), **nodes)
        for node, name in sorted({(node, name) for node, name, _ in replicas}):
            mine = [(slot, *facts) for (at, of_, slot), facts in replicas.items() if (at, of_) == (node, name)]
            run(documents, node, name, *mine)
        kept.look(snapshot(documents))
        fresh = Tally()
        fresh.look(snapshot(documents))
        assert kept.services == fresh.services
        rows = [row for row in replica_rows(view_of(snapshot(documents))) if row.node]
        assert kept.states() == Counter(row.state for row in rows)
        ready = sum(row.state == "running" and row.health != "unhealthy" for row in rows)
        assert sum(count.get(READY, 0) for count in kept.services.values()) == ready


def test_a_look_at_nothing_new_counts_nothing() -> None:
    documents = cluster(service("web", 1), n1="ready")
    run(documents, "n1", "web", (1, 1, "running", ""))
    tally = Tally()
    tally.look(snapshot(documents))
    tally.services["id-web"][READY] = 99  # what is counted again would be right again
    tally.look(snapshot(documents))
    assert tally.services["id-web"][READY] == 99
    run(documents, "n2", "web", (2, 1, "running", ""))
    tally.look(snapshot(documents))
    assert tally.services["id-web"][READY] == 100
