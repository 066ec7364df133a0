"""A pull to several nodes asks once what the name means."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

import controller.agents
from controller.api.images_transfer import ASKED_MAX, _one_digest
from controller.api.schemas import PullBody
from model.errors import BadInput, ShoalError, Unavailable
from protos import node_pb2 as pb

DIGEST = f"sha256:{'1' * 64}"
NODES = ("n1", "n2", "n3", "n4")


class Agents:
    """`answers` by node: a digest, or what is raised."""

    def __init__(self, **answers: str | ShoalError) -> None:
        self.answers, self.asked = answers, list[tuple[str, str]]()

    async def call(self, node: str, method: str, request: pb.ImageRequest, timeout_s: float) -> Any:
        self.asked.append((node, request.reference))
        answer = self.answers.get(node, Unavailable(f"node {node} cannot be reached"))
        if isinstance(answer, ShoalError):
            raise answer
        return pb.Json(json=json.dumps({"digest": answer}).encode())

    first = controller.agents.Agents.first


async def digest(agents: Agents, nodes: tuple[str, ...] = NODES, **body: Any) -> str:
    api = cast(Any, SimpleNamespace(agents=agents))
    return await _one_digest(api, PullBody(**{"reference": "web", **body}), None, nodes)


async def test_the_first_node_that_answers_says_it() -> None:
    agents = Agents(n2=DIGEST, n3="never asked")
    assert await digest(agents) == DIGEST
    assert agents.asked == [("n1", "docker.io/library/web:latest"), ("n2", "docker.io/library/web:latest")]


async def test_who_gets_no_word_leaves_it_to_each_node() -> None:
    agents = Agents()
    assert await digest(agents) == ""
    assert len(agents.asked) == ASKED_MAX
    refused = Agents(n1=ShoalError("registry refuses it"), n2=DIGEST)
    assert await digest(refused) == ""
    assert len(refused.asked) == 1


async def test_one_node_and_what_may_stay_as_it_is_are_not_asked_about() -> None:
    agents = Agents(n1=DIGEST)
    assert await digest(agents, ("n1",)) == await digest(agents, policy="missing") == ""
    assert agents.asked == []


async def test_a_bad_name_is_the_callers() -> None:
    with pytest.raises(BadInput, match="upper-case"):
        await digest(Agents(), reference="Web")
