"""The list in docs/metrics.md is drawn from what controllers and agents tell. UPDATE_DOCS=1 rewrites it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.core import metrics_page
from agent.core.metrics import AgentMetrics
from controller.api.metrics import Facts, render
from controller.api.tally import Tally
from model.documents import NodeInfo
from tests.unit.test_controller_metrics import cluster, snapshot

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
MARK = "<!-- drawn from the code: UPDATE_DOCS=1 .venv/bin/pytest tests/unit/test_project_metrics_page.py -->\n"


def table(text: str) -> list[str]:
    """One row for each family of our own, sorted; those of the process itself are as everywhere."""
    kinds = dict(re.findall(r"^# TYPE (shoal_\w+) (\w+)$", text, re.MULTILINE))
    texts = dict(re.findall(r"^# HELP (shoal_\w+) (.*)$", text, re.MULTILINE))
    return ["| name | kind | |", "|---|---|---|", *(f"| `{name}` | {kinds[name]} | {texts[name]} |" for name in sorted(kinds))]


def draw() -> str:
    now = metrics_page.Now(NodeInfo(), (), (), {}, 0, 0, 0)
    controller = table(render(Tally(), Facts(snapshot(cluster()), True, 0)).decode())
    agent = table(metrics_page.render(AgentMetrics(), now).decode())
    end = "Besides these both tell Prometheus' usual `process_...` of themselves."
    return "\n".join(["", "### Controllers", "", *controller, "", "### Agents", "", *agent, "", end]) + "\n"


def test_the_page_lists_every_metric() -> None:
    head, mark, rest = PAGE.read_text().partition(MARK)
    assert mark
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(head + MARK + draw())
        rest = draw()
    assert rest == draw(), "stale: UPDATE_DOCS=1 .venv/bin/pytest tests/unit/test_project_metrics_page.py"
