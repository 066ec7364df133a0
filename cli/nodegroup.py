"""`shoal nodegroup`: machines of one kind that come when replicas have no room, and go when nobody needs them."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from cli.compose_files import DiskFiles
from cli.connect import connected
from cli.output import explanation, field, human_bytes, listing, output_option, show, text_option
from cli.wait import LiveLine
from model.errors import BadInput

COLUMNS: Final = (
    ("NAME", field("name")),
    ("PROVIDER", field("provider")),
    ("STATE", field("state")),
    ("MACHINES", field("machines")),
    ("READY", field("ready")),
    ("COMING", field("coming")),
    ("LEAVING", field("leaving")),
    ("MIN", field("min")),
    ("MAX", field("max")),
    ("CPUS/EACH", field("cpus")),
    ("MEMORY/EACH", lambda row: human_bytes(row["memory_bytes"])),
    ("+BUFFER", field("buffer")),
    ("+LABELS", field("labels")),
    ("+FAILURES", field("failures")),
    ("+DECISION", field("decision")),
)


@click.group("nodegroup", help="Machines that come and go with what has to run: apply, list, explain and remove groups.")
def nodegroup_command() -> None:
    """The group."""


@nodegroup_command.command("apply", help="Make node groups what a file says (`-`: standard input).")
@click.option("-f", "--file", "files", multiple=True, required=True, help="YAML, one group a document")
def apply_groups(files: tuple[str, ...]) -> None:
    from model import codec
    from model.nodegroups import read_groups

    disk = DiskFiles()
    groups = [group for file in files for group in read_groups(_read(disk, file), file)]
    with connected() as client:
        for group in groups:
            done = client.put(f"/v1/nodegroups/{group.name}", codec.to_plain(group))
            click.echo(f"{group.name} {done['change']}")


def _read(disk: DiskFiles, file: str) -> bytes:
    try:
        return disk.read(file)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}") from None


@nodegroup_command.command("ls", help="List node groups.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_groups(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/nodegroups"), COLUMNS, output, quiet="name" if quiet else "")


@nodegroup_command.command("inspect", help="Everything about node groups: settings, machines, what was decided.")
@click.argument("group", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_group(group: tuple[str, ...], output: str) -> None:
    with connected() as client:
        show([client.get(f"/v1/nodegroups/{name}") for name in group], output)


@nodegroup_command.command("explain", help="Why a group has these machines: who waits, who is idle, who stays and why.")
@click.argument("group")
@text_option
def explain_group(group: str, output: str) -> None:
    with connected() as client:
        found = client.get(f"/v1/nodegroups/{group}/explain")
    explanation(found, output)


@nodegroup_command.command("rm", help="Remove groups: their machines are drained and deleted; returns when they are gone.")
@click.argument("group", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="at once: the machines are forgotten, not deleted; says which may still be there")
@click.option("--no-wait", is_flag=True)
@click.option("--timeout", default=900.0, show_default=True, help="seconds to wait")
def remove(group: tuple[str, ...], force: bool, no_wait: bool, timeout: float) -> None:
    with connected() as client:
        for name in group:
            done = client.delete(f"/v1/nodegroups/{name}", **({"force": True} if force else {}))
            if left := done["forgotten"]:
                click.echo(f"{name}: may still exist, look after them by hand: {', '.join(left)}", err=True)
        for name in group:
            if not no_wait:
                _until_gone(client, name, timeout)
            click.echo(name)


def _until_gone(client: Any, name: str, timeout_s: float) -> None:
    line, end = LiveLine(), time.monotonic() + timeout_s
    while row := next((row for row in client.get("/v1/nodegroups") if row["name"] == name), None):
        line.show(f"{name}: {row['machines']} machine{'' if row['machines'] == 1 else 's'} still there")
        if time.monotonic() > end:
            hint = f"see `shoal nodegroup explain {name}`; `rm --force` forgets them"
            raise BadInput(f"{name} still has {row['machines']} machines: {hint}")
        time.sleep(0.2)
    line.done()
