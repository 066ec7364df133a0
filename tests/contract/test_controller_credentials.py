"""Credentials that come with a service: sealed in etcd, told to nodes that run it, also after a restart, and to no other."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from protos import node_pb2 as pb
from tests.contract.controller_harness import Client, ControllerProcess, Node, controller_process, service_body

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]
USER, PASSWORD, CHANGED = "ana-the-user", "pass-word-that-is-nowhere", "another-one-that-is-nowhere"


def header(password: str) -> dict[str, str]:
    rows = {"here:5000": {"username": USER, "password": password}, "other:5000": {"username": "bo", "password": "not-needed"}}
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(rows).encode()).decode()}


def project(password: str) -> tuple[dict[str, Any], dict[str, str]]:
    placement = {"constraints": ["node.hostname == n1"]}
    web = {"image": "here:5000/web:1", "network_mode": "none", "deploy": {"placement": placement}}
    return {"name": "shop", "services": {"web": web}}, header(password)


async def applied(operator: Client, password: str) -> Any:
    body, headers = project(password)
    status, answer = await asyncio.to_thread(lambda: operator.request("PUT", "/v1/stacks/shop", body, **headers))
    assert status == 200, answer
    return answer


def told(node: Node, service: str) -> tuple[str, str]:
    (row,) = [row for row in node.desired.values() if row.name == service]
    return row.registry_auth.username, row.registry_auth.password


def runs(node: Node, service: str) -> bool:
    return any(row.name == service and row.slots for row in node.desired.values())


def on_disk(controller: ControllerProcess, *words: str) -> list[str]:
    """Those that stand in some file of the controller's data directory, in clear or in base64, also in the log of etcd."""
    files = [path.read_bytes() for path in controller.folder.rglob("*") if path.is_file()]
    assert any(b"siv1:" in data for data in files), "what is sealed stands there"
    forms = {word: (word.encode(), base64.b64encode(word.encode())[:-4]) for word in words}
    return [word for word, both in forms.items() if any(form in data for form in both for data in files)]


async def test_a_services_credentials_reach_its_nodes_and_nobody_else() -> None:
    with controller_process("--node-timeout", "5s") as controller:
        operator = controller.operator()
        one, two = Node(controller, "n1"), Node(controller, "n2")
        async with one.session(), two.session():
            answer = await applied(operator, PASSWORD)
            assert USER not in json.dumps(answer)
            (warning,) = answer["unpinned"]
            assert warning.startswith("image here:5000/web:1 could not be accessed on a registry to record its digest")
            await asyncio.to_thread(operator.ok, "POST", "/v1/services", service_body("everywhere", mode="global"))
            await one.until(lambda: runs(one, "shop_web") and runs(one, "everywhere"))
            await two.until(lambda: runs(two, "everywhere"))
            assert told(one, "shop_web") == (USER, PASSWORD)
            assert told(one, "everywhere") == told(two, "everywhere") == ("", "")

            before = [list(row.slots) for row in one.desired.values() if row.name == "shop_web"]
            answer = await applied(operator, CHANGED)
            assert [row["sentence"] for row in answer["changes"] if row["kind"] == "service"] == [
                "service shop_web: credentials for its registry changed, no container is restarted"
            ]
            await one.until(lambda: told(one, "shop_web") == (USER, CHANGED))
            assert [list(row.slots) for row in one.desired.values() if row.name == "shop_web"] == before
            asked = [f"/v1/{what}" for what in ("services/shop_web", "stacks/shop", "services/shop_web/explain")]
            shown = [await asyncio.to_thread(operator.ok, "GET", path) for path in asked]
            assert not any(word in json.dumps(shown) for word in (USER, PASSWORD, CHANGED, "siv1:"))
        controller.kill()
        await asyncio.to_thread(controller.start)
        one.dispatch = (await asyncio.to_thread(Node, controller, "n3")).dispatch
        async with one.session(pb.Hello(node="n1")):
            await one.until(lambda: runs(one, "shop_web"))
            assert told(one, "shop_web") == (USER, CHANGED)
        heard = b"".join(message.SerializeToString() for message in two.received)
        assert on_disk(controller, USER, PASSWORD, CHANGED, "not-needed") == []
        assert not any(word.encode() in heard for word in (USER, PASSWORD, CHANGED))
        assert not any(word in controller.log() for word in (USER, PASSWORD, CHANGED))
        await asyncio.to_thread(controller.operator().ok, "DELETE", "/v1/stacks/shop")
