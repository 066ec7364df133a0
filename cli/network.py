"""`shoal network`: networks with Docker's verbs and words; a user network, of either driver, spans all nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from cli.connect import connected
from cli.output import field, listing, output_option, show
from model.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS: Final = (
    ("NETWORK ID", lambda row: row["id"][:12]),
    ("NAME", field("name")),
    ("DRIVER", field("driver")),
    ("SCOPE", field("scope")),
    ("SUBNET", lambda row: [text for text in (row.get("subnet"), row.get("subnet6")) if text]),
    ("+VNI", field("vni")),
    ("+NODES", field("nodes")),
    ("+STACK", field("stack")),
    ("+LABELS", field("labels")),
)
WHOLE_IDS: Final = (("NETWORK ID", field("id")), *COLUMNS[1:])
REFUSED: Final = {
    "--gateway": "every node has its own gateway address, the first of its part of the subnet",
    "--ip-range": "every node gives out addresses of its own part of the subnet; --subnet says how large the whole is",
    "--aux-address": "no address of the subnet can be kept free; choose a container's with `shoal run --ip`",
    "--scope": "every network made here spans all nodes",
    "--ipam-driver": "addresses are given out by shoal itself",
    "--ipam-opt": "addresses are given out by shoal itself",
    "--ingress": "published ports need no network of their own",
    "--config-from": "networks have no configurations beside them",
    "--config-only": "networks have no configurations beside them",
}
NO_TEMPLATES: Final = "there are no templates here: -o json prints everything"


@click.group("network", help="Create, list, inspect and remove networks; connect and disconnect containers.")
def network_command() -> None:
    """The group."""


def _refused(command: F) -> F:
    """Docker's options that have no meaning here: taken, to say why."""
    for name in REFUSED:
        command = _no_option(REFUSED[name], name, is_flag=name in ("--ingress", "--config-only"))(command)
    return command


def _no_option(why: str, *names: str, is_flag: bool = False) -> Callable[[F], F]:
    """One such option."""

    def refuse(context: click.Context, option: click.Parameter, value: object) -> None:
        if value:
            raise BadInput(f"{option.opts[-1]}: {why}")

    return click.option(*names, hidden=True, is_flag=is_flag, default=None, expose_value=False, callback=refuse)


@network_command.command("create", help="Make a network and print its id.")
@click.argument("name")
@click.option("-d", "--driver", default="bridge", show_default=True, help="bridge or overlay: both span all nodes")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="(default: a free one of the cluster's pool)")
@click.option("--internal", is_flag=True, help="no way out of it")
@click.option("--attachable", is_flag=True, help="as Docker has it: here every network is")
@click.option("--ipv6", is_flag=True, help="IPv6 addresses too")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="option of the driver")
@_refused
def create(name: str, **options: Any) -> None:
    from cli.network_words import network_spec
    from model import codec

    spec = network_spec(name, options)
    with connected() as client:
        click.echo(client.post("/v1/networks", codec.to_plain(spec))["id"])


@network_command.command("ls", help="List networks.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="driver, name, label, scope, type or id")
@click.option("--no-trunc", is_flag=True, help="whole ids")
@output_option
@_no_option(NO_TEMPLATES, "--format")
def list_networks(quiet: bool, filters: tuple[str, ...], no_trunc: bool, output: str) -> None:
    from cli.network_words import matching

    with connected() as client:
        rows = matching(client.get("/v1/networks"), filters)
    listing(rows, WHOLE_IDS if no_trunc else COLUMNS, output, quiet="name" if quiet else "")


@network_command.command("inspect", help="Everything about networks, as Docker's JSON.")
@click.argument("network", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
@_no_option(NO_TEMPLATES, "-f", "--format")
def inspect_network(network: tuple[str, ...], output: str) -> None:
    from cli.network_words import docker_network

    with connected() as client:
        show([docker_network(client.get(f"/v1/networks/{name}")) for name in network], output)


@network_command.command("rm", help="Remove networks; refused while a container is on them.")
@click.argument("network", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="no error when there is none of that name")
def remove(network: tuple[str, ...], force: bool) -> None:
    from model.errors import NotFound

    with connected() as client:
        for name in network:
            try:
                client.delete(f"/v1/networks/{name}")
            except NotFound:
                if not force:
                    raise
                continue
            click.echo(name)


@network_command.command("prune", help="Remove every network that nothing uses.")
@click.option("-f", "--force", is_flag=True, help="do not ask")
def prune(force: bool) -> None:
    if not force:
        if not sys.stdin.isatty():
            raise BadInput("network prune asks first, and here is no terminal to ask on: -f does not ask")
        if not click.confirm("This removes every network that no container, service or stack uses. Go on?"):
            return
    with connected() as client:
        for name in client.post("/v1/networks/prune", {})["removed"]:
            click.echo(name)


@network_command.command("connect", help="Put a running container (or a service's replicas) on a network too.")
@click.argument("network")
@click.argument("container")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="a further name there")
@click.option("--ip", default="", metavar="ADDRESS", help="its IPv4 address there")
@click.option("--link", "links", multiple=True, metavar="CONTAINER[:ALIAS]", help="reach another by its name, and by ALIAS")
@click.option("--no-wait", is_flag=True, help="return at once")
@_no_option("an IPv6 address follows from the IPv4 address: choose that with --ip", "--ip6")
@_no_option("a container leaves by its first network that is not internal", "--gw-priority")
@_no_option("interfaces have no options here", "--driver-opt")
@_no_option("an interface has one address of its network", "--link-local-ip")
def connect(network: str, container: str, aliases: tuple[str, ...], ip: str, links: tuple[str, ...], no_wait: bool) -> None:
    from cli.network_words import connect_body, until_rewired

    with connected() as client:
        done = client.post(f"/v1/networks/{network}/connect", connect_body(container, aliases, ip, links))
        if not no_wait:
            until_rewired(client, done["network"], done["service"], connected=True)


@network_command.command("disconnect", help="Take a running container (or a service's replicas) off a network.")
@click.argument("network")
@click.argument("container")
@click.option("-f", "--force", is_flag=True, help="no error when it is not on the network")
@click.option("--no-wait", is_flag=True, help="return at once")
def disconnect(network: str, container: str, force: bool, no_wait: bool) -> None:
    from cli.network_words import until_rewired

    with connected() as client:
        done = client.post(f"/v1/networks/{network}/disconnect", {"container": container, "force": force})
        if not no_wait:
            until_rewired(client, done["network"], done["service"], connected=False)
