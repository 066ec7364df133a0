"""What a service's image is pinned to when it is made or applied, and whom the API asks for that."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.agents import Agents
from controller.api import services, stacks
from controller.api.context import Api, Call
from controller.api.digests import NodeDigests
from controller.images_held import HeldImages
from controller.loops.picture import Picture
from controller.sealing import Login, Sealing
from model.documents import ServiceDoc
from model.errors import NotFound, ShoalError, Unavailable
from model.spec import ContainerSpec, ServiceSpec
from protos import node_pb2 as pb
from tests.unit.api_kit import NOTHING, controllers

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
WEB, PRIVATE = "docker.io/library/web:1", "here:5000/web:1"


@dataclass
class Told:
    """A cluster in a few words. `asked`: what registries were asked, with which user."""

    nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    registries: dict[str, str | ShoalError] = field(default_factory=dict)
    running: dict[str, frozenset[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def held(self, names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return {name: self.nodes[name] for name in names if name in self.nodes}

    async def at_registry(self, name: str, login: Login | None) -> str:
        self.asked.append((name, login.username if login else ""))
        found = self.registries.get(name, Unavailable("no node is ready"))
        if isinstance(found, ShoalError):
            raise found
        return found

    async def run_by(self, services: Collection[str]) -> Mapping[str, frozenset[str]]:
        return self.running


def call(body: Any, logins: Any = None, resolve: str = "changed", **path: str) -> Call:
    raw = base64.urlsafe_b64encode(json.dumps(logins or {}).encode()).decode()
    request = SimpleNamespace(headers={"X-Registry-Config": raw})
    return Call(cast(Any, request), None, path, {"prune": True, "resolve_image": resolve}, body)


def project(image: str = "web:1", count: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "services": {f"s{at}": {"image": image, "network_mode": "none", **more} for at in range(count)}}


async def applied(api: Api, body: Any, **more: Any) -> Any:
    return await stacks.apply(api, call(body, stack="shop", **more))


def document(api: Api, name: str = "shop_s0") -> ServiceDoc:
    found: ServiceDoc = api.snapshot().of("services")[name]
    return found


async def test_a_new_service_is_pinned_to_what_its_registry_says_and_stays_so() -> None:
    async with controllers(1) as (api,):
        api.digests = told = Told(registries={WEB: ONE})
        answer = await applied(api, project(count=3))
        assert (answer["unpinned"], told.asked) == ([], [(WEB, "")]), "one question for all who have the same image"
        assert document(api).spec.container == replace(document(api).spec.container, image="web:1", image_digest=ONE)
        told.nodes, told.registries = {WEB: (ONE,)}, {WEB: TWO}
        again = await applied(api, project(count=3))
        assert {row["action"] for row in again["changes"]} == {"none"}
        assert len(told.asked) == 1, "the nodes have it: nobody is asked"
        planned = await stacks.plan(api, call(project(count=3), stack="shop"))
        assert {row["action"] for row in planned["changes"]} == {"none"}


async def test_other_bytes_come_when_they_are_asked_for_or_the_nodes_name_has_moved() -> None:
    async with controllers(1) as (api,):
        api.digests = told = Told(nodes={WEB: (ONE,)}, registries={WEB: TWO})
        await applied(api, project())
        answer = await applied(api, project(), resolve="always")
        assert (document(api).version, document(api).spec.container.image_digest, answer["unpinned"]) == (2, TWO, [])
        answer = await applied(api, project(), resolve="never")
        assert (document(api).version, document(api).spec.container.image_digest) == (2, TWO)
        told.nodes = {WEB: (ONE, TWO)}  # most nodes still have the older one
        await applied(api, project())
        assert (document(api).version, document(api).spec.container.image_digest) == (2, TWO)
        told.nodes = {WEB: (ONE,)}
        await applied(api, project())
        assert (document(api).version, document(api).spec.container.image_digest) == (3, ONE)
        told.registries = {WEB: Unavailable("it does not answer")}
        answer = await applied(api, project(pull_policy="always"))
        assert answer["unpinned"] == [
            "image web:1 could not be accessed on a registry to record its digest (it does not answer): "
            "what the nodes have is taken"
        ]
        assert document(api).spec.container.image_digest == ONE


async def test_who_was_not_pinned_is_pinned_later_and_restarted_only_for_other_bytes() -> None:
    async with controllers(1) as (api,):
        api.digests = told = Told()
        answer = await applied(api, project(count=2))
        assert len(answer["unpinned"]) == 1
        assert document(api).spec.container.image_digest == ""
        told.nodes, told.running = {WEB: (ONE,)}, {"shop_s0": frozenset([ONE, TWO]), "shop_s1": frozenset([TWO])}
        answer = await applied(api, project(count=2))
        assert [row["sentence"] for row in answer["changes"]] == [
            "service shop_s0: pinned to what its containers run",
            "service shop_s1: image_digest changed, its 1 replica is replaced by version 2",
        ]


async def test_a_single_container_is_pinned_and_told_whether_anybody_has_its_image() -> None:
    async with controllers(1) as (api,):
        api.digests = told = Told(nodes={WEB: (ONE,)})
        made = await services.create_service(api, call(ServiceSpec("box", ContainerSpec("web:1"), single=True)))
        assert (made["absent"], made["unpinned"], made["image"]) == (False, [], f"web:1@{ONE}")
        listed = await services.list_services(api, Call(NOTHING, None, {}, {"stack": ""}))
        assert listed[0]["image"] == "web:1"
        other = await services.create_service(api, call(ServiceSpec("other", ContainerSpec("gone:1", image_digest=TWO))))
        assert (other["absent"], len(other["unpinned"]), other["image"]) == (True, 1, "gone:1"), "its own word counts not"
        told.asked.clear()
        await services.create_service(api, call(ServiceSpec("third", ContainerSpec(f"web@{TWO}"))))
        assert (told.asked, document(api, "third").spec.container.image_digest) == ([], "")


async def test_credentials_are_used_for_their_registry_and_kept_sealed() -> None:
    async with controllers(1) as (api,):
        api.digests, api.seals = (told := Told(registries={PRIVATE: ONE, WEB: ONE})), Sealing(b"secret")
        logins = {"here:5000": {"username": "ana", "password": "pass word"}, "else:5000": {"username": "bo", "password": "x"}}
        body = project(PRIVATE)
        body["services"]["open"] = {"image": "web:1", "network_mode": "none"}
        answer = await applied(api, body, logins=logins)
        assert sorted(told.asked) == [(WEB, ""), (PRIVATE, "ana")]
        kept = document(api)
        assert api.seals.open(kept.id, kept.registry_auth) == Login("ana", "pass word")
        assert document(api, "shop_open").registry_auth == ""
        shown = [answer, await services.get_service(api, call(None, name="shop_s0"))]
        assert not any(word in json.dumps(shown) for word in ("pass word", "ana", kept.registry_auth))
        again = await applied(api, body, logins=logins)
        assert {row["action"] for row in again["changes"]} == {"none"}
        box = ServiceSpec("box", ContainerSpec(PRIVATE), single=True)
        await services.create_service(api, call(box, logins))
        assert document(api, "box").registry_auth not in ("", kept.registry_auth)


# ---- the nodes


class PlayedAgents:
    """Calls to nodes. `answers`: by (node, method); an error is raised."""

    def __init__(self, answers: Mapping[tuple[str, str], Any]) -> None:
        self.answers = answers
        self.asked: Counter[tuple[str, str]] = Counter()
        self.requests: list[Any] = []

    def nodes(self) -> list[str]:
        return ["n1", "n2", "n3"]

    async def call(self, node: str, method: str, request: Any, timeout_s: float) -> Any:
        self.asked[node, method] += 1
        self.requests.append(request)
        found = self.answers[node, method]
        if isinstance(found, ShoalError):
            raise found
        return pb.Json(json=json.dumps(found).encode())

    everywhere = Agents.everywhere
    first = Agents.first


def digests(answers: Mapping[tuple[str, str], Any], *, whole: bool = False, down: str = "") -> tuple[NodeDigests, PlayedAgents]:
    agents = PlayedAgents(answers)
    health = {node: SimpleNamespace(state="unreachable" if node == down else "ready") for node in agents.nodes()}
    picture = SimpleNamespace(snapshot=lambda: SimpleNamespace(of=lambda _: health))
    known = HeldImages(cast(Any, SimpleNamespace(monotonic=lambda: 0.0)))
    known.take("n1", pb.ImagesHeld(whole=True, images=[pb.HeldImage(id="i", names=[pb.HeldName(name=WEB, digest=TWO)])]))
    return NodeDigests(cast(Picture, picture), cast(Agents, agents), known, lambda: whole), agents


def row(digest: str, *users: str, name: str = "web:1") -> dict[str, Any]:
    containers = [{"id": "c", "name": user, "running": True} for user in users]
    return {"id": digest, "digest": "", "digests": {name: digest}, "containers": containers}


async def test_the_leader_knows_what_the_nodes_have_and_others_ask_them() -> None:
    answers = {("n1", "Images"): [row(ONE)], ("n2", "Images"): [row(ONE), row(TWO)], ("n3", "Images"): Unavailable("gone")}
    found, agents = digests(answers, whole=True)
    assert (await found.held([WEB, PRIVATE]), agents.asked.total()) == ({WEB: (TWO,)}, 0)
    found, agents = digests(answers)
    assert (await found.held([WEB, PRIVATE]), agents.asked.total()) == ({WEB: (ONE, TWO)}, 3)


async def test_a_registry_is_asked_by_the_first_node_that_can_be_reached() -> None:
    answers = {("n2", "ResolveImage"): Unavailable("no"), ("n3", "ResolveImage"): {"digest": ONE}}
    found, agents = digests(answers, down="n1")
    assert await found.at_registry(PRIVATE, Login("ana", "x")) == ONE
    assert list(agents.asked) == [("n2", "ResolveImage"), ("n3", "ResolveImage")]
    assert agents.requests[0].auth == pb.RegistryAuth(username="ana", password="x")
    found, agents = digests({("n1", "ResolveImage"): NotFound("not there")})
    with pytest.raises(NotFound, match="not there"):
        await found.at_registry(WEB, None)
    assert agents.asked.total() == 1, "what a registry says is an answer"


async def test_what_services_run_is_what_all_their_containers_run() -> None:
    answers = {
        ("n1", "Images"): [row(ONE, "shop_web.1", "box"), row(TWO, "shop_db.1")],
        ("n2", "Images"): [row(ONE, "shop_web.2", "shop_db.2"), row(TWO, "shop_web_more.1")],
        ("n3", "Images"): [],
    }
    found, agents = digests(answers)
    known = await found.run_by(["shop_web", "shop_db", "box", "idle"])
    assert {name: ONE in digests for name, digests in known.items()} == {"shop_web": True, "shop_db": False, "box": True}
    assert (await found.run_by([]), agents.asked.total()) == ({}, 3)
