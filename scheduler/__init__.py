"""Pure placement: cluster view, filters that explain themselves, scores, batches."""

from scheduler.place import place, place_in
from scheduler.pool import Pool
from scheduler.ports import PortClaim
from scheduler.types import MICRO, Amounts, ClusterView, Group, Load, NodeFacts, Placement, Refusal, Strategy, micro

__all__ = [
    "MICRO", "Amounts", "ClusterView", "Group", "Load", "NodeFacts", "Placement", "Pool", "PortClaim", "Refusal", "Strategy",
    "micro", "place", "place_in",
]  # fmt: skip
