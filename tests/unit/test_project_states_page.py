"""docs/states.md is drawn from model/states.py. UPDATE_DOCS=1 rewrites the page; without it a stale page fails."""

import os
from pathlib import Path

from model import states

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def draw() -> str:
    """The whole page as Markdown."""
    lines = ["# States", "", "Drawn from `model/states.py`; see CONTRIBUTING.md.", "", "## A replica", ""]
    lines += ["```mermaid", "stateDiagram-v2", f"    [*] --> {states.PENDING}"]
    lines += [f"    {before} --> {after}: {owner}" for before, after, owner, _ in states.TRANSITIONS]
    lines += ["```", "", "| from | to | owner | when |", "|---|---|---|---|"]
    lines += [f"| {before} | {after} | {owner} | {when} |" for before, after, owner, when in states.TRANSITIONS]
    lines += ["", "## A node", "", "| from | to | when |", "|---|---|---|"]
    lines += [f"| {before} | {after} | {when} |" for before, after, when in states.NODE_TRANSITIONS]
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_table() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(draw())
    assert PAGE.read_text() == draw(), "stale: UPDATE_DOCS=1 .venv/bin/pytest tests/unit/test_project_states_page.py"
