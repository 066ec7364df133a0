"""Network plans of one pass: a VNI and a subnet when a network is first used, a slice when a node first uses it.

Rules: a slice goes with its node, or when nobody has used it for long enough (idle.py); a plan goes with its network document.
An address that a spec asks for is told with its node while it lies outside that node's slice, and goes with its replica. What
cannot be had is a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.decide.addresses import Exhausted, SliceBook, own_prefix6, range_of
from controller.decide.subnets import Subnets, prefix6_of, subnet_of
from controller.decide.types import Settings, View
from model.documents import NetworkDoc, NetworkPlanDoc
from model.spec import NetworkSpec


def subnet_problem(view: View, spec: NetworkSpec, settings: Settings) -> str:
    """Why a network cannot be created beside what there is: its subnet is taken, or the pool has none left; else empty."""
    subnets = Subnets(view, settings)
    try:
        subnet_of(subnets, spec, claims=True)
        if spec.enable_ipv6 and spec.subnet6:
            prefix6_of(subnets, spec, claims=True)
    except Exhausted as error:
        return f"network {spec.name}: {error}"
    return ""


@dataclass(slots=True)
class _Draft:
    """A plan as this pass leaves it: slices by node, nodes by fixed address, by node since when its slice is unused."""

    slices: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)


class Nets:
    def __init__(self, view: View, settings: Settings) -> None:
        self._view, self._settings = view, settings
        self._plans: dict[str, NetworkPlanDoc] = {}
        self._drafts: dict[str, _Draft] = {}
        self._asked: set[tuple[str, str]] = set()
        """(network, node) that this pass has put somebody on."""
        self._books: dict[str, SliceBook] = {}
        self._subnets = Subnets(view, settings)

    def ensure(self, name: str) -> tuple[str, bool]:
        """(why the network cannot be used or "", whether it was planned just now)."""
        doc = self._view.networks.get(name)
        if doc is None:
            return f"network {name} does not exist", False
        plan = self._plan(name)
        fresh = plan is None or plan.id != doc.id
        if plan is not None and not fresh and (plan.prefix6 or not doc.spec.enable_ipv6):
            return "", False
        try:
            self._plans[name] = self._planned(doc, None if fresh else plan)
        except Exhausted as error:
            return f"network {name}: {error}", False
        self._subnets.add(self._plans[name])
        if fresh:
            self._drafts.pop(name, None)
            self._books.pop(name, None)
        return "", fresh

    def current(self, name: str) -> NetworkPlanDoc | None:
        """The network's plan, when it is that of its document."""
        doc, plan = self._view.networks.get(name), self._plan(name)
        return plan if doc is not None and plan is not None and plan.id == doc.id else None

    def slice(self, name: str, node: str) -> str:
        """Why the node gets no slice of the network, or "" when it has one now. After `ensure`."""
        slices = self._draft(name).slices
        self._asked.add((name, node))
        if node in slices:
            self._draft(name).idle.pop(node, None)
            return ""
        try:
            slices[node] = self._book(name).next(self._without(name), len(self._view.nodes))
        except Exhausted as error:
            return f"network {name}: {error}"
        self._book(name).take(slices[node])
        return ""

    def refusal(self, name: str, node: str) -> str:
        """What `slice` would say."""
        try:
            if node not in self._draft(name).slices:
                self._book(name).next(self._without(name), len(self._view.nodes))
        except Exhausted as error:
            return f"network {name}: {error}"
        return ""

    def slices(self, name: str) -> dict[str, str]:
        """By node."""
        return self._draft(name).slices

    def give_back(self, unused: Mapping[str, Iterable[str]], now_ms: int) -> tuple[dict[str, list[str]], int | None]:
        """Take back what has been unused for long enough, and remember since when the rest is. `unused`: nodes by network, of
        all networks. The part of it whose slices are free now, and when (Unix ms) the first of the rest will be."""
        freed: dict[str, list[str]] = {}
        idle_ms, dues = self._settings.slice_idle_ms, []
        for name in sorted(self._view.netplans):
            if self.current(name) is None:
                continue
            draft = self._draft(name)
            before, slices = draft.idle, draft.slices
            nodes = [node for node in unused.get(name, ()) if node in slices and (name, node) not in self._asked]
            since = {node: min(before.get(node, now_ms), now_ms) for node in nodes}
            over = [node for node in nodes if now_ms - since[node] >= idle_ms]
            for node in over:
                del since[node], slices[node]
            draft.idle = since
            if over:
                freed[name] = over
                self._books.pop(name, None)
            if since:
                dues.append(min(since.values()) + idle_ms)
        return freed, min(dues, default=None)

    def shut_to(self, name: str, takes: Callable[[str], bool]) -> tuple[str, frozenset[str]] | None:
        """The nodes that get no slice any more, with the reason, when there are not enough for all: those that would not take a
        replica (`takes`) before others. After `ensure`."""
        slices = self._draft(name).slices
        without, left = len(self._view.nodes) - len(slices), self._book(name).left()
        if without <= 0 or left >= without:
            return None
        others = sorted((node for node in self._view.nodes if node not in slices), key=lambda node: (not takes(node), node))
        return f"network {name}: {self._book(name).exhausted()}", frozenset(others[left:])

    def fix(self, name: str, address: str, node: str) -> None:
        """The container with that address is on the node; on none any more when `node` is empty."""
        plan = self.current(name)
        if plan is None:
            return
        draft = self._draft(name)
        before, own = draft.fixed.get(address, ""), draft.slices.get(node, "")
        after = node if node and not (own and holds(own, address)) else ""
        if after == before:
            return
        draft.fixed.pop(address, None)
        if after:
            draft.fixed[address] = after
        self._books.pop(name, None)

    def drop_fixed(self, name: str, wanted: Iterable[str]) -> None:
        """Forget the addresses of the network that nobody asks for."""
        for address in self._draft(name).fixed.keys() - set(wanted):
            self.fix(name, address, "")

    def drop_nodes(self, gone: set[str]) -> None:
        for name, plan in self._view.netplans.items():
            if any(node in gone for node, _ in plan.slices) or any(node in gone for _, node in plan.fixed):
                draft = self._draft(name)
                for node in gone:
                    draft.slices.pop(node, None)
                    draft.idle.pop(node, None)
                for address in [address for address, node in draft.fixed.items() if node in gone]:
                    del draft.fixed[address]
                self._books.pop(name, None)

    def changed(self) -> tuple[NetworkPlanDoc, ...]:
        plans = []
        for name in sorted(self._drafts.keys() | self._plans.keys()):
            plan = self._plan(name)
            if plan is None or name not in self._view.networks:
                continue
            draft = self._draft(name)
            slices, fixed, idle = sorted(draft.slices.items()), sorted(draft.fixed.items()), sorted(draft.idle.items())
            after = replace(plan, slices=tuple(slices), fixed=tuple(fixed), idle=tuple(idle))
            if after != self._view.netplans.get(name):
                plans.append(after)
        return tuple(plans)

    def gone(self) -> list[str]:
        """Names of plans whose network no longer exists."""
        return sorted(name for name in self._view.netplans if name not in self._view.networks)

    def _planned(self, doc: NetworkDoc, plan: NetworkPlanDoc | None) -> NetworkPlanDoc:
        """A new plan, or the one there is with what it lacks. Raises Exhausted."""
        spec = doc.spec
        if plan is None:
            plan = NetworkPlanDoc(doc.id, spec.name, self._subnets.vni(spec.name), subnet_of(self._subnets, spec))
        if not spec.enable_ipv6:
            return plan
        own = prefix6_of(self._subnets, spec) if spec.subnet6 else ""
        return replace(plan, prefix6=own or own_prefix6(doc.id, plan.vni, [row for _, row in self._subnets.taken6(spec.name)]))

    def _plan(self, name: str) -> NetworkPlanDoc | None:
        return self._plans.get(name) or self._view.netplans.get(name)

    def _draft(self, name: str) -> _Draft:
        draft = self._drafts.get(name)
        if draft is None:
            plan = self._plan(name)
            draft = _Draft(dict(plan.slices), dict(plan.fixed), dict(plan.idle)) if plan else _Draft()
            self._drafts[name] = draft
        return draft

    def _without(self, name: str) -> int:
        return max(1, len(self._view.nodes) - len(self._draft(name).slices))

    def _book(self, name: str) -> SliceBook:
        book = self._books.get(name)
        if book is None:
            plan = self._plan(name)
            assert plan is not None, "ensure comes first"
            taken = [*self._draft(name).slices.values(), *self._draft(name).fixed]
            book = self._books[name] = SliceBook(plan.subnet, self._settings.slice_prefix, taken)
        return book


def holds(cidr: str, address: str) -> bool:
    """Whether the IPv4 address is in the network."""
    (low, end), (at, _) = range_of(cidr), range_of(address)
    return low <= at < end
