"""A replay as SVG: a panel per scaler, demand as an area, what its replicas can serve as a line, what stays unserved in red.

Rules: text only, no script, no font or file from elsewhere. A pixel column shows the largest demand and the smallest capacity
of its seconds, so nothing unserved is hidden.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Final

from sim.replay.service import Run

WIDTH: Final = 1100
PANEL: Final = 170
LEFT, TOP, GAP, BOTTOM = 60, 46, 34, 24
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.d{fill:#c9d6e2}.u{fill:#d33}.c{fill:none;stroke:#1b6ca8;stroke-width:1.4}"
    ".g{stroke:#ddd;stroke-width:1}.t{font-weight:bold}"
)


def plot(title: str, demand: Sequence[float], capacity: float, runs: Sequence[tuple[Run, str]], start_ms: int) -> str:
    """`runs` with a caption each; `capacity`: units a second of one replica."""
    columns = min(WIDTH, len(demand))
    edges = [len(demand) * column // columns for column in range(columns + 1)]
    demands = [max(demand[low:high]) for low, high in pairwise(edges)]
    ables = [_lowest(run, edges, capacity) for run, _ in runs]
    top = max([1e-9, *demands, *(able for row in ables for able in row)])
    height = TOP + len(runs) * (PANEL + GAP) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="t" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for index, (_, caption) in enumerate(runs):
        parts += _panel(TOP + index * (PANEL + GAP), caption, demands, ables[index], top)
    parts += _times(len(demand), start_ms, height - 8)
    return "\n".join([*parts, "</svg>", ""])


def _lowest(run: Run, edges: Sequence[int], capacity: float) -> list[float]:
    """The smallest capacity within each column."""
    times, counts = [at for at, _ in run.ready], [count for _, count in run.ready]
    found = []
    for low, high in pairwise(edges):
        first = max(0, bisect_right(times, low) - 1)
        last = bisect_right(times, max(low, high - 1))
        found.append(capacity * min(counts[first : max(last, first + 1)]))
    return found


def _panel(y: int, caption: str, demands: Sequence[float], ables: Sequence[float], top: float) -> list[str]:
    base, wide = y + PANEL, WIDTH / len(demands)
    xs = [LEFT + wide * (column + 0.5) for column in range(len(demands))]

    def at(value: float) -> float:
        return base - PANEL * value / top

    area = " ".join(f"{x:.1f},{at(value):.1f}" for x, value in zip(xs, demands, strict=True))
    line = " ".join(f"{x:.1f},{at(able):.1f}" for x, able in zip(xs, ables, strict=True))
    lost = [
        f'<rect class="u" x="{x - wide / 2:.1f}" y="{at(value):.1f}" width="{wide:.2f}" height="{at(able) - at(value):.1f}"/>'
        for x, value, able in zip(xs, demands, ables, strict=True) if value > able
    ]  # fmt: skip
    grid = []
    for share in (0, 0.5, 1):
        grid.append(f'<line class="g" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at(top * share):.1f}" y2="{at(top * share):.1f}"/>')
        grid.append(f'<text x="{LEFT - 6}" y="{at(top * share) + 4:.1f}" text-anchor="end">{top * share:,.0f}</text>')
    return [
        *grid, f'<polygon class="d" points="{xs[0]:.1f},{base} {area} {xs[-1]:.1f},{base}"/>', *lost,
        f'<polyline class="c" points="{line}"/>', f'<text x="{LEFT}" y="{y - 6}">{escape(caption)}</text>',
    ]  # fmt: skip


def _times(seconds: int, start_ms: int, y: int) -> list[str]:
    """Six times along the bottom: of the day when the load has one, else since it began."""
    found = []
    for part in range(6):
        second = seconds * part // 5
        x, anchor = LEFT + WIDTH * part / 5, "end" if part == 5 else "middle" if part else "start"
        moment = datetime.fromtimestamp(start_ms / 1000 + second, UTC)
        label = f"{moment:%Y-%m-%d %H:%M}" if start_ms else f"{second // 3600}:{second // 60 % 60:02} h"
        found.append(f'<text x="{x:.0f}" y="{y}" text-anchor="{anchor}">{label}</text>')
    return found
