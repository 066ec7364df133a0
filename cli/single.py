"""`shoal stop`, `start` and `rm`: single containers; `rm` also takes whole stacks."""

from __future__ import annotations

from typing import Any

import click

from cli.client import Client
from cli.connect import connected
from cli.removal import remove_stacks, until_gone
from cli.wait import until_running
from model.errors import Conflict, NotFound


@click.command("stop", help="Stop single containers; they stay and can be started again.")
@click.argument("name", nargs=-1, required=True)
def stop_command(name: tuple[str, ...]) -> None:
    with connected() as client:
        for each in name:
            single(client, each)
            client.post(f"/v1/services/{each}/stop")
            until_gone(client, _live, each, service=each)
            click.echo(each)


def _live(row: Any) -> bool:
    return row["state"] in ("preparing", "starting", "running")


@click.command("start", help="Start stopped single containers.")
@click.argument("name", nargs=-1, required=True)
def start_command(name: tuple[str, ...]) -> None:
    with connected() as client:
        for each in name:
            single(client, each)
            client.post(f"/v1/services/{each}/start")
            until_running(client, [each], timeout_s=60, quiet=True)
            click.echo(each)


@click.command("rm", help="Remove stacks or single containers (running ones with -f).")
@click.argument("name", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="also containers that run")
@click.option("-v", "--volumes", is_flag=True, help="for a stack: its named volumes too, with all data")
@click.option("--no-wait", is_flag=True)
def rm_command(name: tuple[str, ...], force: bool, volumes: bool, no_wait: bool) -> None:
    with connected() as client:
        stacks = [each for each in name if not remove_single(client, each, force=force)]
        for each in (each for each in name if each not in stacks):
            if not no_wait:
                until_gone(client, lambda row: True, each, service=each)
            click.echo(each)
        remove_stacks(client, stacks, volumes=volumes, wait=not no_wait)


def remove_single(client: Client, name: str, *, force: bool) -> bool:
    """Begin to remove the single container of that name; False when it is a stack's. Raises NotFound when it is nobody's."""
    try:
        service = client.get(f"/v1/services/{name}")
    except NotFound:
        if name not in {row["name"] for row in client.get("/v1/stacks")}:
            raise NotFound(f"{name}: no stack or container has this name: see `shoal stack ls` and `shoal ps -a`") from None
        return False
    refuse_services(service, name)
    rows = client.get("/v1/replicas", service=name, all=True)
    if not force and any(_live(row) for row in rows):
        raise Conflict(f"container {name} is running: stop it first (`shoal stop {name}`) or use `shoal rm -f {name}`")
    client.delete(f"/v1/services/{name}")
    return True


def single(client: Client, name: str) -> None:
    """Raises Conflict when `name` is a service of a stack."""
    refuse_services(client.get(f"/v1/services/{name}"), name)


def refuse_services(service: Any, name: str) -> None:
    if not (service.get("single") or service.get("spec", {}).get("single")):
        raise Conflict(
            f"{name} is a service, not a single container: use `shoal service scale {name}=0` or `shoal service rm {name}`"
        )
