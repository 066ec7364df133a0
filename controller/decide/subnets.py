"""Which subnets, prefixes and VNIs are taken, and by whom: other networks' plans, the machines' routes, what was claimed.

Rules: read when a network is planned and not before. A plan avoids the plans there are and the machines' routes. A subnet from
the pool also avoids what other networks claim and have not used yet; a claim is refused for another claim only when it is made
(`claims`), so that two of them never wait for each other.
"""

from __future__ import annotations

from controller.decide.addresses import claimed_prefix6, claimed_subnet, is_subnet, lowest_vni, roomy_subnet
from controller.decide.types import Settings, View
from model.documents import NetworkPlanDoc
from model.spec import NetworkSpec

Row = tuple[str, str]
"""(how to say whose it is, subnet)"""


class Subnets:
    def __init__(self, view: View, settings: Settings) -> None:
        self.settings = settings
        self.nodes = len(view.nodes)
        self._view = view
        self._known: dict[str, NetworkPlanDoc] | None = None
        self._vnis: set[int] = set()
        self._machine_rows: list[Row] | None = None

    def add(self, plan: NetworkPlanDoc) -> None:
        """A plan made in this pass."""
        self._plans()[plan.name] = plan
        self._vnis.add(plan.vni)

    def vni(self, name: str) -> int:
        """The lowest that no other network has."""
        own = self._plans().get(name)
        return lowest_vni(self._vnis - {own.vni} if own else self._vnis)

    def taken(self, name: str) -> list[Row]:
        """What the network's subnet may not overlap."""
        others = [(f" of network {plan.name}", plan.subnet) for plan in self._plans().values() if plan.name != name]
        return others + self._machines()

    def taken6(self, name: str) -> list[Row]:
        plans = self._plans().values()
        return [(f" of network {plan.name}", plan.prefix6) for plan in plans if plan.prefix6 and plan.name != name]

    def claims(self, name: str, field: str = "subnet") -> list[Row]:
        """What other networks ask for and do not have yet."""
        plans, version = self._plans(), 6 if field == "subnet6" else 4
        return [
            (f" of network {other}", asked)
            for other, doc in self._view.networks.items()
            if other not in plans and (asked := getattr(doc.spec, field)) and other != name and is_subnet(asked, version)
        ]

    def _plans(self) -> dict[str, NetworkPlanDoc]:
        if self._known is None:
            self._known = {n: plan for n, plan in sorted(self._view.netplans.items()) if n in self._view.networks}
            self._vnis = {plan.vni for plan in self._known.values()}
        return self._known

    def _machines(self) -> list[Row]:
        """Routes of the machines, each once."""
        if self._machine_rows is None:
            whose = dict.fromkeys(self.settings.avoid, "this controller's machine")
            for node in sorted(self._view.statuses.keys() & self._view.nodes.keys()):
                for subnet in self._view.statuses[node].info.routes:
                    if is_subnet(subnet):
                        whose.setdefault(subnet, f"node {node}")
            self._machine_rows = [(f", to which {who} has a route", subnet) for subnet, who in whose.items()]
        return self._machine_rows


def subnet_of(subnets: Subnets, spec: NetworkSpec, claims: bool = False) -> str:
    """The subnet the network gets. Raises Exhausted."""
    taken = subnets.taken(spec.name)
    if spec.subnet:
        return claimed_subnet(spec.subnet, [*taken, *(subnets.claims(spec.name) if claims else ())])
    unused = [subnet for _, subnet in subnets.claims(spec.name)]
    settings = subnets.settings
    return roomy_subnet(settings.pool, settings.network_prefix, subnets.nodes, [*(subnet for _, subnet in taken), *unused])


def prefix6_of(subnets: Subnets, spec: NetworkSpec, claims: bool = False) -> str:
    """The IPv6 prefix the network asks for. Raises Exhausted."""
    taken = subnets.taken6(spec.name)
    return claimed_prefix6(spec.subnet6, [*taken, *(subnets.claims(spec.name, "subnet6") if claims else ())])
