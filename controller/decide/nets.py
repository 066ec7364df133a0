"""Network plans of one pass: a VNI and a subnet when a network is first used, a slice when a node first uses it.

Rules: plans only grow; a slice goes with its node, a plan with its network document. What cannot be had is a reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controller.decide.addresses import Exhausted, SliceBook, claimed_subnet, lowest_subnet, lowest_vni
from controller.decide.types import Settings, View
from model.documents import NetworkDoc, NetworkPlanDoc
from model.spec import ServiceSpec

UNPLANNED: Final = frozenset({"host", "none", "bridge"})


def networks_of(spec: ServiceSpec) -> list[str]:
    """The user networks the service's containers are on; `service:` and `container:` modes have no plan."""
    names = (attachment.network for attachment in spec.container.networks)
    return [name for name in names if name not in UNPLANNED and ":" not in name]


class Nets:
    def __init__(self, view: View, settings: Settings) -> None:
        self._view, self._settings = view, settings
        self._plans: dict[str, NetworkPlanDoc] = {}
        self._slices: dict[str, dict[str, str]] = {}
        self._books: dict[str, SliceBook] = {}
        self._shut: dict[str, tuple[int, frozenset[str]]] = {}

    def ensure(self, name: str) -> tuple[str, bool]:
        """(why the network cannot be used or "", whether it was planned just now)."""
        doc = self._view.networks.get(name)
        if doc is None:
            return f"network {name} does not exist", False
        plan = self._plan(name)
        if plan is not None and plan.id == doc.id:
            return "", False
        try:
            self._plans[name] = NetworkPlanDoc(doc.id, name, lowest_vni(self._vnis(name)), self._subnet(doc))
        except Exhausted as error:
            return f"network {name}: {error}", False
        self._slices.pop(name, None)
        self._books.pop(name, None)
        return "", True

    def slice(self, name: str, node: str) -> str:
        """Why the node gets no slice of the network, or "" when it has one now. After `ensure`."""
        slices = self._slices_of(name)
        if node in slices:
            return ""
        try:
            slices[node] = self._book(name).next(self._without(name))
        except Exhausted as error:
            return f"network {name}: {error}"
        self._book(name).take(slices[node])
        return ""

    def shut_to(self, name: str) -> tuple[str, frozenset[str]] | None:
        """The nodes that get no slice any more, with the reason, when there are not enough for all. After `ensure`."""
        slices = self._slices_of(name)
        without, left = len(self._view.nodes) - len(slices), self._book(name).left()
        if without <= 0 or left >= without:
            return None
        known = self._shut.get(name)
        if known is None or known[0] != len(slices):
            others = [node for node in sorted(self._view.nodes) if node not in slices]
            known = self._shut[name] = (len(slices), frozenset(others[left:]))
        return f"network {name}: {self._book(name).exhausted()}", known[1]

    def drop_nodes(self, gone: set[str]) -> None:
        for name, plan in self._view.netplans.items():
            if any(node in gone for node, _ in plan.slices):
                slices = self._slices_of(name)
                for node in gone:
                    slices.pop(node, None)
                self._books.pop(name, None)

    def changed(self) -> tuple[NetworkPlanDoc, ...]:
        plans = []
        for name in sorted(self._slices.keys() | self._plans.keys()):
            plan = self._plan(name)
            if plan is None or name not in self._view.networks:
                continue
            after = replace(plan, slices=tuple(sorted(self._slices_of(name).items())))
            if after != self._view.netplans.get(name):
                plans.append(after)
        return tuple(plans)

    def gone(self) -> list[str]:
        """Names of plans whose network no longer exists."""
        return sorted(name for name in self._view.netplans if name not in self._view.networks)

    def _plan(self, name: str) -> NetworkPlanDoc | None:
        return self._plans.get(name) or self._view.netplans.get(name)

    def _slices_of(self, name: str) -> dict[str, str]:
        slices = self._slices.get(name)
        if slices is None:
            plan = self._plan(name)
            slices = self._slices[name] = dict(plan.slices) if plan else {}
        return slices

    def _without(self, name: str) -> int:
        return max(1, len(self._view.nodes) - len(self._slices_of(name)))

    def _book(self, name: str) -> SliceBook:
        book = self._books.get(name)
        if book is None:
            plan = self._plan(name)
            assert plan is not None, "ensure comes first"
            book = SliceBook(plan.subnet, self._settings.slice_prefix, self._slices_of(name).values())
            self._books[name] = book
        return book

    def _others(self, name: str) -> list[NetworkPlanDoc]:
        plans = {**self._view.netplans, **self._plans}
        return [plans[other] for other in sorted(plans) if other != name and other in self._view.networks]

    def _vnis(self, name: str) -> list[int]:
        return [plan.vni for plan in self._others(name)]

    def _subnet(self, doc: NetworkDoc) -> str:
        others = [(f"network {plan.name}", plan.subnet) for plan in self._others(doc.spec.name)]
        taken = [*others, *(("the machines' own networks", subnet) for subnet in self._settings.avoid)]
        if doc.spec.subnet:
            return claimed_subnet(doc.spec.subnet, taken)
        return lowest_subnet(self._settings.pool, self._settings.network_prefix, [subnet for _, subnet in taken])
