"""An agent that is only ever sent on does not spin; the simulation found that it did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from agent.core.report import Reporter
from agent.core.session import NodeIdentity, SessionClient
from agent.core.stream import ControllerStream
from agent.network.memory import MemoryNetwork
from agent.plan.records import Desired
from model.documents import NodeInfo
from protos import node_pb2 as pb
from sim.chance import Chance
from sim.clock import SimClock, SimRandom
from sim.loop import VirtualLoop

SECONDS = 30.0


class SendsOn:
    """A controller that says of another that it leads."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def write(self, message: pb.FromNode) -> None:
        return

    async def read(self) -> pb.ToNode | None:
        return pb.ToNode(redirect=pb.Redirect(dispatch=self._address))


def dials_in_a_circle(leaders: dict[str, str]) -> list[tuple[float, str]]:
    """When an agent dialled whom; `leaders`: whom each controller believes to lead."""
    loop, dialled = VirtualLoop(), []

    @asynccontextmanager
    async def dial(address: str) -> AsyncIterator[ControllerStream]:
        dialled.append((loop.time(), address))
        yield SendsOn(leaders[address])

    runner: Any = SimpleNamespace(ports=SimpleNamespace(network=MemoryNetwork()), prune_specs=Desired)
    random = SimRandom(Chance(1).stream("agent"))
    identity = NodeIdentity("m1", "id", tuple(leaders))
    client = SessionClient(identity, dial, runner, Reporter(), NodeInfo, SimClock(loop), random)
    task = loop.create_task(client.run())
    loop.call_later(SECONDS, loop.stop)
    loop.run_forever()
    task.cancel()
    loop.close()
    return dialled


def test_a_controller_that_names_itself_is_not_asked_again_and_again() -> None:
    assert len(dials_in_a_circle({"c1": "c1"})) < 5 * SECONDS


def test_two_controllers_that_name_each_other_are_asked_in_turns_with_pauses() -> None:
    dialled = dials_in_a_circle({"c1": "c2", "c2": "c1"})
    assert {address for _, address in dialled} == {"c1", "c2"}
    assert len(dialled) < 5 * SECONDS


def test_one_redirect_is_followed_at_once() -> None:
    first, second, *_ = dials_in_a_circle({"c1": "c2", "c2": ""})
    assert (first[1], second[1], second[0] - first[0]) == ("c1", "c2", 0.0)
