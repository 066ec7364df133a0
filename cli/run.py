"""`shoal run`: a single container somewhere on the cluster, with Docker's words.

Rules: it is a service of one replica without a stack, placed by the scheduler. In the foreground its output is followed and its
exit code becomes ours; `-it` joins the terminal.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Final

import click

from cli import context
from cli.client import Client
from cli.logs import print_logs
from cli.wait import LiveLine
from model.errors import BadInput, NotFound, RuntimeFailed, ShoalError, Unavailable

_ENDED: Final = ("complete", "failed", "rejected", "shutdown")
_START_S: Final = 120.0
_PATIENCE_S: Final = 1.0


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="print its id and return when it runs")
@click.option("-i", "--interactive", is_flag=True, help="keep stdin open")
@click.option("-t", "--tty", "tty", is_flag=True, help="give it a terminal")
@click.option("--rm", "auto_remove", is_flag=True, help="remove it when it ends")
@click.option("--name", default="", help="its name (default: made up)")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]")
@click.option("--env-file", "env_files", multiple=True, type=click.Path(exists=True, dir_okay=False))
@click.option("-v", "--volume", "volumes", multiple=True, metavar="[SOURCE:]TARGET[:ro]")
@click.option("--tmpfs", "tmpfs", multiple=True, metavar="TARGET")
@click.option("-p", "--publish", "publish", multiple=True, metavar="[[ADDRESS:]PORT:]PORT[/udp]", help="on every node")
@click.option("-P", "--publish-all", is_flag=True, help="all exposed ports, on its node, on ports chosen there")
@click.option("--expose", multiple=True, metavar="PORT[-PORT][/udp]", help="besides those of the image")
@click.option("--network", "--net", "networks", multiple=True, metavar="NAME", help="(default: bridge); may be repeated")
@click.option("--network-alias", "--net-alias", "aliases", multiple=True, metavar="NAME", help="a further name on its networks")
@click.option("--ip", default="", metavar="ADDRESS", help="its IPv4 address on its own network")
@click.option("--link", "links", multiple=True, metavar="CONTAINER[:ALIAS]", help="reach it by its name, and by ALIAS")
@click.option("--dns", multiple=True, metavar="ADDRESS", help="ask this server for names that are not the cluster's")
@click.option("--dns-search", multiple=True, metavar="DOMAIN")
@click.option("--dns-option", "--dns-opt", "dns_option", multiple=True, metavar="OPTION")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="a line of its /etc/hosts")
@click.option("--node", default="", help="run it on this node")
@click.option("--entrypoint", default=None)
@click.option("-w", "--workdir", default="")
@click.option("-u", "--user", default="")
@click.option("--hostname", default="")
@click.option("--domainname", default="")
@click.option("--mac-address", default="", hidden=True)
@click.option("--ip6", default="", hidden=True)
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--cpus", type=float, default=0.0)
@click.option("-m", "--memory", default="")
@click.option("--pids-limit", type=int, default=0)
@click.option("--cap-add", multiple=True)
@click.option("--cap-drop", multiple=True)
@click.option("--read-only", is_flag=True)
@click.option("--init", is_flag=True, help="an init process that passes signals on and reaps")
@click.option("--privileged", is_flag=True)
@click.option("--restart", default="no", help="no, always, unless-stopped, on-failure[:N]")
@click.option("--stop-signal", default="")
@click.option("--stop-timeout", type=float, default=10.0)
@click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run_command(ctx: click.Context, /, **options: Any) -> None:
    """Run IMAGE, with COMMAND instead of its own if given."""
    from cli.registry_headers import registry_config
    from cli.run_network import discarded
    from cli.run_spec import service_spec
    from model import codec

    cluster = context.load()
    spec = service_spec(options)
    if warning := discarded(options):
        click.echo(f"warning: {warning}", err=True)
    with Client(cluster) as client:
        if options["node"]:
            client.get(f"/v1/nodes/{options['node']}")  # NotFound now; the scheduler would wait for it to join
        headers = registry_config([options["image"]])
        made = client.call("POST", "/v1/services", codec.to_plain(spec), headers=headers)
        try:
            if options["pull"] == "always" or (made["absent"] and options["pull"] == "missing"):
                show_pull(cluster, client, made)
            row = until_started(client, spec.name)
            if options["detach"]:
                if row["state"] == "rejected":
                    raise RuntimeFailed(f"{spec.name}: {row['message'] or 'cannot start'}")
                click.echo(row["container_id"] or spec.name)
                return
            code = foreground(cluster, client, spec.name, row, options)
            if options["auto_remove"]:
                with contextlib.suppress(ShoalError):
                    client.delete(f"/v1/services/{spec.name}")
            ctx.exit(code)
        except KeyboardInterrupt:
            with contextlib.suppress(ShoalError), Client(cluster) as other:  # the first is in the middle of an answer
                if options["auto_remove"]:
                    other.delete(f"/v1/services/{spec.name}")
                else:
                    other.post(f"/v1/services/{spec.name}/stop")
            ctx.exit(130)


def show_pull(cluster: Any, client: Client, made: Any) -> None:
    """What Docker tells when it has to pull first, on stderr. The node pulls anyway: its own pull and this one are one, and
    what goes wrong is told by the replica."""
    from cli.image_words import pull_result, run_heading, run_pulled
    from cli.registry_headers import registry_auth

    container = made["spec"]["container"]
    image, name = container["image"], made["name"]
    click.echo("\n".join(run_heading(image)[0 if made["absent"] else 1 :]), err=True)
    node = _until(client, name, lambda row: bool(row["node"]) or _has_started(row))["node"]
    body = {"reference": image, "nodes": [node], "policy": "missing", "digest": container.get("image_digest", "")}
    line = LiveLine(quiet=not sys.stderr.isatty())
    with contextlib.suppress(ShoalError), Client(cluster) as stream:
        for row in stream.lines("/v1/images/pull", method="POST", body=body, headers=registry_auth(image)):
            if row.get("image"):
                line.done()
                found = row["image"]
                told = run_pulled(image, found) if made["absent"] else pull_result(image, [found])[:-1]
                click.echo("\n".join(told), err=True)
            elif not row.get("error"):
                line.show(row["text"])


def _has_started(row: Any) -> bool:
    return row["state"] == "running" or row["state"] in _ENDED


def until_started(client: Client, name: str) -> Any:
    """The replica's row once it runs or has ended. Raises Unavailable with the reason after two minutes."""
    return _until(client, name, _has_started)


