"""Images on their way: `shoal pull`, `push`, `save` and `load` (also as verbs of `shoal image`).

Rules: what is kept of a login goes along in a header of the one request that needs it.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import click

from cli.connect import connected
from cli.export import output_file_option, to_file
from cli.image_words import loaded, pull_heading, pull_result, push_heading, push_result
from cli.registry_headers import registry_auth as registry_auth
from cli.wait import LiveLine
from model.errors import BadInput, RuntimeFailed
from model.image_ref import parse_image_ref


@click.command("pull", help="Bring an image to all nodes, or to those named.")
@click.argument("reference")
@click.option("-q", "--quiet", is_flag=True, help="tell only its name")
@click.option("--node", "nodes", multiple=True, help="only to this node (may be repeated)")
def pull(reference: str, quiet: bool, nodes: tuple[str, ...]) -> None:
    heading = pull_heading(reference)
    if not quiet:
        click.echo("\n".join(heading))
    line, told = LiveLine(quiet), dict[str, str]()
    problems, images = dict[str, list[str]](), list[dict[str, Any]]()
    with connected() as client:
        body = {"reference": reference} | ({"nodes": list(nodes)} if nodes else {})
        for row in client.lines("/v1/images/pull", method="POST", body=body, headers=registry_auth(reference)):
            if row.get("error"):
                problems.setdefault(row["error"].removeprefix(f"node {row['node']}: "), []).append(row["node"])
            elif row.get("image"):
                told.pop(row["node"], None)
                images.append(row["image"])
            else:
                told[row["node"]] = row["text"]
                line.show(", ".join(f"{node}: {text}" for node, text in sorted(told.items())))
    line.done()
    if images:
        lines = pull_result(reference, images)
        click.echo(lines[-1] if quiet else "\n".join(lines))
    if problems:
        raise RuntimeFailed("; ".join(f"{', '.join(nodes)}: {text}" for text, nodes in problems.items()))


@click.command("push", help="Bring an image to the registry of its name, from a node that has it.")
@click.argument("name")
@click.option("-q", "--quiet", is_flag=True, help="tell only its name")
def push(name: str, quiet: bool) -> None:
    if parse_image_ref(name).digest is not None:
        raise BadInput("cannot push a digest reference")
    if not quiet:
        click.echo("\n".join(push_heading(name)))
    line, result = LiveLine(quiet), dict[str, Any]()
    with connected() as client:
        for row in client.lines(f"/v1/images/{name}/push", method="POST", headers=registry_auth(name)):
            if row.get("error"):
                line.done()
                raise RuntimeFailed(row["error"].removeprefix(f"node {row['node']}: "))
            result = row
            line.show(f"{row['node']}: {row['text']}")
    line.done()
    click.echo(parse_image_ref(name).canonical if quiet else "\n".join(push_result(name, result["pushed"])))


@click.command("save", help="Write images to an archive that `shoal load` and `docker load` take.")
@click.argument("image", nargs=-1, required=True)
@output_file_option
def save(image: tuple[str, ...], target: str) -> None:
    to_file("save", "/v1/images/save", target, name=list(image))


@click.command("load", help="Load an archive (docker save or OCI layout) into the nodes; from stdin without -i.")
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="the archive")
@click.option("-q", "--quiet", is_flag=True, help="as Docker has it: there is no progress to leave out")
@click.option("--node", default="", help="only into this node")
def load(source: BinaryIO, quiet: bool, node: str) -> None:
    if source.isatty():
        raise BadInput("requested load from stdin, but that is the terminal: use -i FILE, or redirect it")
    with connected() as client:
        for line in loaded(client.call("POST", "/v1/images/load", source, query={"node": node or None})):
            click.echo(line)
