"""What services have that nobody else may have: addresses for life, addresses asked for, published numbers.

Rules: a cache beside the index: it compares documents by identity with those it saw last and takes in what changed. Read only
when something new is given out or asked for, so that a pass without that does not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from controller.decide.attached import fixed_of
from controller.decide.ports import is_fixed, ports_of
from model.documents import ServiceDoc, ServicePlanDoc

if TYPE_CHECKING:
    from controller.decide.types import View

Number = tuple[str, int]
"""(protocol, published)"""
Key = TypeVar("Key")
Doc = TypeVar("Doc")
Names = dict[str, None]


class Taken:
    """Names of services by what they have: `vips` and `fixed` by network and address; `numbers` (given) and `asked` (in a spec,
    of mode host too) by protocol and number."""

    def __init__(self) -> None:
        self.vips: dict[str, dict[str, Names]] = {}
        self.fixed: dict[str, dict[str, Names]] = {}
        self.numbers: dict[Number, Names] = {}
        self.asked: dict[Number, Names] = {}
        self._services: Mapping[str, ServiceDoc] = {}
        self._plans: Mapping[str, ServicePlanDoc] = {}

    def refresh(self, view: View) -> Taken:
        if view.svcplans is not self._plans:
            for name, old_plan, new_plan in _differing(self._plans, view.svcplans):
                _swap_places(self.vips, name, old_plan.vips if old_plan else (), new_plan.vips if new_plan else ())
                _swap(self.numbers, name, _given(old_plan), _given(new_plan))
            self._plans = view.svcplans
        if view.services is not self._services:
            for name, old, new in _differing(self._services, view.services):
                _swap_places(self.fixed, name, fixed_of(old) if old else (), fixed_of(new) if new else ())
                _swap(self.asked, name, _asked(old), _asked(new))
            self._services = view.services
        return self


def _differing(before: Mapping[str, Doc], after: Mapping[str, Doc]) -> Iterator[tuple[str, Doc | None, Doc | None]]:
    for name, doc in after.items():
        old = before.get(name)
        if old is not doc:
            yield name, old, doc
    for name in before.keys() - after.keys():
        yield name, before[name], None


def _swap(table: dict[Key, Names], name: str, old: Iterable[Key], new: Iterable[Key]) -> None:
    for key in dict.fromkeys(old):
        table[key].pop(name, None)
        if not table[key]:
            del table[key]
    for key in new:
        table.setdefault(key, {})[name] = None


def _swap_places(
    table: dict[str, dict[str, Names]], name: str, old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]
) -> None:
    for network, address in old:
        _swap(table[network], name, (address,), ())
    for network, address in new:
        _swap(table.setdefault(network, {}), name, (), (address,))


def _given(plan: ServicePlanDoc | None) -> set[Number]:
    return {(port.protocol, port.published) for port in plan.ports} if plan and plan.ports else set()


def _asked(doc: ServiceDoc | None) -> set[Number]:
    if doc is None or not doc.spec.container.ports:
        return set()
    return {(port.protocol, port.published) for port in ports_of(doc) if is_fixed(port)}
