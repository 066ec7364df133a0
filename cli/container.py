"""`shoal container VERB`: Docker's long way to say what `shoal VERB` does."""

from __future__ import annotations

from typing import Final

import click

VERBS: Final = {
    "commit": "commit", "exec": "exec", "export": "export", "inspect": "inspect", "logs": "logs", "ls": "ps", "port": "port",
    "rm": "rm", "run": "run", "start": "start", "stats": "stats", "stop": "stop",
}  # fmt: skip
"""By verb the command of the same meaning."""


class Verbs(click.Group):
    """Imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from cli.main import load

        return load(VERBS[cmd_name]) if cmd_name in VERBS else None


container_command = Verbs("container", help="Containers, one by one: every verb is also one of its own.")
