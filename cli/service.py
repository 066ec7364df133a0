"""`shoal service`: services, their replicas, their scale."""

from __future__ import annotations

from typing import Final

import click

from cli.connect import connected
from cli.logs import follow_options, print_logs
from cli.output import age, field, human_bytes, listing, output_option, show, table
from cli.ports import ports_column
from cli.ps import COLUMNS as REPLICA_COLUMNS
from cli.wait import until_running
from model.errors import BadInput

COLUMNS: Final = (
    ("NAME", field("name")),
    ("MODE", field("mode")),
    ("REPLICAS", lambda row: f"{row['running']}/{row['wanted']}"),
    ("IMAGE", field("image")),
    ("PORTS", lambda row: ports_column(row["ports"])),
    ("UPDATED", age("updated")),
    ("+ID", field("id")),
    ("+STACK", field("stack")),
    ("+VERSION", field("version")),
)
TRAFFIC_COLUMNS: Final = (
    ("REPLICA", field("replica")),
    ("ADDRESS", field("address")),
    ("CONNECTIONS", field("connections")),
    ("PACKETS IN", field("packets_in")),
    ("BYTES IN", lambda row: human_bytes(row["bytes_in"])),
    ("PACKETS OUT", field("packets_out")),
    ("BYTES OUT", lambda row: human_bytes(row["bytes_out"])),
)
wait_option = click.option("--no-wait", is_flag=True, help="return at once")
timeout_option = click.option("--timeout", default=120.0, show_default=True, help="seconds to wait")


@click.group("service", help="List, inspect, scale, follow, measure and remove services.")
def service_command() -> None:
    """The group."""


@service_command.command("ls", help="List services.")
@click.option("--stack", default="", help="only those of this stack")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_services(stack: str, quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/services", stack=stack or None), COLUMNS, output, quiet="name" if quiet else "")


@service_command.command("ps", help="List the replicas of services.")
@click.argument("service", nargs=-1, required=True)
@click.option("-a", "--all", "every", is_flag=True, help="also those that are no longer wanted")
@output_option
def list_replicas(service: tuple[str, ...], every: bool, output: str) -> None:
    with connected() as client:
        for name in service:
            client.get(f"/v1/services/{name}")
        rows = [row for name in service for row in client.get("/v1/replicas", service=name, all=every)]
    listing(rows, REPLICA_COLUMNS, output)


@service_command.command("inspect", help="Everything about services, as JSON.")
@click.argument("service", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_service(service: tuple[str, ...], output: str) -> None:
    with connected() as client:
        show([client.get(f"/v1/services/{name}") for name in service], output)


@service_command.command("scale", help="Set the number of replicas: SERVICE=N ...")
@click.argument("scales", nargs=-1, required=True, metavar="SERVICE=N...")
@click.option("--floor-for", default="", metavar="TIME", help="how long an autoscaler keeps at least so many (default 10m; 0s)")
@wait_option
@timeout_option
def scale(scales: tuple[str, ...], floor_for: str, no_wait: bool, timeout: float) -> None:
    wanted = dict(map(parse_scale, scales))
    body = {"floor_s": parse_time(floor_for)} if floor_for else {}
    with connected() as client:
        for name, replicas in wanted.items():
            answer = client.post(f"/v1/services/{name}/scale", {"replicas": replicas, **body})
            floor = f"; its autoscaler keeps at least {answer['floor']} until {answer['floor_until']}"
            click.echo(f"{name} scaled from {answer['before']} to {answer['replicas']}{floor if answer['floor'] else ''}")
        if not no_wait:
            until_running(client, wanted, timeout_s=timeout)


def parse_scale(word: str) -> tuple[str, int]:
    """`shop_web=10`."""
    name, mark, number = word.partition("=")
    if not mark or not name or not number.isdecimal():
        raise BadInput(f"scale {word!r}: expected SERVICE=NUMBER, such as shop_web=10")
    return name, int(number)


def parse_time(word: str) -> float:
    """`90s`, `10m` in seconds."""
    from model.compose.scalars import parse_duration_ns

    found = parse_duration_ns(word)
    if found is None or found < 0:
        raise BadInput(f"time {word!r}: expected a time such as 10m or 90s")
    return found / 1e9


@service_command.command("rm", help="Remove services and their replicas.")
@click.argument("service", nargs=-1, required=True)
def remove(service: tuple[str, ...]) -> None:
    with connected() as client:
        for name in service:
            client.delete(f"/v1/services/{name}")
            click.echo(name)


@service_command.command("logs", help="Logs of all replicas of a service.")
@click.argument("service")
@follow_options
def logs(service: str, follow: bool, tail: str, since: str, timestamps: bool) -> None:
    with connected() as client:
        print_logs(client, f"/v1/services/{service}/logs", follow, tail, since, timestamps, name=True)


@service_command.command("traffic", help="What all nodes have balanced to each replica of a service.")
@click.argument("service")
@output_option
def traffic(service: str, output: str) -> None:
    with connected() as client:
        found = client.get(f"/v1/services/{service}/traffic")
    if output in ("json", "yaml"):
        show(found, output)
        return
    total = {**found, "replica": "all", "address": ""}
    click.echo(table([*found["replicas"], total], TRAFFIC_COLUMNS))
    if found["missing"]:
        click.echo(f"without what was counted on {', '.join(found['missing'])}: not reached", err=True)
