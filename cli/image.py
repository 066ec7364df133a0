"""`shoal image` and its short forms (`images`, `history`, `tag`, `rmi`): Docker's verbs and words, on the whole cluster.

Rules: an image is a row however many nodes have it; `--node` narrows, NODES counts, `-o json` names them.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from cli import image_transfer
from cli.build import build_command
from cli.connect import connected
from cli.output import Column, age, field, human_bytes, listing, output_option
from model.errors import BadInput, NotFound, ShoalError

PER_NODE: Final = (
    ("NODE", field("node")),
    ("NAMES", field("names")),
    ("IMAGE ID", lambda row: row["id"].removeprefix("sha256:")[:12]),
    ("CREATED", age("created")),
    ("SIZE", lambda row: human_bytes(row["size_bytes"])),
    ("+DIGEST", field("digest")),
)
FIELDS: Final = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
}  # fmt: skip
STEP_FIELDS: Final = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
}  # fmt: skip
_ID: Final = 3
"""Which of the columns is IMAGE ID."""


@click.group("image", help="List, inspect, tag, pull, push, save, load and remove images.")
def image_command() -> None:
    """The group."""


for _moved in (build_command, image_transfer.pull, image_transfer.push, image_transfer.save, image_transfer.load):
    image_command.add_command(_moved)


@image_command.command("ls", help="List images; with a NAME (or a pattern) only those.")
@click.argument("name", default="")
@click.option("-a", "--all", "every", is_flag=True, help="as Docker has it: there are no intermediate images here")
@click.option("-q", "--quiet", is_flag=True, help="ids only")
@click.option("--digests", is_flag=True, help="with the digests of their manifests")
@click.option("--no-trunc", is_flag=True, help="whole ids")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="dangling=true|false, reference=PATTERN")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="a Go template for each row")
@click.option("--node", default="", help="only on this node")
@click.option("--per-node", is_flag=True, help="a row for each node and image")
@output_option
def list_images(name: str, node: str, output: str, **options: Any) -> None:
    from cli.image_words import matching, rows_of

    with connected() as client:
        if options["per_node"]:
            listing(client.get("/v1/images", node=node or None), PER_NODE, output)
            return
        rows = matching(rows_of(client.get("/v1/images", node=node or None, merged=True)), name, options["filters"])
    columns = _columns(options["no_trunc"], options["digests"])
    if options["form"]:
        _formatted(rows, columns, options["form"], FIELDS)
    elif options["quiet"]:
        _ids(rows, columns[_ID])
    else:
        listing(rows, columns, output)


def _columns(no_trunc: bool, digests: bool) -> list[Column]:
    """REPOSITORY TAG [DIGEST] IMAGE ID, CREATED SIZE NODES."""
    from cli.image_words import docker_age, docker_size, short

    now = dt.datetime.now(dt.UTC)
    return [
        ("REPOSITORY", field("repository")),
        ("TAG", field("tag")),
        ("DIGEST" if digests else "+DIGEST", field("digest")),
        ("IMAGE ID", lambda row: row["id"] if no_trunc else short(row["id"])),
        ("CREATED", lambda row: docker_age(row["created"], now)),
        ("SIZE", lambda row: docker_size(row["size_bytes"])),
        ("NODES", lambda row: len(row["nodes"])),
        ("+ON", field("nodes")),
    ]


def _ids(rows: list[dict[str, Any]], column: Column) -> None:
    for row in rows:
        click.echo(column[1](row))


def _formatted(rows: list[dict[str, Any]], columns: list[Column], form: str, fields: Mapping[str, str]) -> None:
    """With Docker's names of the fields, each with the heading of its column."""
    from cli.image_words import stamp
    from cli.template import formatted

    cells = {title.lstrip("+"): cell for title, cell in columns}
    found = [{name: str(cells[title](row)).strip() for name, title in fields.items()} for row in rows]
    for row, plain in zip(rows, found, strict=True):
        plain["CreatedAt"] = row["created"] if "created" in row else stamp(row["Created"])
    for line in formatted(form, {**fields, "CreatedAt": "CREATED AT"}, found):
        click.echo(line)


