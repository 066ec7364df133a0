"""Pure placement: cluster view, filters that explain themselves, scores, batches."""

from scheduler.place import place
from scheduler.ports import PortClaim
from scheduler.types import MICRO, Amounts, ClusterView, Group, Load, NodeFacts, Placement, Refusal, Strategy, micro

__all__ = [
    "MICRO", "Amounts", "ClusterView", "Group", "Load", "NodeFacts", "Placement", "PortClaim", "Refusal", "Strategy", "micro",
    "place",
]  # fmt: skip
