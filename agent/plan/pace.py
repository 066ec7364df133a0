"""How often the kernel's whole table of connections is gone over, to see whether the open ones were counted rightly.

Rules: pure. A pass costs 9 ms of a core where the table is empty and more where it is not, all at once; over time passes may
take the thousandth part of one core, whatever they find and however often somebody asks.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 1000
REST_S_MIN: Final = 30.0


def rest_s(cost_s: float) -> float:
    """Until the next pass; `cost_s`: CPU seconds of the last one."""
    return max(REST_S_MIN, SHARE * cost_s)
