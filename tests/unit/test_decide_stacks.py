"""What applying, planning and removing a stack changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from controller.decide.preview import Placed, Waits, changed_view, preview
from controller.decide.registry_auth import Keep
from controller.decide.stacks import StackChanges, diff_stack, remove_stack
from model.autoscale import Autoscale, ScalingMetric, ScalingSchedule
from model.documents import key
from model.errors import BadInput, Conflict
from model.spec import (
    Attachment,
    ContainerSpec,
    Mount,
    NetworkSpec,
    Placement,
    Port,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
    VolumeSpec,
)
from tests.scenarios.model_cluster import ModelCluster

NETWORK = NetworkSpec("shop_default", "shop")
WEB = ServiceSpec("shop_web", ContainerSpec("web:1", networks=(Attachment("shop_default"),)), "shop", replicas=3)
SHOP = StackSpec("shop", (WEB,), (NETWORK,))


@pytest.fixture
def cluster() -> ModelCluster:
    cluster = ModelCluster()
    for name in ("n1", "n2"):
        cluster.node(name)
    return cluster


def write(cluster: ModelCluster, changes: StackChanges) -> None:
    for kind in ("services", "networks", "volumes"):
        for doc in getattr(changes, kind):
            cluster.docs[kind][doc.spec.name] = doc
    if changes.stack:
        cluster.docs["stacks"][changes.stack.name] = changes.stack
    for path in changes.deletes:
        kind, name = path.split("/")[-2:]
        cluster.docs[kind].pop(name)


def diff(cluster: ModelCluster, wanted: StackSpec, **options: Any) -> StackChanges:
    numbers = count(len(cluster.docs["services"]))
    return diff_stack(cluster.view(), wanted, lambda: f"id{next(numbers)}", cluster.now_ms, **options)


def applied(cluster: ModelCluster, wanted: StackSpec) -> StackChanges:
    changes = diff(cluster, wanted)
    write(cluster, changes)
    cluster.converge()
    return changes


def shop(**changes: Any) -> StackSpec:
    return replace(SHOP, services=(replace(WEB, **changes),))


def test_a_new_stack_creates_everything_and_a_second_apply_nothing(cluster: ModelCluster) -> None:
    changes = applied(cluster, SHOP)
    assert [(c.action, c.kind, c.name) for c in changes.changes] == [
        ("create", "network", "shop_default"),
        ("create", "service", "shop_web"),
    ]
    assert changes.stack is not None
    assert changes.stack.services == ("shop_web",)
    assert cluster.counts("shop_web") == {"n1": 2, "n2": 1}
    again = diff(cluster, SHOP)
    assert again.empty()
    assert {c.action for c in again.changes} == {"none"}


def test_only_a_changed_container_makes_a_version(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    (label,) = diff(cluster, shop(labels=(("a", "b"),))).services
    assert label.version == 1
    changes = diff(cluster, shop(container=replace(WEB.container, image="web:2")))
    assert changes.services[0].version == 2
    assert changes.changes[-1].fields == ("image",)
    assert changes.changes[-1].sentence == "service shop_web: image changed, its 3 replicas are replaced by version 2"


def test_the_scale_follows_the_file(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.change("shop_web", scale=9)
    change = diff(cluster, SHOP)
    assert (change.changes[-1].action, change.services[0].scale) == ("scale", 3)


POLICY = Autoscale(2, 6, (ScalingMetric("inflight", 3.0),))


@pytest.mark.parametrize(("replicas", "scale"), [(1, 2), (3, 3), (9, 6)])
def test_an_autoscaled_service_begins_with_the_files_count_within_its_bounds(
    cluster: ModelCluster, replicas: int, scale: int
) -> None:
    (service,) = diff(cluster, shop(autoscale=POLICY, replicas=replicas)).services
    assert service.scale == scale
    (service,) = diff(cluster, shop(autoscale=replace(POLICY, mode="recommend"), replicas=replicas)).services
    assert service.scale == replicas


def test_apply_never_resets_the_count_of_an_autoscaled_service(cluster: ModelCluster) -> None:
    applied(cluster, shop(autoscale=POLICY))
    cluster.change("shop_web", scale=5)
    assert diff(cluster, shop(autoscale=POLICY)).empty()
    (service,) = diff(cluster, shop(autoscale=POLICY, replicas=4)).services
    assert service.scale == 5
    change = diff(cluster, shop(autoscale=replace(POLICY, max=4)))
    assert change.services[0].scale == 4
    assert change.changes[-1].sentence == ("service shop_web: autoscale changed, no container is restarted; scaled from 5 to 4")
    night = replace(POLICY, max=4, schedules=(ScalingSchedule("0 0 * * *", 3600.0, max=8),))
    assert diff(cluster, shop(autoscale=night)).services[0].scale == 5


def test_a_service_that_begins_to_scale_itself_begins_with_what_it_has(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.change("shop_web", scale=5)
    assert diff(cluster, shop(autoscale=POLICY)).services[0].scale == 5


def test_whose_policy_is_taken_out_keeps_its_count_until_the_file_says_another(cluster: ModelCluster) -> None:
    applied(cluster, shop(autoscale=POLICY))
    cluster.change("shop_web", scale=5)
    change = applied(cluster, SHOP)
    assert change.services[0].scale == 5
    assert diff(cluster, SHOP).empty()
    assert applied(cluster, shop(labels=(("a", "b"),))).services[0].scale == 5
    assert applied(cluster, shop(replicas=4)).services[0].scale == 4
    cluster.change("shop_web", scale=7)
    assert applied(cluster, shop(replicas=4)).services[0].scale == 4


def test_a_stopped_service_is_started_by_apply(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.change("shop_web", stopped=True)
    change = diff(cluster, SHOP)
    assert change.changes[-1].sentence == "service shop_web: started again"
    assert not change.services[0].stopped


def test_what_left_the_file_is_removed_with_its_network_but_not_its_volume(cluster: ModelCluster) -> None:
    mounts = (Mount("volume", "/data", "shop_data"),)
    applied(cluster, replace(shop(container=replace(WEB.container, mounts=mounts)), volumes=(VolumeSpec("shop_data", "shop"),)))
    changes = diff(cluster, StackSpec("shop"))
    assert changes.deletes == [key("services", "shop_web"), key("networks", "shop_default")]
    assert changes.stack is not None
    assert changes.stack.volumes == ("shop_data",)
    assert diff(cluster, StackSpec("shop"), prune=False).deletes == []


def test_a_network_that_others_use_is_kept(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.service("other", 1, networks=("shop_default",))
    changes = remove_stack(cluster.view(), "shop")
    assert changes.deletes == [key("services", "shop_web"), key("stacks", "shop")]
    assert changes.changes[-1].sentence == "network shop_default is kept: used by other"


def test_removing_a_stack_takes_its_volumes_only_when_asked(cluster: ModelCluster) -> None:
    applied(cluster, replace(SHOP, volumes=(VolumeSpec("shop_data", "shop"),)))
    assert key("volumes", "shop_data") not in remove_stack(cluster.view(), "shop").deletes
    assert key("volumes", "shop_data") in remove_stack(cluster.view(), "shop", volumes=True).deletes
    write(cluster, remove_stack(cluster.view(), "shop", volumes=True))
    cluster.converge()
    assert not any(
        cluster.docs[kind] for kind in ("services", "networks", "volumes", "netplans", "places", "decisions", "stacks")
    )


def test_what_belongs_to_another_stack_is_refused(cluster: ModelCluster) -> None:
    cluster.service("shop_web", 1, stack="other")
    with pytest.raises(Conflict, match="service shop_web exists and belongs to stack other"):
        diff(cluster, SHOP)


def test_what_is_missing_is_named_line_by_line(cluster: ModelCluster) -> None:
    wanted = replace(
        shop(placement=Placement(("zone==a",))),
        networks=(NetworkSpec("front", external=True),),
        volumes=(VolumeSpec("data", external=True),),
    )
    with pytest.raises(BadInput) as caught:
        diff(cluster, wanted)
    assert caught.value.problems[:2] == (
        "network front is external and does not exist: create it with `shoal network create front`",
        "volume data is external and does not exist",
    )
    assert caught.value.problems[2].startswith("service shop_web: constraint 'zone==a': unknown key")


def test_a_network_in_use_keeps_its_subnet(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    with pytest.raises(Conflict, match="subnet cannot change while it is in use"):
        diff(cluster, replace(SHOP, networks=(replace(NETWORK, subnet="10.9.0.0/16"),)))


def test_the_preview_is_what_apply_does(cluster: ModelCluster) -> None:
    changes = diff(cluster, SHOP)
    view = cluster.view()
    shown = preview(view, changes, cluster.settings, cluster.now_ms)
    assert shown.placements == (
        Placed("shop_web.1", "n1", "new"),
        Placed("shop_web.2", "n2", "new"),
        Placed("shop_web.3", "n1", "new"),
    )
    assert changed_view(view, changes).index is None
    write(cluster, changes)
    cluster.converge()
    assert {(row.replica, row.node) for row in shown.placements} == {
        (f"shop_web.{slot}", node) for slot, nodes in cluster.where("shop_web").items() for node in nodes
    }


def test_the_preview_shows_who_is_replaced_and_who_would_wait(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.pass_time(60_000)
    wanted = shop(container=replace(WEB.container, image="web:2"), update=UpdateConfig(parallelism=2))
    shown = preview(cluster.view(), diff(cluster, wanted), cluster.settings, cluster.now_ms)
    assert [row.reason for row in shown.placements] == ["replaced by version 2, 2 at a time"] * 3
    wanted = shop(placement=Placement(max_replicas_per_node=2), replicas=5)
    shown = preview(cluster.view(), diff(cluster, wanted), cluster.settings, cluster.now_ms)
    assert shown.waiting == (Waits("shop_web.5", "2 nodes: has 2 of at most 2 replicas per node"),)


def test_more_replicas_than_the_nodes_ever_take_are_refused(cluster: ModelCluster) -> None:
    with pytest.raises(BadInput, match="service shop_web: 10,001 replicas: a cluster of 2 nodes takes at most 10,000"):
        diff(cluster, replace(SHOP, services=(replace(WEB, replicas=10_001),)))
    assert diff(cluster, replace(SHOP, services=(replace(WEB, replicas=10_000),))).services


def test_a_changed_container_takes_back_what_connect_did_and_an_unchanged_one_keeps_it(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    live = (Attachment("shop_default"), Attachment("other"))
    cluster.network("other")
    cluster.change("shop_web", networks=live)
    assert diff(cluster, SHOP).empty()
    (scaled,) = diff(cluster, shop(replicas=5)).services
    assert scaled.networks == live
    (changed,) = diff(cluster, shop(container=replace(WEB.container, image="web:2"))).services
    assert changed.networks is None


def test_a_network_that_was_connected_live_is_in_use(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    cluster.service("other", 1)
    cluster.change("other", networks=(Attachment("shop_default"),))
    assert remove_stack(cluster.view(), "shop").changes[-1].sentence == "network shop_default is kept: used by other"


def test_an_external_network_must_be_there_and_stays_as_it_is(cluster: ModelCluster) -> None:
    outside = NetworkSpec("front", external=True, subnet="10.1.0.0/16", options=(("encrypted", ""),))
    wanted = replace(SHOP, networks=(NETWORK, outside, NetworkSpec("host", external=True, driver="host")))
    with pytest.raises(BadInput, match="network front is external and does not exist: create it with `shoal network create fr"):
        diff(cluster, wanted)
    cluster.network("front", "10.7.0.0/16")
    before = cluster.docs["networks"]["front"]
    changes = applied(cluster, wanted)
    assert changes.stack is not None
    assert changes.stack.networks == ("shop_default",)
    write(cluster, remove_stack(cluster.view(), "shop"))
    assert cluster.docs["networks"] == {"front": before}


def test_what_a_network_cannot_be_is_refused(cluster: ModelCluster) -> None:
    for changes, why in (
        ({"options": (("encrypted", "true"),)}, "network shop_default: overlay encryption is not available"),
        ({"driver": "macvlan"}, "network shop_default: there is no driver 'macvlan'"),
        ({"name": "ingress"}, "network ingress: this name is shoal's own"),
    ):
        with pytest.raises(BadInput, match=why):
            diff(cluster, replace(SHOP, networks=(replace(NETWORK, **changes),)))


def test_a_port_that_another_stack_has_is_refused(cluster: ModelCluster) -> None:
    ports = (Port(80, 8080),)
    cluster.service("other_web", 1, stack="other", container=ContainerSpec("x", ports=ports))
    with pytest.raises(Conflict, match="port 8080/tcp is published by other_web already: shop_web cannot have it"):
        diff(cluster, shop(container=replace(WEB.container, ports=ports)))
    specs = tuple(ServiceSpec(name, ContainerSpec("x", ports=(Port(1, 9),)), "a") for name in ("a_first", "a_second"))
    with pytest.raises(Conflict, match="published by a_first already: a_second cannot have it"):
        diff(cluster, StackSpec("a", specs))


def test_a_port_may_go_from_a_service_that_leaves_to_one_that_comes(cluster: ModelCluster) -> None:
    container = replace(WEB.container, ports=(Port(80, 8080),))
    applied(cluster, shop(container=container))
    applied(cluster, replace(SHOP, services=(replace(WEB, name="shop_new", container=container),)))
    assert [port.published for port in cluster.docs["svcplans"]["shop_new"].ports] == [8080]
    assert "shop_web" not in cluster.docs["svcplans"]


def test_a_subnet_that_is_taken_is_refused_at_once(cluster: ModelCluster) -> None:
    cluster.network("other", "10.9.0.0/16")
    wanted = replace(SHOP, networks=(replace(NETWORK, subnet="10.9.5.0/24"),))
    with pytest.raises(Conflict, match=r"network shop_default: its subnet 10.9.5.0/24 overlaps 10.9.0.0/16 of network other"):
        diff(cluster, wanted, settings=cluster.settings)


def pinned(digest: str, image: str = "web:1") -> StackSpec:
    return shop(container=replace(WEB.container, image=image, image_digest=digest))


def test_other_bytes_under_the_same_name_are_a_new_version(cluster: ModelCluster) -> None:
    applied(cluster, pinned("sha256:1"))
    assert diff(cluster, pinned("sha256:1")).empty()
    (change,) = [row for row in diff(cluster, pinned("sha256:2")).changes if row.kind == "service"]
    assert (change.action, change.fields) == ("update", ("image_digest",))
    assert change.sentence == "service shop_web: image_digest changed, its 3 replicas are replaced by version 2"
    (change,) = [row for row in diff(cluster, pinned("sha256:2", "web:2")).changes if row.kind == "service"]
    assert change.fields == ("image",)


def test_who_runs_the_bytes_already_is_pinned_without_a_restart(cluster: ModelCluster) -> None:
    applied(cluster, SHOP)
    (doc,) = diff(cluster, pinned("sha256:1")).services
    assert doc.version == 2
    changes = diff(cluster, pinned("sha256:1"), same_bytes=("shop_web",))
    (doc,) = changes.services
    assert (doc.version, doc.spec.container.image_digest) == (1, "sha256:1")
    assert changes.changes[1].sentence == "service shop_web: pinned to what its containers run"
    write(cluster, changes)
    assert diff(cluster, pinned("sha256:1")).empty()


def test_credentials_change_without_a_restart_and_come_again_unchanged(cluster: ModelCluster) -> None:
    def keep(sealed: str) -> Keep:
        return lambda service_id, image, before: f"{sealed} of {service_id}"

    write(cluster, diff(cluster, SHOP, keep=keep("first")))
    assert cluster.docs["services"]["shop_web"].registry_auth.startswith("first of id")
    assert diff(cluster, SHOP, keep=keep("first")).empty()
    assert diff(cluster, SHOP).empty(), "who sends none changes nothing"
    changes = diff(cluster, SHOP, keep=keep("second"))
    (doc,) = changes.services
    assert (doc.version, doc.registry_auth.partition(" ")[0]) == (1, "second")
    words = "service shop_web: credentials for its registry changed, no container is restarted"
    assert changes.changes[1].sentence == words
    elsewhere = shop(container=replace(WEB.container, image="elsewhere:5000/web:1"))
    assert diff(cluster, elsewhere).services[0].registry_auth == "", "another registry is told nothing"
