"""What is known of calm services without looking at their replicas is what a look at each of them finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decide.batch import Batch
from controller.decide.calm import Calm, Calms
from controller.decide.index import Index
from controller.decide.services import decide_services
from controller.decide.types import View
from controller.decide.work import begin
from model.documents import ReplicaStatus
from tests.properties.test_decide_services import clusters, disturb
from tests.scenarios.model_cluster import ModelCluster

STATES: tuple[dict[str, Any], ...] = (
    {"state": "running"}, {"state": "starting"}, {"state": "complete"}, {"state": "failed"}, {"state": "failed", "restarts": 3},
    {"state": "rejected", "message": "write: no space left on device"}, {"state": "failed", "message": "Disk full"},
    {"state": "running", "health": "unhealthy"},
)  # fmt: skip


class Doubting(Calms):
    """Nobody is calm: every replica is looked at."""

    def of(self, *_: object) -> Calm | None:
        return None


def doubting() -> Index:
    index = Index()
    index.calms = Doubting()
    return index


def say(data: st.DataObject, cluster: ModelCluster) -> None:
    """A node says something else of some replica, down or not."""
    rows = [(node, row) for node, doc in sorted(cluster.docs["status"].items()) for row in doc.replicas]
    if not rows:
        return
    node, row = data.draw(st.sampled_from(rows))
    changed: ReplicaStatus = replace(row, **data.draw(st.sampled_from(STATES)))
    doc = cluster.docs["status"][node]
    cluster.docs["status"][node] = replace(doc, replicas=tuple(changed if old is row else old for old in doc.replicas))
    cluster.running[node][row.service_id, row.slot, row.created_ms] = changed


def again(data: st.DataObject, cluster: ModelCluster, before: list[Mapping[str, Mapping[str, Any]]]) -> None:
    """The documents of one kind are as they were once."""
    kind = data.draw(st.sampled_from(["assignments", "status", "health"]))
    then = data.draw(st.sampled_from(before))
    cluster.docs[kind].update({name: doc for name, doc in then[kind].items() if name in cluster.docs[kind]})


def check_standing(view: View, cluster: ModelCluster) -> int:
    """How many services were calm."""
    calm = 0
    for doc in view.services.values():
        kept, whole = Batch(view, cluster.settings, cluster.now_ms), Batch(view, cluster.settings, cluster.now_ms)
        whole.index = doubting().refresh(view)
        mine, theirs = begin(kept, doc), begin(whole, doc)
        if not mine.standing.calm:
            continue
        calm += 1
        assert len(mine.standing) == len(theirs.standing)
        assert mine.standing.by_node() == theirs.standing.by_node()
        assert list(mine.standing.by_node()) == list(theirs.standing.by_node())
        if not mine.everywhere:
            assert mine.standing.numbers() == theirs.standing.numbers()
        assert mine.standing.lost == theirs.standing.lost
        assert theirs.standing.surplus == []
        assert (mine.created_ms, mine.group, mine.lost_on) == (theirs.created_ms, theirs.group, theirs.lost_on)
        assert all(slot.primary.current and not slot.primary.leaving for slot in theirs.standing.slots.values())
        assert kept.plan() == whole.plan()
        assert mine.standing.slots == theirs.standing.slots
    return calm


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_after_any_changes_of_documents_a_kept_index_decides_what_a_whole_look_decides(data: st.DataObject) -> None:
    cluster = data.draw(clusters(data.draw(st.sampled_from([(0,), (0, 0, -3, 5)]))))
    before: list[Mapping[str, Mapping[str, Any]]] = []
    for _ in range(data.draw(st.integers(1, 10))):
        before.append({kind: dict(rows) for kind, rows in cluster.docs.items()})
        what = data.draw(st.sampled_from(["agents", "agents", "say", "say", "disturb", "disturb", "again", "time"]))
        if what == "agents":
            cluster.agents()
        elif what == "say":
            say(data, cluster)
        elif what == "disturb":
            disturb(data.draw, cluster)
        elif what == "again" and all(kind in before[-1] for kind in ("assignments", "status", "health")):
            again(data, cluster, [row for row in before if "assignments" in row])
        elif what == "time":
            cluster.pass_time(data.draw(st.sampled_from([1_000, 60_000])))
        view = cluster.view()
        check_standing(view, cluster)
        plans = [decide_services(replace(view, index=index), None, cluster.settings, cluster.now_ms) for index in
                 (cluster.index, Index(), doubting())]  # fmt: skip
        assert plans[0] == plans[1] == plans[2]
        if data.draw(st.booleans()):
            cluster.decide()


def test_a_service_that_runs_is_calm_and_stays_so_when_other_nodes_are_lost() -> None:
    cluster = ModelCluster()
    for number in range(1, 6):
        cluster.node(f"n{number}")
    cluster.service("web", 8)
    cluster.service("agent", mode="global")
    cluster.converge()
    assert check_standing(cluster.view(), cluster) == 2
    cluster.lose("n5")
    assert check_standing(cluster.view(), cluster) == 1
    cluster.converge()
    assert check_standing(cluster.view(), cluster) == 1


def test_a_change_of_version_a_drained_node_and_a_full_disk_end_the_calm() -> None:
    for upset in ("version", "drain", "disk", "twice"):
        cluster = ModelCluster()
        for name in ("n1", "n2"):
            cluster.node(name)
        cluster.service("web", 4)
        cluster.converge()
        assert check_standing(cluster.view(), cluster) == 1
        if upset == "version":
            cluster.change("web", version=2)
        elif upset == "drain":
            cluster.docs["nodes"]["n1"] = replace(cluster.docs["nodes"]["n1"], availability="drain")
        elif upset == "disk":
            doc = cluster.docs["status"]["n1"]
            row = replace(doc.replicas[0], state="failed", message="disk full")
            cluster.docs["status"]["n1"] = replace(doc, replicas=(row, *doc.replicas[1:]))
        else:
            cluster.cut("n1")
            cluster.expire()
            cluster.decide()
            cluster.agents()
            cluster.back("n1")
            cluster.decide_nodes()
        assert check_standing(cluster.view(), cluster) == 0
