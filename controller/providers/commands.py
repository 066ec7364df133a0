"""The operator's own commands: what they are told stands on their standard input, what they answer on their output."""

from __future__ import annotations

import os

from controller.decide.machines.types import Listed
from controller.providers import wire
from controller.providers.command import run
from controller.providers.port import Join, Order
from model.autoscale import ProviderSpec


class CommandProvider:
    """Implements Provider. The commands run on the controller's machine as its user."""

    def __init__(self, spec: ProviderSpec) -> None:
        self._spec = spec

    def missing(self) -> tuple[str, ...]:
        programs = dict.fromkeys((self._spec.create[0], self._spec.delete[0], self._spec.list[0]))
        return tuple(f"{path} is no program on the controller's machine" for path in programs if not _is_program(path))

    async def create(self, order: Order, join: Join) -> str:
        who = f"create {order.node}"
        return wire.made(who, await run(who, self._spec.create, wire.told("create", order, join)))

    async def delete(self, order: Order) -> None:
        await run(f"delete {order.node}", self._spec.delete, wire.told("delete", order))

    async def list(self, cluster: str, group: str) -> tuple[Listed, ...]:
        return wire.listed("list", await run("list", self._spec.list, wire.told_list(cluster, group)))


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
