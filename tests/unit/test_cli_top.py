"""`shoal top` and `shoal stats`: what is shown of what was measured, keys, sorting, shares."""

from __future__ import annotations

from typing import Any

import pytest

from cli import stats
from cli.top import COLUMNS, SORTS, Look, ordered, pressed, screen
from model.errors import NotFound

AT_MS = 1_700_000_000_000
SPOKEN = {
    "cpu_cores": 1.254, "memory_bytes": 3 << 20, "connections_per_s": 12.34, "open": 7, "in_bytes_per_s": 2048.0,
    "out_bytes_per_s": 0,
}  # fmt: skip


def service(name: str, running: int = 1, decision: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "running": running, "wanted": 3, "decision": decision, **more}


def node(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "cpus": 2.0, "memory_limit_bytes": 1 << 30, "replicas": 4, **more}


DECISION = {"at_ms": AT_MS, "before": 1, "wanted": 3, "sentence": "cpu wants 3"}
EVENT = {
    "at_ms": AT_MS,
    "services": [service("quiet"), service("web", 2, DECISION, **SPOKEN)],
    "nodes": [node("n1", cpu_cores=1.5, memory_bytes=1 << 29), node("n2", "down")],
}


def test_the_busiest_service_comes_first_with_its_load_and_the_last_decision() -> None:
    lines = screen(EVENT, Look(), 200, 50)
    assert lines[0] == "22:13:20  services 2, replicas 3, nodes ready 1/2, CPUs in use 1.50/4"
    assert lines[1] == "services by cpu    q quit, s sort, n nodes"
    assert lines[3].split() == ["SERVICE", "REPLICAS", "CPU", "MEMORY", "CONN/S", "OPEN", "IN/S", "OUT/S", "LAST", "SCALED"]
    assert lines[4].split()[:8] == ["web", "2/3", "1.25", "3.0MiB", "12.3", "7", "2.0KiB", "-"]
    assert lines[4].endswith("ago: cpu wants 3")
    assert lines[5].split() == ["quiet", "1/3", *["-"] * 7]


def test_nodes() -> None:
    lines = screen(EVENT, Look("nodes"), 200, 50)
    assert lines[4].split()[:5] == ["n1", "ready", "4", "1.50/2.00", "512MiB/1.0GiB"]
    assert lines[5].split()[:4] == ["n2", "down", "4", "-/2.00"]


def test_no_line_is_longer_than_the_screen_and_not_more_of_them() -> None:
    lines = screen(EVENT, Look(), 20, 5)
    assert len(lines) == 5
    assert max(map(len, lines)) == 20


SENTENCE = "4 -> 7 replicas: connections 338/s of 50/s a replica want 7; at most +4 in 15 s; 2 more still start"
FULL = {
    "at_ms": AT_MS,
    "services": [
        {**service("shop_frontend", 20, {**DECISION, "before": 4, "wanted": 7, "sentence": SENTENCE}, **SPOKEN),
         "in_bytes_per_s": 512_000.0, "out_bytes_per_s": 1_020_000.0, "memory_bytes": 900 << 20},
        service("shop_orders-of-a-customer-with-a-long-name", 3, **SPOKEN),
    ],
    "nodes": [
        node(f"machine-{number}", cpu_cores=1.5, memory_bytes=700 << 20, disk_used_bytes=45 << 30, disk_bytes=120 << 30,
             rx_bytes_per_s=120_000.0, tx_bytes_per_s=3_000_000.0, read_bytes_per_s=900_000.0, write_bytes_per_s=800_000.0)
        for number in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "titles", "scaled"),
    [
        (80, "SERVICE REPLICAS CPU MEMORY CONN/S LAST SCALED", "4 -> 7, "),
        (100, "SERVICE REPLICAS CPU MEMORY CONN/S OPEN LAST SCALED", "4 -> 7, "),
        (120, "SERVICE REPLICAS CPU MEMORY CONN/S OPEN IN/S OUT/S LAST SCALED", "4 -> 7, "),
        (250, "SERVICE REPLICAS CPU MEMORY CONN/S OPEN IN/S OUT/S LAST SCALED", f"ago: {SENTENCE}"),
    ],
)
def test_services_fit_the_screen_without_a_cell_that_is_cut(columns: int, titles: str, scaled: str) -> None:
    lines = screen(FULL, Look(), columns, 50)
    assert max(map(len, lines)) <= columns
    assert lines[3].split() == titles.split()
    row = next(line for line in lines if line.startswith("shop_frontend"))
    assert scaled in row
    assert row.endswith(("ago", SENTENCE))
    hidden = [title for title, _ in COLUMNS["services"] if title not in titles]
    assert lines[1].endswith(f"    wider: {', '.join(hidden)}" if hidden else "n nodes")
    if columns < 250:
        assert any(line.startswith("shop_orders-of-a-custom…   3/3 ") for line in lines)


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        (80, "NODE STATE REPLICAS CPU MEMORY DISK"),
        (100, "NODE STATE REPLICAS CPU MEMORY RX/S TX/S DISK"),
        (140, "NODE STATE REPLICAS CPU MEMORY RX/S TX/S READ/S WRITE/S DISK"),
    ],
)
def test_nodes_fit_the_screen_too(columns: int, titles: str) -> None:
    lines = screen(FULL, Look("nodes"), columns, 50)
    assert max(map(len, lines)) <= columns
    assert lines[3].split() == titles.split()
    assert lines[4].endswith("45.0GiB/120GiB")


