"""How often the open connections are counted.

Rules: pure. A pass goes over the kernel's whole table, 9 ms when it is empty, so while the count moves passes may take the
hundredth part of one core, and once it has settled a thousandth: then the last count says nearly the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MOVING, SETTLED = 100, 1000
REST_S_MAX: Final = 30.0
SETTLED_WITHIN: Final = 0.2


def rest_s(cost_s: float, before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Until the next pass; `cost_s`: CPU seconds of the last one, `before` and `now`: what the last two counted."""
    was, total = sum(before.values()), sum(now.values())
    settled = total > 0 and abs(total - was) <= SETTLED_WITHIN * total
    return min(REST_S_MAX, (SETTLED if settled else MOVING) * cost_s)
