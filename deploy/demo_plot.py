"""What the demo's second half recorded, as a picture: load, replicas and nodes over time.

    python -m deploy.demo --only grow --record seen.csv
    python -m deploy.demo_plot seen.csv docs/growing.svg

Rules: text only, no script, no font or file from elsewhere. A count holds until the next look, so lines are steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final

from deploy.demo_grow import Second, read

WIDTH: Final = 900
PANEL: Final = 130
LEFT, TOP, GAP, BOTTOM = 44, 26, 40, 34
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.a{fill:#d9e2ea}.l{fill:none;stroke:#1b6ca8;stroke-width:2}"
    ".w{fill:none;stroke:#c77700;stroke-width:1.5;stroke-dasharray:5 3}.g{stroke:#ddd}.t{font-weight:bold}"
    ".paper{fill:#fff}"
)
Value = Callable[[Second], float]


def plot(rows: Sequence[Second]) -> str:
    """The whole picture as SVG; it begins with the first look at which replicas ran."""
    rows = [row for number, row in enumerate(rows) if any(before.running for before in rows[: number + 1])]
    rows = [replace(row, at_s=row.at_s - rows[0].at_s) for row in rows]
    end_s = rows[-1].at_s
    height = TOP + 3 * (PANEL + GAP) + BOTTOM - GAP
    panels: tuple[tuple[str, Value | None, Value], ...] = (
        ("requests per second: offered (area), served (line)", lambda row: row.offered, lambda row: row.served),
        ("replicas: wanted (dashed), running (line)", lambda row: row.wanted, lambda row: row.running),
        ("nodes that are ready", None, lambda row: row.nodes),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" role="img">',
        f"<title>A load comes and goes: requests, replicas and nodes over {end_s:.0f} seconds</title><style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for number, (title, behind, line) in enumerate(panels):
        parts += _panel(rows, TOP + number * (PANEL + GAP), title, behind, line, filled=number == 0)
    parts += _seconds(end_s, height - 10)
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[Second], y: int, title: str, behind: Value | None, line: Value, *, filled: bool) -> list[str]:
    top = max(1.0, *(value(row) for row in rows for value in (behind, line) if value is not None))
    base, end_s = y + PANEL, rows[-1].at_s

    def steps(value: Value) -> str:
        heights = [round(base - PANEL * value(row) / top, 1) for row in rows]
        xs = [_x(row.at_s, end_s) for row in rows]
        turns = zip(xs, [heights[0], *heights], heights, strict=False)
        return " ".join(f"{x},{before} {x},{after}" for x, before, after in turns)

    found = [f'<text class="t" x="{LEFT}" y="{y - 8}">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        at = round(base - PANEL * share, 1)
        found.append(f'<line class="g" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at}" y2="{at}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{top * share:g}</text>')
    if filled and behind is not None:
        found.append(f'<polygon class="a" points="{LEFT},{base} {steps(behind)} {_x(end_s, end_s)},{base}"/>')
    elif behind is not None:
        found.append(f'<polyline class="w" points="{steps(behind)}"/>')
    return [*found, f'<polyline class="l" points="{steps(line)}"/>']


def _x(at_s: float, end_s: float) -> float:
    return round(LEFT + WIDTH * at_s / end_s, 1)


def _seconds(end_s: float, y: int) -> list[str]:
    every = 10 if end_s < 200 else 30
    marks = range(0, int(end_s) + 1, every)
    return [f'<text x="{_x(at, end_s)}" y="{y}" text-anchor="middle">{at} s</text>' for at in marks]


def main(words: Sequence[str]) -> int:
    if len(words) != 2:
        print("demo_plot: expected the CSV that `python -m deploy.demo --record` wrote, and the SVG to write", file=sys.stderr)
        return 2
    Path(words[1]).write_text(plot(read(Path(words[0]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