@image_command.command("inspect", help="Everything about images, as Docker's JSON.")
@click.argument("image", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="a Go template: '{{.Config.Cmd}}'")
def inspect_image(image: tuple[str, ...], form: str) -> None:
    from cli.template import Template
    from cli.template_values import as_json

    template = Template(form) if form and form != "json" else None
    found, problems = [], []
    with connected() as client:
        for name in image:
            try:
                found.append(client.get(f"/v1/images/{name}/json"))
            except (NotFound, BadInput) as error:
                problems.append(str(error))
    if form:
        for each in found:
            click.echo(template.render(each) if template else as_json(each))
    else:
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
    if problems:
        raise BadInput(problems[0], problems)


@image_command.command("history", help="How an image was made: its layers and settings, newest first.")
@click.argument("image")
@click.option("--remote", is_flag=True, help="of what its registry has, which a node asks; nothing is pulled")
@click.option("-H/ ", "--human/--no-human", default=True, help="sizes and times for people (default)")
@click.option("--no-trunc", is_flag=True, help="cut nothing off")
@click.option("-q", "--quiet", is_flag=True, help="ids only")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="a Go template for each row")
@output_option
def history(image: str, remote: bool, human: bool, no_trunc: bool, quiet: bool, form: str, output: str) -> None:
    from cli.image_words import created_by, docker_age, docker_size, short, stamp

    now = dt.datetime.now(dt.UTC)
    with connected() as client:
        if remote:
            headers = image_transfer.registry_auth(image)
            rows = client.call("GET", f"/v1/images/{image}/remote", headers=headers)["history"]
        else:
            rows = client.get(f"/v1/images/{image}/history")
    columns: list[Column] = [
        ("IMAGE", lambda row: row["Id"] if no_trunc else short(row["Id"])),
        ("CREATED", lambda row: docker_age(stamp(row["Created"]), now) if human else stamp(row["Created"])),
        ("CREATED BY", lambda row: created_by(row["CreatedBy"], whole=no_trunc) or " "),
        ("SIZE", lambda row: docker_size(row["Size"]) if human else str(row["Size"])),
        ("COMMENT", lambda row: row["Comment"] or " "),
    ]
    if form:
        _formatted(rows, columns, form, STEP_FIELDS)
    elif quiet:
        _ids(rows, columns[0])
    else:
        listing(rows, columns, output)


@image_command.command("rm", help="Remove images from every node, by name or id.")
@click.argument("image", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="although stopped containers use them, or they have other names")
def remove(image: tuple[str, ...], force: bool) -> None:
    from cli.image_words import removed

    problems: list[ShoalError] = []
    with connected() as client:
        for name in image:
            try:
                rows = client.delete(f"/v1/images/{name}", force=force)
            except ShoalError as error:
                problems.append(error)
                continue
            for line in removed(rows):
                click.echo(line)
    lines = [str(problem) for problem in problems]
    if force and all(isinstance(problem, NotFound) for problem in problems):
        for line in lines:
            click.echo(f"shoal: {line}", err=True)
    elif problems:
        raise BadInput(lines[0], lines)


@image_command.command("prune", help="Remove images without a name, with -a all that no container uses.")
@click.option("-a", "--all", "every", is_flag=True, help="named ones too")
@click.option("-f", "--force", is_flag=True, help="do not ask")
def prune(every: bool, force: bool) -> None:
    from cli.image_words import docker_size, removed

    what = "all images without at least one container associated to them" if every else "all dangling images"
    if not force:
        click.echo(f"WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ", nl=False)
        if sys.stdin.readline().strip().lower() != "y":
            click.echo("Total reclaimed space: 0B")
            return
    with connected() as client:
        done = client.post("/v1/images/prune", {"all": every})
    if done["deleted"]:
        click.echo("\n".join(["Deleted Images:", *removed(done["deleted"], lower=True), ""]))
    click.echo(f"Total reclaimed space: {docker_size(done['reclaimed_bytes'])}")


@image_command.command("tag", help="Give an image, named by name or id, one more name on every node that has it.")
@click.argument("image")
@click.argument("name")
def tag(image: str, name: str) -> None:
    with connected() as client:
        client.post(f"/v1/images/{image}/tag", {"name": name})
