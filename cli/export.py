"""`shoal export`: a container's files as a tar, as `docker export`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from cli.connect import connected
from model.errors import BadInput

output_file_option = click.option(
    "-o", "--output", "target", type=click.Path(dir_okay=False), default="", help="the archive (default: stdout)"
)


@click.command("export", help="Write all files of a container to a tar, also of a stopped one; volumes are left out.")
@click.argument("container")
@output_file_option
def export_command(container: str, target: str) -> None:
    to_file("export", f"/v1/replicas/{container}/export", target)


def to_file(verb: str, path: str, target: str, **query: Any) -> None:
    """An archive of the API into a file, which is there when it is whole, or (`target` empty) to stdout. Raises BadInput for a
    place that takes no file: a device would be replaced by one."""
    if not target:
        if sys.stdout.isatty():
            raise BadInput(f"cowardly refusing to {verb} to a terminal: use -o FILE, or redirect it")
        with connected() as client:
            client.download(path, sys.stdout.buffer, **query)
        return
    place = Path(os.path.realpath(target))  # what a link leads to is written, not the link
    if place.exists() and not place.is_file():
        raise BadInput(f"{target}: this is no regular file: leave -o away to write to stdout")
    try:
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}-")
    except OSError as error:
        raise BadInput(f"{target}: nothing can be written there: {place.parent}: {(error.strerror or '').lower()}") from None
    try:
        with os.fdopen(descriptor, "wb") as file, connected() as client:
            client.download(path, file, **query)
        os.replace(name, place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
