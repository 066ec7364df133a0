"""Which calls of a provider are due, from what is stored. Pure.

Rules: level, not edge: a machine that stands as `creating` is asked for until that has ended, one that stands as `deleting` or
`failed` until it is gone. After a change of leader the list is asked first: what it shows is not asked for again. What
failed is tried again after a pause that doubles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.decide.machines.types import GOING, Asked, Memory, Outcome
from model.autoscale import NodeGroupSpec
from model.documents import Machine, MachinesDoc

AT_ONCE: Final = 8
"""Calls about machines of one group at a time."""
DELETE_AGAIN_MS: Final = 5_000
DELETE_AGAIN_MS_MAX: Final = 300_000
LIST_MS_MIN: Final = 5_000
LIST_MS_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Due:
    """`wake_at_ms`: when something else will be, if nothing changes."""

    create: tuple[Machine, ...] = ()
    delete: tuple[Machine, ...] = ()
    list: bool = False
    wake_at_ms: int | None = None


def due(spec: NodeGroupSpec, document: MachinesDoc, memory: Memory, reign_started_ms: int, now_ms: int) -> Due:
    """Beyond what is under way (`memory.calling`)."""
    wakes: list[int] = []
    free = AT_ONCE - len(memory.calling)
    create = [row for row in document.machines if _to_create(row, memory, reign_started_ms)]
    delete = [row for row in document.machines if row.state in GOING and _to_delete(row, memory, now_ms, wakes)]
    delete, create = delete[: max(free, 0)], create[: max(free - len(delete), 0)]
    list_at = _list_at(spec, document, memory, reign_started_ms)
    wakes += [list_at] if list_at > now_ms else []
    return Due(tuple(create), tuple(delete), list_at <= now_ms, min(wakes, default=None))


def _to_create(machine: Machine, memory: Memory, reign_started_ms: int) -> bool:
    asked: Asked = ("create", machine.node)
    if machine.state != "creating" or asked in memory.calling or asked in memory.outcomes:
        return False
    if machine.since_ms >= reign_started_ms:
        return True
    listed = {row.node for row in memory.report.machines}
    return bool(memory.report.tried_ms) and machine.node not in listed


def _to_delete(machine: Machine, memory: Memory, now_ms: int, wakes: list[int]) -> bool:
    asked: Asked = ("delete", machine.node)
    if asked in memory.calling:
        return False
    said = memory.outcomes.get(asked)
    if said is None or said.at_ms < machine.since_ms:
        return True
    again = said.at_ms + min(DELETE_AGAIN_MS_MAX, DELETE_AGAIN_MS << min(said.tries - 1, 10))
    if now_ms < again:
        wakes.append(again)
        return False
    return True


def _list_at(spec: NodeGroupSpec, document: MachinesDoc, memory: Memory, reign_started_ms: int) -> int:
    """Soon after a machine is deleted, or could not be and was never made: only the list tells that it is gone. Else now and
    then."""
    tried = memory.report.tried_ms
    if not tried:
        return reign_started_ms
    if any(said.at_ms >= tried for said in _deleted(document, memory)):
        return tried + 1
    return tried + max(LIST_MS_MIN, min(LIST_MS_MAX, round(spec.provision_s * 100)))


def _deleted(document: MachinesDoc, memory: Memory) -> Iterable[Outcome]:
    for row in document.machines:
        said = memory.outcomes.get(("delete", row.node)) if row.state in GOING else None
        if said is not None and (said.ok or not row.made):
            yield said
