"""`shoal node`: the machines of the cluster."""

from __future__ import annotations

from typing import Any, Final

import click

from cli.connect import connected
from cli.output import age, counted, field, human_bytes, listing, output_option, show
from cli.wait import LiveLine
from model.errors import BadInput
from model.node_words import key_problem, kind_problem

COLUMNS: Final = (
    ("NAME", field("name")),
    ("STATE", field("state")),
    ("AVAILABILITY", field("availability")),
    ("CPUS", field("cpus")),
    ("MEMORY", lambda row: human_bytes(row["memory_bytes"])),
    ("REPLICAS", field("replicas")),
    ("LABELS", field("labels")),
    ("+GENERIC", field("generic")),
    ("SINCE", age("since")),
    ("+ADDRESS", field("address")),
    ("+ROLE", field("role")),
    ("+VERSION", field("version")),
    ("+MESSAGE", field("message")),
)


@click.group("node", help="List, label, drain and remove nodes; make join tokens.")
def node_command() -> None:
    """The group."""


@node_command.command("ls", help="List nodes.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_nodes(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/nodes"), COLUMNS, output, quiet="name" if quiet else "")


@node_command.command("inspect", help="Everything about nodes, as JSON.")
@click.argument("node", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_node(node: tuple[str, ...], output: str) -> None:
    with connected() as client:
        show([client.get(f"/v1/nodes/{name}") for name in node], output)


@node_command.command("label", help="Set labels (KEY=VALUE) or remove them (KEY-).")
@click.argument("node")
@click.argument("labels", nargs=-1, required=True)
def label_node(node: str, labels: tuple[str, ...]) -> None:
    with connected() as client:
        client.patch(f"/v1/nodes/{node}", {"labels": dict(map(parse_label, labels))})
    click.echo(node)


@node_command.command("generic", help="Say how many of a generic resource a node has (gpu=2), or that it has none (gpu-).")
@click.argument("node")
@click.argument("counts", nargs=-1, required=True)
def generic_resources(node: str, counts: tuple[str, ...]) -> None:
    with connected() as client:
        client.patch(f"/v1/nodes/{node}", {"generic": dict(map(parse_count, counts))})
    click.echo(node)


def parse_count(word: str) -> tuple[str, int | None]:
    """`gpu=2` sets, `gpu-` removes."""
    kind, mark, value = word.partition("=")
    if mark and kind and value.isdecimal() and int(value) > 0:
        if problem := kind_problem(kind):
            raise BadInput(f"generic resource {word!r}: its name: {problem}")
        return kind, int(value)
    if not mark and word.endswith("-") and len(word) > 1:
        return word[:-1], None
    raise BadInput(f"generic resource {word!r}: expected KIND=NUMBER, at least 1, to set it or KIND- to remove it")


def parse_label(word: str) -> tuple[str, str | None]:
    """`zone=a` sets, `zone-` removes."""
    key, mark, value = word.partition("=")
    if mark and key:
        if problem := key_problem(key):
            raise BadInput(f"label {word!r}: its key: {problem}")
        return key, value
    if word.endswith("-") and len(word) > 1:
        return word[:-1], None
    raise BadInput(f"label {word!r}: expected KEY=VALUE to set it or KEY- to remove it")


def _availability(node: tuple[str, ...], value: str) -> None:
    with connected() as client:
        for name in node:
            client.patch(f"/v1/nodes/{name}", {"availability": value})
            click.echo(name)


@node_command.command("drain", help="Move every replica away; returns when the node is empty.")
@click.argument("node", nargs=-1, required=True)
@click.option("--no-wait", is_flag=True)
@click.option("--timeout", default=300.0, show_default=True, help="seconds to wait")
def drain(node: tuple[str, ...], no_wait: bool, timeout: float) -> None:
    _availability(node, "drain")
    if not no_wait:
        with connected() as client:
            for name in node:
                until_empty(client, name, timeout)


def until_empty(client: Any, node: str, timeout_s: float) -> None:
    """Until no replica runs on the node; after the time-out it says how many stayed and goes on."""
    import time

    line = LiveLine()
    end = time.monotonic() + timeout_s
    while rows := client.get("/v1/replicas", node=node, all=True):
        live = [row for row in rows if row["state"] in ("preparing", "starting", "running")]
        if not live:
            break
        line.show(f"{node}: {counted(len(live))} still there")
        if time.monotonic() > end:
            raise BadInput(
                f"{node} still runs {', '.join(row['name'] for row in live[:5])}: see `shoal explain {live[0]['name']}`"
            )
        time.sleep(0.2)
    line.done()


@node_command.command("pause", help="Place nothing new on the node; what runs stays.")
@click.argument("node", nargs=-1, required=True)
def pause(node: tuple[str, ...]) -> None:
    _availability(node, "pause")


@node_command.command("activate", help="Place replicas on the node again.")
@click.argument("node", nargs=-1, required=True)
def activate(node: tuple[str, ...]) -> None:
    _availability(node, "active")


@node_command.command("rm", help="Take nodes out of the cluster for good.")
@click.argument("node", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="also while it is ready and not drained")
def remove(node: tuple[str, ...], force: bool) -> None:
    with connected() as client:
        for name in node:
            client.delete(f"/v1/nodes/{name}", force=force)
            click.echo(name)


@node_command.command("token", help="A token with which one or more machines can join.")
@click.option("--ttl", default=0, help="seconds it is good for (default: the controller's, a day)")
def token(ttl: int) -> None:
    with connected() as client:
        click.echo(client.post("/v1/tokens", {"ttl_s": ttl} if ttl else {})["token"])
