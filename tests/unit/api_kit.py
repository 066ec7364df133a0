"""Controllers' APIs without a server: handlers are called, what they write stands in one store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from controller.api.context import Api, Call
from controller.api.gone import GoneServices
from controller.clock import RealClock, RealRandom
from controller.decide.types import Settings
from controller.loops.measuring import Measuring
from controller.loops.picture import Picture
from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.queries import Queries
from controller.samples.store import MemorySamples
from controller.store.memory import MemoryStore
from controller.store.mirror import Mirror
from model.documents import PREFIX
from model.spec import Attachment, ContainerSpec, Port, ServiceSpec

NOTHING = cast(Any, None)


@asynccontextmanager
async def controllers(count: int) -> AsyncIterator[list[Api]]:
    """Each with a picture of its own of the one store."""
    store = MemoryStore()
    async with asyncio.TaskGroup() as group:
        apis, tasks = [], []
        for number in range(count):
            picture = Picture(asyncio.get_running_loop().call_soon)
            mirror = Mirror(store, PREFIX, RealClock(), picture.from_mirror, on_listed=picture.listed)
            picture.mirror_revision = partial(getattr, mirror, "revision")
            tasks.append(group.create_task(mirror.run()))
            await mirror.wait_for(1)
            samples = MemorySamples(RealClock())
            apis.append(Api(
                store, picture, mirror.wait_for, RealClock(), RealRandom(), NOTHING, NOTHING, NOTHING, Settings(),
                f"c{number}", "", "", GoneServices(), samples,
                Measuring(samples, Queries(MemoryPrometheus(), RealClock())),
            ))  # fmt: skip
        yield apis
        for task in tasks:
            task.cancel()


def call(body: Any = None, **path: str) -> Call:
    return Call(NOTHING, None, path, {"prune": True}, body)


def box(name: str, network: str = "", *ports: Port) -> ServiceSpec:
    attachments = (Attachment(network),) if network else ()
    return ServiceSpec(name, ContainerSpec("demo/web", networks=attachments, ports=ports), single=True)
