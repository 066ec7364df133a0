"""The command line's front door: a table of commands, each loaded when it is used, and one place where errors are printed.

Rules: nothing here imports more than click; `shoal --help` loads no command. An error is one line on stderr that says what
to do, exit code 1 also for bad usage (2 is `plan` saying that something would change; a build has its RUN's), interrupted 130;
a traceback only with SHOAL_DEBUG=1.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

import click

from model.errors import BadInput, ShoalError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "apply": ("cli.apply:apply_command", "make the cluster run what Compose files say"),
    "plan": ("cli.apply:plan_command", "what apply would change, and where each replica would go"),
    "config": ("cli.config:config_command", "print the resolved Compose model"),
    "stack": ("cli.stack:stack_command", "list, show and remove stacks"),
    "service": ("cli.service:service_command", "list, inspect, scale, follow and remove services"),
    "scale": ("cli.service:scale", "set the number of replicas of services"),
    "autoscale": ("cli.autoscale:autoscale_command", "services that scale themselves: list, explain, pause, replay"),
    "ps": ("cli.ps:ps_command", "list replicas"),
    "top": ("cli.top:top_command", "nodes and services live: CPU, memory, load"),
    "stats": ("cli.stats:stats_command", "what containers use: CPU, memory, network, disk"),
    "port": ("cli.port:port_command", "published ports of a container or service"),
    "logs": ("cli.logs:logs_command", "logs of a replica or of all replicas of a service"),
    "exec": ("cli.exec:exec_command", "run a command in a running replica"),
    "inspect": ("cli.inspect:inspect_command", "everything about a service, replica, node, volume or network"),
    "explain": ("cli.explain:explain_command", "why this count, this node, this waiting"),
    "events": ("cli.events:events_command", "what was decided and seen, with the reason"),
    "container": ("cli.container:container_command", "run, list, inspect, stop, export containers, as Docker has it"),
    "run": ("cli.run:run_command", "run a single container somewhere on the cluster"),
    "stop": ("cli.single:stop_command", "stop single containers"),
    "start": ("cli.single:start_command", "start stopped single containers"),
    "rm": ("cli.single:rm_command", "remove a stack or single containers"),
    "node": ("cli.node:node_command", "list, label, drain and remove nodes; make join tokens"),
    "nodegroup": ("cli.nodegroup:nodegroup_command", "machines that come and go with what has to run"),
    "image": ("cli.image:image_command", "list, inspect, tag, pull, push, save, load and remove images"),
    "images": ("cli.image:list_images", "list images"),
    "history": ("cli.image:history", "how an image was made"),
    "rmi": ("cli.image:remove", "remove images"),
    "pull": ("cli.image_transfer:pull", "bring an image to the nodes"),
    "push": ("cli.image_transfer:push", "bring an image to its registry"),
    "tag": ("cli.image:tag", "one more name for an image"),
    "build": ("cli.build:build_command", "build an image from a Dockerfile"),
    "commit": ("cli.commit:commit_command", "make an image of a container"),
    "export": ("cli.export:export_command", "write a container's files to a tar"),
    "import": ("cli.image_import:import_command", "make an image of a tar of files"),
    "save": ("cli.image_transfer:save", "write images to an archive"),
    "load": ("cli.image_transfer:load", "load an archive of images"),
    "login": ("cli.login:login_command", "log in to a registry"),
    "logout": ("cli.login:logout_command", "forget the login of a registry"),
    "search": ("cli.login:search_command", "search a registry for images"),
    "registry": ("cli.registry_command:registry_command", "a registry of one's own: start, show and remove it"),
    "volume": ("cli.volume:volume_command", "list, inspect, remove and prune volumes"),
    "network": ("cli.network:network_command", "create, list and remove networks; connect and disconnect containers"),
    "context": ("cli.contexts:context_command", "choose the cluster to speak to"),
    "lab": ("lab.commands:lab_command", "a whole cluster on this machine"),
    "completion": ("cli.completion:completion_command", "shell completion for bash, zsh and fish"),
    "version": ("cli.version:version_command", "versions of this program and of the cluster"),
}
DAEMONS: Final = (("controller", "the control plane"), ("agent", "the daemon of every node"))


def load(name: str) -> click.Command:
    """The command of that name in the table."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


class Commands(click.Group):
    """Commands by name, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Daemons"):
            formatter.write_dl(list(DAEMONS))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message.rstrip('.')}{near(args[0])}: `shoal --help` lists them", ctx) from None


def near(word: str) -> str:
    import difflib

    found = difflib.get_close_matches(word, COMMANDS, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--context", "context", default="", metavar="NAME", help="the cluster to speak to (also: SHOAL_CONTEXT)")
@click.version_option(None, "-V", "--version", package_name="shoal", message="shoal %(version)s")
def shoal(context: str) -> None:
    """Runs Compose files on a cluster of machines, keeps them running, and scales them out and in."""
    if context:
        os.environ["SHOAL_CONTEXT"] = context


def main(argv: list[str] | None = None) -> int:
    """Run one command line; gives the exit code."""
    return run(shoal, argv, "shoal")


def run(command: click.Command, argv: list[str] | None, name: str) -> int:
    """Run `argv` as words of `command`, which a person calls `name`; gives the exit code."""
    try:
        result: Any = command.main(args=argv, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        return _usage(error)
    except ShoalError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _failed(ShoalError(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except Exception as error:
        return _failed(ShoalError(f"fault of shoal itself: {type(error).__name__}: {error} (SHOAL_DEBUG=1 shows where)"), error)


def _usage(error: click.ClickException) -> int:
    """Bad usage: one line with the way to the help; a group without a verb: its help."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return 1
    message = error.format_message().rstrip(".")
    hint = f": see `{context.command_path} --help`" if context is not None and "--help" not in message else ""
    click.echo(f"shoal: {message}{hint}", err=True)
    return 1


def _failed(error: ShoalError, cause: BaseException | None = None) -> int:
    if os.environ.get("SHOAL_DEBUG"):
        raise error from cause
    lines = error.problems if isinstance(error, BadInput) else (str(error),)
    for line in lines:
        click.echo(f"shoal: {line}", err=True)
    return getattr(error, "exit_code", None) or 1
