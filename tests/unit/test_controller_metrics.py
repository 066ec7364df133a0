"""What /metrics says of the cluster, from documents; and that counting what changed gives what counting everything gives."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.api.metrics import Facts, render
from controller.api.tally import READY, Tally
from controller.decide.replicas import replica_rows
from controller.loops.picture import KINDS, Snapshot
from controller.loops.views import view_of
from model.documents import (
    Assigned,
    AssignedService,
    AssignmentDoc,
    DecisionDoc,
    LeaderDoc,
    NodeDoc,
    NodeHealthDoc,
    NodeInfo,
    ReplicaStatus,
    ServiceDoc,
    StatusDoc,
)
from model.spec import ContainerSpec, Mode, Resources, ServiceSpec

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
    """Samples by name and labels, as they stand in the text."""
    text = render(tally or Tally(), Facts(snapshot(documents), leads, 3)).decode()
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
