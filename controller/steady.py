"""Moments that others are measured from are kept in monotonic seconds: setting the clock makes nobody silent and nothing late.

Rules: decisions reckon in Unix ms; what they get is reckoned back from the clock as it stands when they are asked.
"""

from __future__ import annotations

from model.ports import Clock


def zero_ms(clock: Clock) -> float:
    """The Unix ms at which its monotonic time was 0, by the clock as it stands now."""
    return (clock.now() - clock.monotonic()) * 1000
