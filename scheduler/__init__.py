"""Pure placement: cluster view, filters that explain themselves, scores, batches."""

from scheduler.cover import Tenant
from scheduler.place import Short, bound_since, explain_in, fill_in, place, place_in
from scheduler.pool import Pool
from scheduler.ports import PortClaim
from scheduler.preempt import Eviction, Victim, give_back, make_room
from scheduler.types import MICRO, Amounts, ClusterView, Group, Load, NodeFacts, Placement, Refusal, Strategy, micro

__all__ = [
    "MICRO", "Amounts", "ClusterView", "Eviction", "Group", "Load", "NodeFacts", "Placement", "Pool", "PortClaim", "Refusal",
    "Short", "Strategy", "Tenant", "Victim", "bound_since", "explain_in", "fill_in", "give_back", "make_room", "micro", "place",
    "place_in",
]  # fmt: skip
