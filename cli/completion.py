"""`shoal completion`: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", help='Completion for a shell: eval "$(shoal completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    from cli.main import shoal

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(shoal, {}, "shoal", "_SHOAL_COMPLETE").source())