def test_a_decision_is_shortened_only_where_it_says_something() -> None:
    row = next(line for line in screen(FULL, Look(), 150, 50) if line.startswith("shop_frontend"))
    assert len(row) == 150
    assert "ago: 4 -> 7 replicas: connections" in row
    assert row.endswith("…")


def test_keys() -> None:
    look = Look()
    for key in "qQ\x03":
        assert pressed(look, key) is None
    assert pressed(look, "x") == look
    nodes = pressed(look, "n")
    assert nodes is not None
    assert nodes.shown == "nodes"
    assert pressed(nodes, "n") == look
    after: Look | None = look
    seen = []
    for _ in SORTS["services"]:
        after = pressed(after, "s") if after else None
        seen.append(after.sort[0] if after else "")
    assert seen == ["memory", "connections", "open", "name", "cpu"]


@pytest.mark.parametrize(("by", "wanted"), [("cpu_cores", "bac"), ("", "abc"), ("open", "abc")])
def test_who_has_not_spoken_comes_last(by: str, wanted: str) -> None:
    rows: list[dict[str, Any]] = [{"name": "c"}, {"name": "a", "cpu_cores": 0.0}, {"name": "b", "cpu_cores": 0.5}]
    assert "".join(row["name"] for row in ordered(rows, by)) == wanted


def used(name: str, at: float, cpu_s: float, limit: int = 0) -> dict[str, Any]:
    return {
        "name": name, "node": "n1", "container_id": f"id-{name}", "at": at, "cpu_s": cpu_s, "memory_bytes": 50,
        "memory_limit_bytes": limit, "pids": 3, "rx_bytes": 0, "tx_bytes": 2048, "read_bytes": 5, "write_bytes": 0,
    }  # fmt: skip


def test_a_share_of_cpu_is_the_difference_of_two_readings() -> None:
    before = {"id-web.1": used("web.1", 10.0, 1.0)}
    rows = stats.reckoned(before, [used("web.1", 12.0, 2.0, 200), used("new.1", 12.0, 5.0)], {"n1": 1000})
    assert [(row["cpu_percent"], row["limit_bytes"], row["memory_percent"]) for row in rows] == [
        (50.0, 200, 25.0), (None, 1000, 5.0),
    ]  # fmt: skip
    cells = [cell(rows[0]) for _, cell in stats.COLUMNS]
    assert cells == ["id-web.1", "web.1", "n1", "50.00%", "50B / 200B", "25.00%", "0B / 2.0KiB", "5B / 0B", "3"]
    assert stats.percent(rows[1]["cpu_percent"]) == "-"


def test_containers_are_named_by_replica_service_or_the_beginning_of_their_id() -> None:
    rows = [used("shop_web.1", 0, 0), used("shop_web.2", 0, 0), used("box", 0, 0)]
    assert stats.chosen(rows, ()) == rows
    assert stats.chosen(rows, ("shop_web",)) == rows[:2]
    assert stats.chosen(rows, ("box", "shop_web.2", "box")) == [rows[2], rows[1]]
    assert stats.chosen(rows, ("id-box",)) == [rows[2]]
    with pytest.raises(NotFound, match="nobody"):
        stats.chosen(rows, ("nobody",))
