"""`shoal stats`: what containers use, in Docker's columns.

Rules: nodes tell what was used since a container began; a share of CPU is the difference of two such readings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from cli.client import Client
from cli.connect import connected
from cli.output import human_bytes, show, table
from model.errors import NotFound

Row = Mapping[str, Any]
EVERY_S: Final = 1.0
ID_LETTERS_MIN: Final = 4
COLUMNS: Final = (
    ("CONTAINER ID", lambda row: row["container_id"][:12]),
    ("NAME", lambda row: row["name"]),
    ("NODE", lambda row: row["node"]),
    ("CPU %", lambda row: percent(row["cpu_percent"])),
    ("MEM USAGE / LIMIT", lambda row: f"{human_bytes(row['memory_bytes'])} / {human_bytes(row['limit_bytes'])}"),
    ("MEM %", lambda row: percent(row["memory_percent"])),
    ("NET I/O", lambda row: f"{amount(row['rx_bytes'])} / {amount(row['tx_bytes'])}"),
    ("BLOCK I/O", lambda row: f"{amount(row['read_bytes'])} / {amount(row['write_bytes'])}"),
    ("PIDS", lambda row: str(row["pids"])),
)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}%"


def amount(size: int) -> str:
    return human_bytes(size) if size else "0B"


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Those of these replicas, services, or beginnings of container ids; without names all. Raises NotFound."""
    found: dict[str, Row] = {}
    for name in names:
        mine = [row for row in rows if _is(row, name)]
        if not mine:
            raise NotFound(f"no container of {name} runs: see `shoal ps`")
        found |= {row["container_id"]: row for row in mine}
    return list(found.values()) if names else list(rows)


def _is(row: Row, name: str) -> bool:
    begins = len(name) >= ID_LETTERS_MIN and row["container_id"].startswith(name)
    return begins or name in (row["name"], row["name"].rpartition(".")[0])


def reckoned(before: Mapping[str, Row], rows: Sequence[Row], memory_bytes: Mapping[str, int]) -> list[Row]:
    """With shares. `before`: the last reading by container; `memory_bytes`: of each node, the limit where there is no other."""
    found: list[Row] = []
    for row in rows:
        was = before.get(row["container_id"])
        seconds = row["at"] - was["at"] if was else 0.0
        limit = row["memory_limit_bytes"] or memory_bytes.get(row["node"], 0)
        found.append({
            **row,
            "cpu_percent": 100 * (row["cpu_s"] - was["cpu_s"]) / seconds if was and seconds > 0 else None,
            "limit_bytes": limit,
            "memory_percent": 100 * row["memory_bytes"] / limit if limit else None,
        })  # fmt: skip
    return found


@click.command("stats", help="What containers use, of some when named (replicas, services, container ids).")
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
@click.option("--no-stream", is_flag=True, help="print once and end")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="other than table: once")
def stats_command(containers: tuple[str, ...], no_stream: bool, output: str) -> None:
    with connected() as client:
        memory_bytes = {row["name"]: row["memory_bytes"] for row in client.get("/v1/nodes")}
        before = {row["container_id"]: row for row in read(client, containers)}
        while True:
            time.sleep(EVERY_S)
            now = read(client, containers)
            rows = reckoned(before, now, memory_bytes)
            if output != "table":
                show(rows, output)
                return
            clear = "" if no_stream or not sys.stdout.isatty() else "\x1b[H\x1b[2J"
            click.echo(clear + table(rows, COLUMNS))
            if no_stream:
                return
            before = {row["container_id"]: row for row in now}


def read(client: Client, names: Sequence[str]) -> list[Row]:
    """One reading; nodes that did not answer are named."""
    answer = client.get("/v1/stats")
    if answer["missing"]:
        click.echo(f"without those on {', '.join(answer['missing'])}: not reached", err=True)
    return chosen(answer["replicas"], names)
