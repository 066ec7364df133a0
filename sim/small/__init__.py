"""The exhaustive small model: 2 nodes, one service of 2 slots, 2 controllers, 2 faults, every order.

`explore(Small())` goes through all of it (explore.py); model.py has the steps, store.py and node.py what carries them.
"""

from sim.small.explore import Found, explore
from sim.small.model import Small

__all__ = ["Found", "Small", "explore"]
