"""`shoal autoscale`: services whose number of replicas follows their load: what they want, what they did, and why."""

from __future__ import annotations

from typing import Any, Final

import click

from cli.connect import connected
from cli.output import ago, explanation, field, listing, output_option, show, text_option

REPLAY: Final = ("replay", "what policies would have done under a load, without a cluster")


def _last(row: Any) -> str:
    """`2 -> 6, 12s ago`."""
    last = row["last"]
    if not last:
        return ""
    held = f"{last['before']} -> {last['wanted']}" if last["before"] != last["wanted"] else f"{last['wanted']} kept"
    return f"{held}{'' if last['acted'] else ' (only recommended)'}, {ago(last['at'])}"


def _mode(row: Any) -> str:
    paused = {"in": " (in paused)", "out": " (out paused)", "both": " (paused)"}
    return f"{row['mode']}{paused.get(row['paused'], '')}"


COLUMNS: Final = (
    ("SERVICE", field("service")),
    ("MODE", _mode),
    ("MIN", field("min")),
    ("MAX", field("max")),
    ("NOW", field("now")),
    ("WANTED", field("wanted")),
    ("METRICS", lambda row: "; ".join(metric["text"] for metric in row["metrics"])),
    ("LAST DECISION", _last),
    ("+READY", field("ready")),
    ("+STARTING", field("starting")),
    ("+FLOOR", lambda row: f"{row['floor']} until {row['floor_until']}" if row["floor"] else ""),
    ("+PROBLEMS", lambda row: "; ".join(metric["problem"] for metric in row["metrics"] if metric["problem"])),
    ("+REASON", lambda row: row["last"]["sentence"] if row["last"] else ""),
)
HISTORY: Final = (
    ("AT", field("at")),
    ("BEFORE", field("before")),
    ("WANTED", field("wanted")),
    ("READY", field("ready")),
    ("STARTING", field("starting")),
    ("DONE", lambda row: "yes" if row["acted"] else "no"),
    ("WHY", field("sentence")),
)


class _Group(click.Group):
    """With `replay`, which the launcher serves: it needs the simulation and no cluster."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(100)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, REPLAY])


@click.group("autoscale", cls=_Group, help="Services that scale themselves: what they want, what they did and why; pausing.")
def autoscale_command() -> None:
    """The group."""


@autoscale_command.command("ls", help="List services that scale themselves; metrics: what a replica bears of what it should.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_services(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/autoscale"), COLUMNS, output, quiet="service" if quiet else "")


@autoscale_command.command("history", help="The newest decisions about a service, oldest first; -o json: with their inputs.")
@click.argument("service")
@output_option
def history(service: str, output: str) -> None:
    with connected() as client:
        listing(client.get(f"/v1/autoscale/{service}")["history"], HISTORY, output)


@autoscale_command.command("explain", help="What would be decided about a service now, and why.")
@click.argument("service")
@text_option
def explain(service: str, output: str) -> None:
    with connected() as client:
        found = client.get(f"/v1/autoscale/{service}")
    explanation(found, output)


@autoscale_command.command("pause", help="Keep a service from being scaled in, out, or both, until `resume`.")
@click.argument("service", nargs=-1, required=True)
@click.option("--in", "in_", is_flag=True, help="only from being scaled in")
@click.option("--out", is_flag=True, help="only from being scaled out")
@text_option
def pause(service: tuple[str, ...], in_: bool, out: bool, output: str) -> None:
    direction = "both" if in_ == out else "in" if in_ else "out"
    _said(service, "pause", {"direction": direction}, output)


@autoscale_command.command("resume", help="Scale a service again.")
@click.argument("service", nargs=-1, required=True)
@text_option
def resume(service: tuple[str, ...], output: str) -> None:
    _said(service, "resume", None, output)


def _said(services: tuple[str, ...], verb: str, body: Any, output: str) -> None:
    with connected() as client:
        rows = [client.post(f"/v1/autoscale/{name}/{verb}", body) for name in services]
    if output != "text":
        show(rows, output)
        return
    for row in rows:
        words = {"": "scales itself", "in": "no longer scaled in", "out": "no longer scaled out", "both": "keeps its count"}
        click.echo(f"{row['service']}: {words[row['paused']]}")
