"""Who has spoken since this agent began, and so what an earlier agent left in the tables that nobody can claim any more.

Rules: pure. A network speaks when it is told whole. One this node takes no part in has nothing to say; that is known when the
networks were named, and none at all is an answer, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.plan.balance import INGRESS, Frontend, Member, Published, Vip
from agent.plan.network import LinkPlan

_OF_TUNNELS: Final = ("inside", "inside6")


@dataclass(frozen=True, slots=True)
class Heard:
    """`plans`: the node's networks; None when nobody has named them yet. `whole`: who was told whole, of them and `ingress`."""

    plans: Mapping[str, LinkPlan] | None
    whole: Collection[str]

    def everybody(self) -> bool:
        """The node's own bridge has no tunnel, and is never told of."""
        return self.plans is not None and INGRESS in self.whole and not any(plan.vxlan for plan in self._silent())

    def unclaimed(self, items: Iterable[Frontend | Member]) -> list[Frontend | Member]:
        """Those of `items` whose claimants have all spoken: what is not claimed by now is nobody's."""
        everybody, silent = self.everybody(), self._silent()
        bridges, tunnels = {plan.bridge for plan in silent}, {plan.vxlan for plan in silent}
        found = []
        for item in items:
            if isinstance(item, Published):
                told = INGRESS in self.whole
            elif isinstance(item, Vip):
                told = self.plans is not None and item.bridge not in bridges
            elif item.of in _OF_TUNNELS:
                told = self.plans is not None and _link(item) not in tunnels
            else:
                told = everybody
            if told:
                found.append(item)
        return found

    def _silent(self) -> list[LinkPlan]:
        return [plan for name, plan in (self.plans or {}).items() if name not in self.whole]


def _link(member: Member) -> str:
    """That such a source enters by."""
    return member.key.partition(" . ")[0].strip('"')
