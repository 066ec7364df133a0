"""What the autoscaler remembers from one decision to the next: counts wanted, changes made, metrics that fail.

Rules: everything is a tuple of a `ScaleDoc`, so that a new leader goes on with it. A count that is wanted no longer is held
until the end of its slot (a thirtieth of the window): the window is never shorter than said, a load that swings writes a few
times a minute, and one that stays writes nothing.
"""

from __future__ import annotations

from typing import Final

from model.autoscale import ScaleIn, ScaleOut

Rows = tuple[tuple[int, int], ...]
SLOTS: Final = 30


def remember(recommended: Rows, count: int, scale: int, now_ms: int, window_s: float) -> Rows:
    """`recommended` with what is wanted now. Where nothing is known of the time before, the present count was wanted."""
    until = slot_end(now_ms, window_s)
    if not recommended:
        return ((until, scale), (now_ms, count)) if scale > count else ((now_ms, count),)
    *held, (_, newest) = recommended
    if count == newest or (count > newest and any(at >= now_ms and count <= still for at, still in held)):
        return recommended
    kept = [row for row in held if row[1] > count and row[0] > now_ms - window_s * 1000]
    if count < newest and not (kept and kept[-1][0] >= until):
        kept.append((until, newest))
    return (*kept, (now_ms, count))


def slot_end(now_ms: int, window_s: float) -> int:
    slot_ms = max(1, int(window_s * 1000 / SLOTS))
    return now_ms + -now_ms % slot_ms


def largest(recommended: Rows, now_ms: int, window_s: float) -> int:
    """The largest count wanted within the window."""
    since = now_ms - window_s * 1000
    return next(count for at, count in (*((at, count) for at, count in recommended[:-1] if at > since), recommended[-1]))


def room_out(steps: Rows, scale: int, rule: ScaleOut, now_ms: int) -> tuple[int, int]:
    """The smallest count of the last `every_s`, and how many more than that there may be: one at least, whatever is said."""
    base = min([scale, *(before for at, before in steps if at > now_ms - rule.every_s * 1000)])
    return base, max(1, rule.at_least, int(rule.step * base))


def room_in(steps: Rows, scale: int, rule: ScaleIn, now_ms: int) -> tuple[int, int]:
    """The largest count of the last `every_s`, and how many fewer than that there may be: one at least."""
    base = max([scale, *(before for at, before in steps if at > now_ms - rule.every_s * 1000)])
    return base, max(1, int(rule.step * base))


def stepped(steps: Rows, before: int, now_ms: int, out: ScaleOut, down: ScaleIn) -> Rows:
    """`steps` with a change from `before`; those that no longer count go."""
    if steps and steps[-1] == (now_ms, before):
        return steps
    since = now_ms - max(out.every_s, down.every_s) * 1000
    return (*(row for row in steps if row[0] > since), (now_ms, before))