def _until(client: Client, name: str, reached: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + _START_S
    told_from = time.monotonic() + _PATIENCE_S
    row: Any = None
    line = LiveLine()
    while time.monotonic() < end:
        rows = client.get("/v1/replicas", service=name, all=True, index=client.index or None, wait=1)
        row = rows[0] if rows else row
        if row and reached(row):
            return row
        if row and row["state"] == "pending" and row["message"] and time.monotonic() > told_from:
            line.show(f"{name} waits: {row['message']}")
        if not rows and row:
            raise NotFound(f"{name} was removed meanwhile")
        time.sleep(0.02)
    raise Unavailable(
        f"{name} is not running after {_START_S:.0f} s: {row['message'] if row else 'not placed'}; see `shoal explain {name}`"
    )


def foreground(cluster: Any, client: Client, name: str, row: Any, options: dict[str, Any]) -> int:
    """Follow it to its end; the exit code."""
    if row["state"] == "rejected":
        with contextlib.suppress(ShoalError):
            client.delete(f"/v1/services/{name}")
        problem = RuntimeFailed(f"{name}: {row['message'] or 'cannot start'}")
        if not row["exit_code"]:
            raise problem
        click.echo(f"shoal: {problem}", err=True)
        return int(row["exit_code"])  # 126 and 127, as a shell has it
    if options["interactive"] and row["state"] == "running":
        from cli.terminal import join

        return join(cluster, f"/v1/replicas/{name}/attach", tty_wanted=options["tty"], stdin_wanted=True)
    with contextlib.suppress(NotFound), Client(cluster) as stream:
        print_logs(stream, f"/v1/replicas/{name}/logs", True, "all", "", False, name=False)
    return exit_code(client, name)


def exit_code(client: Client, name: str) -> int:
    """The exit code of an ended single container."""
    while True:
        rows = client.get("/v1/replicas", service=name, all=True)
        if not rows:
            return 0
        if rows[0]["state"] in _ENDED:
            return int(rows[0]["exit_code"] or 0)  # the controller removes it a little later (--rm), so it can be read
        time.sleep(0.05)


def command_name(image: str) -> str:
    """A name that tells the image and is unlikely to be taken: `busybox-3fa94c`."""
    import secrets

    base = PurePosixPath(image.partition("@")[0]).name.partition(":")[0]
    if not base:
        raise BadInput(f"image {image!r}: expected a name such as busybox or shop/web:1.0")
    return f"{base}-{secrets.token_hex(3)}"
