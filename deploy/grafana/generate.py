"""Writes deploy/grafana/dashboards/*.json.

    python -m deploy.grafana.generate            writes them
    python -m deploy.grafana.generate --check    says which are not as they would be written, and ends with 1

Rules: a dashboard is data here: titles, units and PromQL. Tests hold every expression against promtool and the metrics that
there are.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "shoal"}
COLUMNS: Final = 24


@dataclass(frozen=True)
class Panel:
    """`queries`: (PromQL, legend). `unit` in Grafana's words; `wide`: columns of 24."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    wide: int = 8
    tall: int = 7
    text: str = ""


@dataclass(frozen=True)
class Dashboard:
    """`choose`: variables as (name, PromQL of label_values)."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    choose: tuple[tuple[str, str], ...] = field(default=())


def stat(title: str, query: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title, ((query, ""),), unit, "stat", 4, 4, text)


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """The median and the slowest hundredth of a histogram."""
    labels, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    of = "histogram_quantile({}, sum by ({}) (rate({}_bucket[$__rate_interval])))"
    return tuple((of.format(q, labels, metric), f"p{int(q * 100)}{legend}") for q in (0.5, 0.99))


CLUSTER: Final = Dashboard(
    "cluster",
    "Shoal: cluster",
    (
        stat("Nodes ready", 'sum(shoal_nodes{state="ready"}) or vector(0)'),
        stat("Nodes not ready", 'sum(shoal_nodes{state!="ready"}) or vector(0)'),
        stat("Services", "sum(shoal_services)"),
        stat("Replicas running", 'sum(shoal_replicas{state="running"}) or vector(0)'),
        stat("Replicas missing", "sum(service:shoal_replicas_missing:max)"),
        stat("Leaders", "sum(shoal_leader)", text="One, but for a moment while another takes over."),
        Panel("Nodes", (("sum by (state) (shoal_nodes)", "{{state}}"),)),
        Panel("Replicas", (("sum by (state) (shoal_replicas)", "{{state}}"),)),
        Panel("Missing replicas", (("topk(10, service:shoal_replicas_missing:max > 0)", "{{service}}"),)),
        Panel("Replicas without a node", (("topk(10, shoal_service_replicas_unplaced > 0)", "{{service}}"),)),
        Panel("Outdated replicas", (("topk(10, shoal_service_replicas_outdated > 0)", "{{service}}"),)),
        Panel("Restarts per minute", (
            ("topk(10, 60 * sum by (service) (rate(shoal_container_restarts_total[5m])) > 0)", "{{service}}"),
        )),
        Panel("Time to decide", quantiles("shoal_decision_seconds", "loop"), "s"),
        Panel("Time of a whole pass", quantiles("shoal_pass_seconds", "loop"), "s"),
        Panel("Time until the store has answered", quantiles("shoal_store_request_seconds"), "s"),
        Panel("Decisions per second", (("sum by (loop) (rate(shoal_decisions_total[$__rate_interval]))", "{{loop}}"),), "ops"),
        Panel("Passes tried again per second", (
            ("sum by (loop, kind) (rate(shoal_decisions_failed_total[$__rate_interval]))", "{{loop}} {{kind}}"),
        ), "ops"),
        Panel("Changes in the store per second", (("max(deriv(shoal_store_revision[1m]))", "revisions"),), "ops"),
        Panel("Controllers' processors", (
            ('rate(process_cpu_seconds_total{job="shoal-controllers"}[$__rate_interval])', "{{controller}}"),
        )),
        Panel("Controllers' memory", (
            ('process_resident_memory_bytes{job="shoal-controllers"}', "{{controller}}"),
        ), "bytes"),
        Panel("Agents with a session", (("sum(shoal_sessions)", "sessions"), ("sum(shoal_nodes)", "nodes"))),
    ),
)  # fmt: skip

SERVICE: Final = Dashboard(
    "service",
    "Shoal: service",
    (
        stat("Wanted", 'max(shoal_service_replicas_wanted{service="$service"})'),
        stat("Ready", 'max(shoal_service_replicas_ready{service="$service"})'),
        stat("Without a node", 'max(shoal_service_replicas_unplaced{service="$service"})'),
        stat("Failed", 'max(shoal_service_replicas_failed{service="$service"})'),
        stat("Outdated", 'max(shoal_service_replicas_outdated{service="$service"})'),
        stat("Callers held", 'max(shoal_service_held_callers{service="$service"}) or vector(0)'),
        Panel("Replicas", (
            ('max(shoal_service_replicas_wanted{service="$service"})', "wanted"),
            ('max(shoal_service_replicas_ready{service="$service"})', "ready"),
        )),
        Panel("Connections per second", (
            ('sum by (node) (rate(shoal_balanced_connections_total{service="$service"}[$__rate_interval]))', "from {{node}}"),
        ), "cps", text="As the load balancer of each node counts them."),
        Panel("Traffic", (
            ('sum by (direction) (rate(shoal_balanced_bytes_total{service="$service"}[$__rate_interval]))', "{{direction}}"),
        ), "Bps"),
        Panel("Processor", (
            ('rate(shoal_container_cpu_seconds_total{service="$service"}[$__rate_interval])', "{{replica}}"),
        )),
        Panel("Processor time held back", (
            ('rate(shoal_container_throttled_seconds_total{service="$service"}[$__rate_interval])', "{{replica}}"),
        ), "s"),
        Panel("Share of the reserved processor", (
            ('service:shoal_cpu_utilization:ratio{service="$service"}', "{{service}}"),
        ), "percentunit"),
        Panel("Memory", (('sum by (replica) (shoal_container_memory_bytes{service="$service"})', "{{replica}}"),), "bytes"),
        Panel("Restarts", (
            ('sum by (node) (increase(shoal_container_restarts_total{service="$service"}[$__rate_interval]))', "{{node}}"),
        )),
        Panel("Killed for want of memory", (
            ('increase(shoal_container_oom_kills_total{service="$service"}[$__rate_interval])', "{{replica}}"),
        )),
    ),
    (("service", "label_values(shoal_service_replicas_wanted, service)"),),
)  # fmt: skip

NODE: Final = Dashboard(
    "node",
    "Shoal: node",
    (
        stat("Agent answers", 'max(up{job="shoal-agents",node="$node"})'),
        stat("Session with the leader", 'max(shoal_agent_session{node="$node"})'),
        stat("Replicas running", 'sum(shoal_containers{node="$node",state="running"}) or vector(0)'),
        stat("Networks", 'max(shoal_node_networks{node="$node"})'),
        stat("Images", 'max(shoal_images{node="$node"})'),
        stat("Images on disk", 'max(shoal_image_bytes{node="$node"})', "bytes"),
        Panel("Replicas", (('sum by (state) (shoal_containers{node="$node"})', "{{state}}"),)),
        Panel("Processor", (
            ('node:shoal_container_cpu_cores:rate1m{node="$node"}', "used by containers"),
            ('sum(shoal_node_reserved_cpu_cores{node="$node"})', "reserved"),
            ('sum(shoal_node_cpu_cores{node="$node"})', "offered"),
        )),
        Panel("Memory", (
            ('sum(shoal_container_memory_bytes{node="$node"})', "used by containers"),
            ('sum(shoal_node_reserved_memory_bytes{node="$node"})', "reserved"),
            ('sum(shoal_node_memory_bytes{node="$node"})', "offered"),
        ), "bytes"),
        Panel("Time of a start", (
            ('histogram_quantile(0.5, sum by (le) (rate(shoal_container_start_seconds_bucket{node="$node"}[5m])))', "p50"),
            ('histogram_quantile(0.99, sum by (le) (rate(shoal_container_start_seconds_bucket{node="$node"}[5m])))', "p99"),
        ), "s"),
        Panel("Images wanted per minute", (
            ('60 * sum by (result) (rate(shoal_image_pulls_total{node="$node"}[5m]))', "{{result}}"),
        )),
        Panel("Read from registries", (('sum(rate(shoal_image_fetched_bytes_total{node="$node"}[5m]))', "layers"),), "Bps"),
        Panel("Events per minute", (('60 * sum by (kind) (rate(shoal_agent_events_total{node="$node"}[5m]))', "{{kind}}"),)),
        Panel("Messages of the session per second", (
            ('rate(shoal_agent_messages_total{node="$node"}[$__rate_interval])', "{{direction}} {{kind}}"),
        ), "ops"),
        Panel("The agent itself", (
            ('sum(rate(process_cpu_seconds_total{job="shoal-agents",node="$node"}[$__rate_interval]))', "processor"),
        )),
    ),
    (("node", 'label_values(up{job="shoal-agents"}, node)'),),
)  # fmt: skip

AUTOSCALER: Final = Dashboard(
    "autoscaler",
    "Shoal: autoscaler",
    (
        Panel("Replicas", (
            ('max(shoal_autoscale_replicas_wanted{service="$service"})', "wanted"),
            ('max(shoal_service_replicas_ready{service="$service"})', "ready"),
            ('max(shoal_autoscale_replicas_min{service="$service"})', "min"),
            ('max(shoal_autoscale_replicas_max{service="$service"})', "max"),
        ), wide=12),
        Panel("Load of one replica, as a share of the target", (
            ('max by (metric) (shoal_autoscale_metric_value{service="$service"})'
             ' / on () group_left () max(shoal_service_replicas_ready{service="$service"} > 0)'
             ' / on (metric) max by (metric) (shoal_autoscale_metric_target{service="$service"})', "{{metric}}"),
        ), "percentunit", wide=12, text="At 100 % each replica bears what it should."),
        Panel("What is measured", (('max by (metric) (shoal_autoscale_metric_value{service="$service"})', "{{metric}}"),)),
        Panel("Replicas each metric wanted at the newest change", (
            ('max by (metric) (shoal_autoscale_metric_wanted{service="$service"})', "{{metric}}"),
        )),
        Panel("Metrics that are missing", (
            ('max by (metric) (shoal_autoscale_metric_failing_seconds{service="$service"})', "{{metric}}"),
        ), "s", text="While one is missing nothing is scaled in."),
        Panel("Changes per minute", (
            ('60 * sum by (direction) (rate(shoal_autoscale_decisions_total{service="$service"}[5m]))', "{{direction}}"),
        )),
        Panel("Callers held while no replica is ready", (('max(shoal_service_held_callers{service="$service"})', "callers"),)),
        Panel("Connections served per second", (
            ('service:shoal_connections:rate1m{service="$service"}', "connections"),
        ), "cps"),
        Panel("Machines of node groups", (("sum by (group, state) (shoal_node_group_machines)", "{{group}} {{state}}"),)),
        Panel("Machines asked for and given back, per hour", (
            ("sum by (group, direction) (increase(shoal_node_group_changes_total[1h]))", "{{group}} {{direction}}"),
        )),
        Panel("Cores", (
            ("sum(shoal_cluster_cpu_cores)", "of usable nodes"),
            ("sum(max by (service) (shoal_service_replicas_wanted) * max by (service) (shoal_service_reserved_cpu_cores))",
             "wanted by services"),
        )),
    ),
    (("service", "label_values(shoal_autoscale_replicas_max, service)"),),
)  # fmt: skip

ALL: Final = (CLUSTER, SERVICE, NODE, AUTOSCALER)


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana takes it."""
    panels, x, y, tall = [], 0, 0, 0
    for number, panel in enumerate(dashboard.panels, 1):
        if x + panel.wide > COLUMNS:
            x, y = 0, y + tall
        panels.append(_panel(panel, number, x, y))
        x, tall = x + panel.wide, panel.tall
    return {
        "uid": f"shoal-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["shoal"],
        "schemaVersion": 37,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_variable(name, query) for name, query in dashboard.choose]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.wide, "h": panel.tall},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {"name": name, "type": "query", "datasource": SOURCE, "query": query, "definition": query, "refresh": 2, "sort": 1}


def texts() -> dict[Path, str]:
    return {FOLDER / f"{dashboard.name}.json": json.dumps(rendered(dashboard), indent=1) + "\n" for dashboard in ALL}


def main(words: list[str]) -> int:
    wrong = 0
    for path, text in texts().items():
        if words == ["--check"]:
            if not path.exists() or path.read_text() != text:
                wrong = 1
                print(f"{path.name} is not what generate.py says: run python -m deploy.grafana.generate", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
