"""`shoal image`: the images on the nodes."""

from __future__ import annotations

from typing import BinaryIO, Final

import click

from cli.connect import connected
from cli.output import age, field, human_bytes, listing, output_option
from cli.wait import LiveLine
from model.errors import RuntimeFailed

COLUMNS: Final = (
    ("NODE", field("node")),
    ("NAMES", field("names")),
    ("IMAGE ID", lambda row: row["id"].removeprefix("sha256:")[:12]),
    ("CREATED", age("created")),
    ("SIZE", lambda row: human_bytes(row["size_bytes"])),
    ("+DIGEST", field("digest")),
)


@click.group("image", help="List, pull, load and remove images.")
def image_command() -> None:
    """The group."""


@image_command.command("ls", help="Images on every node.")
@click.option("--node", default="", help="only on this node")
@output_option
def list_images(node: str, output: str) -> None:
    with connected() as client:
        rows = client.get("/v1/images")
    listing([row for row in rows if not node or row["node"] == node], COLUMNS, output)


@image_command.command("pull", help="Bring an image to all nodes, or to those named.")
@click.argument("reference")
@click.option("--node", "nodes", multiple=True, help="only to this node (may be repeated)")
def pull(reference: str, nodes: tuple[str, ...]) -> None:
    line, problems = LiveLine(), dict[str, list[str]]()
    with connected() as client:
        body = {"reference": reference} | ({"nodes": list(nodes)} if nodes else {})
        for row in client.lines("/v1/images/pull", method="POST", body=body):
            if row.get("error"):
                problems.setdefault(row["error"].removeprefix(f"node {row['node']}: "), []).append(row["node"])
            else:
                line.show(f"{row['node']}: {row['text']}")
    line.done()
    if problems:
        raise RuntimeFailed("; ".join(f"{', '.join(nodes)}: {text}" for text, nodes in problems.items()))
    click.echo(reference)


@image_command.command("load", help="Load an archive (docker save or OCI layout) into the nodes; from stdin without -i.")
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="the archive")
@click.option("--node", default="", help="only into this node")
def load(source: BinaryIO, node: str) -> None:
    with connected() as client:
        for row in client.call("POST", "/v1/images/load", source, query={"node": node or None}):
            click.echo(f"{row['node']}: {', '.join(row['names'])}")


@image_command.command("rm", help="Remove images from every node.")
@click.argument("reference", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True)
def remove(reference: tuple[str, ...], force: bool) -> None:
    with connected() as client:
        for each in reference:
            client.delete(f"/v1/images/{each}", force=force)
            click.echo(each)
