"""Writes that claim what only one may have (a port, a subnet), or that must not cross (a network goes, a container comes).

Rules: they are made one after the other, whichever controller makes them. Each reads the ledger, waits for a picture at least
as new, decides, and touches the ledger in its transaction: so whoever was slower looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from controller.api.context import Api, Changed
from controller.decide.attached import networks_of
from model import codec
from model.documents import ClaimsDoc, key
from model.errors import Conflict
from model.spec import ContainerSpec
from model.store_port import Guard, Op, Put

TRIES: Final = 5
LEDGER: Final = key("claims")
T = TypeVar("T")
Commit: TypeAlias = Callable[[Sequence[Guard], Sequence[Op]], Awaitable[int]]


async def claimed(api: Api, what: str, work: Callable[[Commit], Awaitable[T]], needed: bool = True) -> T:
    """What `work` answers, which decides on `api.snapshot()` and writes by the `commit` it is given; when somebody else was
    quicker it is called again. `what` is written, for the refusal when that never ends. `needed` False: nothing is claimed."""
    for attempt in range(TRIES):
        try:
            if not needed:
                return await work(api.commit)
            async with api.claiming:  # within one controller nobody has to repeat
                return await work(await _ledger(api))
        except Changed:
            pass
        await asyncio.sleep(api.random.uniform(0.0, 0.02 * 2**attempt))
    raise Conflict(f"{what}: others change it all the time: try again")


async def _ledger(api: Api) -> Commit:
    """Transactions on facts as they are now; each knows the one before."""
    _, revision = await api.read("claims", "")
    if revision:
        await api.shown(revision)

    async def commit(guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        nonlocal revision
        touched = Put(LEDGER, codec.encode(ClaimsDoc(api.now_ms())))
        revision = await api.commit([*guards, Guard(LEDGER, revision)], [*ops, touched])
        return revision

    return commit


def claims(container: ContainerSpec) -> bool:
    """Whether containers like this claim anything."""
    return bool(container.ports or networks_of(container.networks))
