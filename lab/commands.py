"""`shoal lab`: a whole cluster on this machine. Thin: every verb is a method of lab.cluster.Lab."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from cli.output import command_words
from model.errors import BadInput


def _present(ctx: click.Context, param: click.Parameter, name: str) -> str:
    """The lab that is meant without a word: the current context's if it is one, else `lab`."""
    if name:
        return name
    from cli.context import current_name
    from lab.layout import STATE_ROOT

    current = current_name()
    return current if current and (STATE_ROOT / current / "lab.json").exists() else "lab"


_name = click.option("--name", "name", default="", callback=_present, help="which lab (default: the current context's)")
_new_name = click.option("--name", "name", default="lab", show_default=True, help="which lab")


def _lab(name: str, *, quiet: bool = False) -> Any:
    from lab.cluster import Lab

    return Lab(name, (lambda _: None) if quiet else lambda text: click.echo(text, err=True))


def _bytes(text: str) -> int:
    from model.compose.scalars import parse_bytes

    found = parse_bytes(text) if text else 0
    if found is None:
        raise BadInput(f"--node-memory {text}: expected a size such as 512M or 1G")
    return found


def _labels(words: tuple[str, ...]) -> list[tuple[str, str]]:
    rows = [word.partition("=") for word in words]
    for key, mark, _ in rows:
        if not mark or not key:
            raise BadInput(f"label {key!r}: expected KEY=VALUE")
    return [(key, value) for key, _, value in rows]


def _named(name: str) -> str:
    return "" if name == "lab" else f" --name {name}"


@click.group(
    "lab", help="A whole cluster on this machine: every node a network, mount and process namespace with its own share."
)
def lab_command() -> None:
    """The group."""


@lab_command.command("up", help="Start a lab and make it the current context.")
@_new_name
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(0, 200))
@click.option("--node-cpus", type=float, default=0.0, help="cores of each node (default: the machine's, split evenly)")
@click.option("--node-memory", default="", help="memory of each node, such as 1G (default: the machine's, split evenly)")
@click.option("--node-timeout", default=3.0, show_default=True, help="seconds of silence until a node is lost")
@click.option("--timeout", default=60.0, show_default=True, help="seconds to wait for each daemon; a slow machine wants more")
@click.option("--prometheus", is_flag=True, help="with a Prometheus that reads metrics of controller, agents and services")
def up(
    name: str, nodes: int, node_cpus: float, node_memory: str, node_timeout: float, timeout: float, prometheus: bool
) -> None:  # fmt: skip
    lab = _lab(name)
    lab.ready_s = timeout
    memory_bytes = _bytes(node_memory)
    record = lab.up(
        nodes, cpus=node_cpus, memory_bytes=memory_bytes, node_timeout_s=node_timeout, prometheus=prometheus
    )  # fmt: skip
    click.echo(f"lab {name} is up: {nodes} node{'' if nodes == 1 else 's'}, registry {record.registry}, context {name}")
    if record.prometheus:
        click.echo(f"Prometheus: {record.prometheus}")
    if record.nodes():
        first = record.address(record.nodes()[0])
        click.echo(f"published ports answer at the nodes' addresses, such as {first}: see `shoal lab status{_named(name)}`")


@lab_command.command("down", help="Take a lab away, whole; also after a crash half way through `up`.")
@_name
@click.option("--all", "every", is_flag=True, help="every lab of this machine")
def down(name: str, every: bool) -> None:
    from lab.cluster import names

    for each in names() if every else [name]:
        _lab(each).down()
        click.echo(f"lab {each} is gone")


@lab_command.command("ls", help="The labs of this machine.")
def list_labs() -> None:
    from lab.cluster import names

    for each in names():
        click.echo(each)


@lab_command.command("status", help="Machines, addresses, shares, registry and API of a lab.")
@_name
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(name: str, output: str) -> None:
    found = _lab(name).status()
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"lab {found['name']}   api {found['api']}   registry {found['registry']}   logs {found['logs']}")
    line = "{:<12} {:<10} {:<15} {:<5} {:<12} {:>5} {:>10} {:>8}"
    click.echo(line.format("NAME", "ROLE", "ADDRESS", "POWER", "STATE", "CPUS", "MEMORY", "REPLICAS"))
    for row in [*found["machines"], *found["nodes"]]:
        memory = f"{row['memory_bytes'] >> 20}M" if row["memory_bytes"] else "-"
        cells = (row["name"], row["role"], row["address"], row["power"], row["state"], row["cpus"] or "-", memory)
        click.echo(line.format(*map(str, cells), row["replicas"]))


    if found["ports"]:
        from lab.published import Published, lines

        ports = [Published(row["service"], row["port"], tuple(row["places"])) for row in found["ports"]]
        click.echo("published ports, from this machine:")
        for text in lines(ports):
            click.echo(f"  {text}")


@lab_command.command("add-node", help="One more node.")
@_name
@click.option("--node", default="", help="its name (default: the next free nN)")
@click.option("--node-cpus", type=float, default=0.0)
@click.option("--node-memory", default="")
@click.option("--label", "labels", multiple=True, help="KEY=VALUE")
def add_node(name: str, node: str, node_cpus: float, node_memory: str, labels: tuple[str, ...]) -> None:
    made = _lab(name).add_node(cpus=node_cpus, memory_bytes=_bytes(node_memory), name=node, labels=_labels(labels))
    click.echo(made)


@lab_command.command("remove-node", help="The node leaves the cluster and its machine is gone.")
@_name
@click.argument("node")
def remove_node(name: str, node: str) -> None:
    _lab(name).remove_node(node)
    click.echo(node)


@lab_command.command("kill", help="Power off without warning: nodes, `controller` or `registry`.")
@_name
@click.argument("machine", nargs=-1, required=True)
def kill(name: str, machine: tuple[str, ...]) -> None:
    for each in machine:
        _lab(name).kill(each)
        click.echo(each)


@lab_command.command("start", help="Power on again; returns when it is ready.")
@_name
@click.argument("machine", nargs=-1, required=True)
def start(name: str, machine: tuple[str, ...]) -> None:
    for each in machine:
        _lab(name).start(each)
        click.echo(each)


@lab_command.command("partition", help="Take the cables of these nodes out: they run on, alone.")
@_name
@click.argument("node", nargs=-1, required=True)
def partition(name: str, node: tuple[str, ...]) -> None:
    _lab(name).partition(node)


@lab_command.command("heal", help="Put cables back (no names: all).")
@_name
@click.argument("node", nargs=-1)
def heal(name: str, node: tuple[str, ...]) -> None:
    _lab(name).partition(node, heal=True)


@lab_command.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    help="Run a command on a machine of the lab: `shoal lab exec --name LAB n1 COMMAND`.",
)
@_name
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_on(name: str, machine: str, command: tuple[str, ...]) -> None:
    argv = _lab(name).enter_command(machine, command_words(command))
    os.execvp(argv[0], argv)
