"""`shoal ps`: the replicas of the cluster, or of one stack, service or node."""

from __future__ import annotations

from typing import Any, Final

import click

from cli.client import Client
from cli.connect import connected
from cli.output import age, field, listing, output_option
from cli.ports import parsed, ports_column
from model.errors import NotFound


def desired_state(row: Any) -> str:
    code = f" ({row['exit_code']})" if row.get("exit_code") not in (None, 0) else ""
    return f"{row['state']}{code}"


COLUMNS: Final = (
    ("NAME", field("name")),
    ("IMAGE", field("image")),
    ("NODE", field("node")),
    ("STATE", desired_state),
    ("RESTARTS", field("restarts")),
    ("ADDRESSES", field("addresses")),
    ("PORTS", lambda row: ports_column(map(parsed, row.get("ports") or ()))),
    ("SINCE", age("since")),
    ("MESSAGE", field("message")),
    ("+DESIRED", field("desired")),
    ("+CONTAINER ID", lambda row: (row.get("container_id") or "")[:12]),
    ("+VERSION", field("version")),
    ("+HEALTH", field("health")),
)


def known(client: Client, name: str) -> bool:
    """Is `name` a stack or a service, or a replica that the other options leave out?"""
    names = {row[key] for row in client.get("/v1/services") for key in ("stack", "name")}
    return name in names or name in {row["name"] for row in client.get("/v1/replicas", all=True)}


@click.command("ps", help="List replicas; of one stack or service when named.")
@click.argument("name", default="")
@click.option("-a", "--all", "every", is_flag=True, help="also those that are no longer wanted")
@click.option("--node", default="", help="only those on this node")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def ps_command(name: str, every: bool, node: str, quiet: bool, output: str) -> None:
    with connected() as client:
        if node:
            client.get(f"/v1/nodes/{node}")  # NotFound says more than an empty list
        rows = client.get("/v1/replicas", node=node or None, all=every)
        if name:
            rows = [row for row in rows if name in (row["stack"], row["service"], row["name"])]
            if not rows and not known(client, name):
                raise NotFound(f"{name}: no stack, service or replica has this name: see `shoal stack ls` and `shoal ps`")
    listing(rows, COLUMNS, output, quiet="name" if quiet else "")
