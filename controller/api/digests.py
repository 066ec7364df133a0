"""What a name of an image stands for: on the nodes, and at its registry. Asked before a service is written.

Rules: the leader knows from its memory what the nodes have; another controller, and one that leads since a moment, asks them. A
registry is asked by one node, the next one when that cannot be reached, with the credentials that came with the request.
Nothing here takes long: what is not known in time is not known.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from controller.agents import Agents
from controller.images_held import HeldImages
from controller.loops.picture import Picture
from controller.sealing import Login
from model.errors import ShoalError, Unavailable
from model.image_ref import parse_image_ref
from protos import node_pb2 as pb

HELD_S: Final = 2.0
ASK_S: Final = 10.0
NODE_S: Final = 5.0
NODES_MAX: Final = 3
"""That are asked for a registry's answer, one after the other."""


class Digests(Protocol):
    async def held(self, names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """By canonical reference all that some node has under it, that of most nodes first; what no node has is not in it."""

    async def at_registry(self, name: str, login: Login | None) -> str:
        """Raises ShoalError: nobody can say."""

    async def run_by(self, services: Collection[str]) -> Mapping[str, frozenset[str]]:
        """By service the digests that the images of all its running containers stand for; without any, it is not in it."""


class NodeDigests:
    """`is_whole`: whether `known` is all that the nodes have."""

    def __init__(self, picture: Picture, agents: Agents, known: HeldImages, is_whole: Callable[[], bool]) -> None:
        self._picture = picture
        self._agents = agents
        self._known = known
        self._is_whole = is_whole

    async def held(self, names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        if self._is_whole():
            return {name: digests for name in names if (digests := self._known.digests_of(name))}
        return await self._asked(names)

    async def _asked(self, names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, Counter[str]] = {name: Counter() for name in names}
        for row in await self._images():
            for name, digest in row.get("digests", {}).items():
                canonical = parse_image_ref(name).canonical
                if digest and canonical in found:
                    found[canonical][digest] += 1
        return {name: tuple(sorted(rows, key=lambda each: (-rows[each], each))) for name, rows in found.items() if rows}

    async def run_by(self, services: Collection[str]) -> Mapping[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for row in await self._images() if services else ():
            digests = frozenset([row.get("digest", ""), *row.get("digests", {}).values()])
            for user in row.get("containers", ()):
                for service in {user["name"], user["name"].rpartition(".")[0]} & {*services} if user["running"] else ():
                    found[service] = found.get(service, digests) & digests
        return found

    async def _images(self) -> list[dict[str, Any]]:
        """Of all nodes that are ready and answer."""
        answers = await self._agents.everywhere(
            lambda node: self._agents.call(node, "Images", pb.Empty(), HELD_S), self._ready()
        )
        return [row for answer in answers.values() if not isinstance(answer, ShoalError) for row in json.loads(answer.json)]

    def _ready(self) -> list[str]:
        snapshot = self._picture.snapshot()
        health = snapshot.of("health")
        return [node for node in self._agents.nodes() if health[node].state == "ready"]

    async def at_registry(self, name: str, login: Login | None) -> str:
        auth = pb.RegistryAuth(username=login.username, password=login.password) if login is not None else None
        request = pb.ImageRequest(reference=name, auth=auth)
        try:
            async with asyncio.timeout(ASK_S):
                _, answer = await self._agents.first(self._ready()[:NODES_MAX], "ResolveImage", request, NODE_S)
        except TimeoutError:
            raise Unavailable(f"no answer within {ASK_S:g} s") from None
        return str(json.loads(answer.json)["digest"])
