"""The disk side of the Compose loader: which files are meant, and reading them.

Rules: the same default names, override files and environment variables as docker compose; paths are absolute before the
loader sees them; a file is read no further than just past the size the loader refuses.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model.errors import BadInput

if TYPE_CHECKING:
    from model.compose import Loaded

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
READ_MAX_BYTES = (4 << 20) + 1


class DiskFiles:
    """The loader's `Files` port on this machine's disk; `-` is standard input."""

    def __init__(self) -> None:
        self._stdin: bytes | None = None

    def read(self, path: str) -> bytes:
        if path == "-":
            if self._stdin is None:
                self._stdin = sys.stdin.buffer.read(READ_MAX_BYTES)
            return self._stdin
        if not stat.S_ISREG(os.stat(path).st_mode) and not stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(0, "it is not a file")
        with open(path, "rb") as file:
            return file.read(READ_MAX_BYTES)

    def exists(self, path: str) -> bool:
        return path == "-" or os.path.isfile(path)


def find_files(given: Sequence[str], env: Mapping[str, str], folder: str) -> list[str]:
    """The Compose files meant: those given, `COMPOSE_FILE`, or the default names in `folder` or above it."""
    if not given and env.get("COMPOSE_FILE"):
        given = env["COMPOSE_FILE"].split(env.get("COMPOSE_PATH_SEPARATOR") or ":")
    if given:
        return [path if path == "-" else os.path.abspath(os.path.join(folder, path)) for path in given if path]
    here = os.path.abspath(folder)
    while True:
        found = _first(here, NAMES)
        if found:
            override = _first(here, OVERRIDES)
            return [found, override] if override else [found]
        above = os.path.dirname(here)
        if above == here:
            raise BadInput(f"no Compose file in {os.path.abspath(folder)} or above it: name one with -f FILE")
        here = above


def _first(folder: str, names: Sequence[str]) -> str | None:
    return next((path for name in names if os.path.isfile(path := os.path.join(folder, name))), None)


def load_compose(
    given: Sequence[str],
    *,
    project_name: str | None = None,
    profiles: Sequence[str] = (),
    env_files: Sequence[str] = (),
    project_directory: str | None = None,
    strict: bool = False,
    resolve_paths: bool = True,
) -> Loaded:
    """Load a project the way every command does. Raises ComposeError, or BadInput when there is no file."""
    from model.compose import load_project

    env = dict(os.environ)
    cwd = os.getcwd()
    paths = find_files(given, env, project_directory or cwd if not given else cwd)
    first = cwd if paths[0] == "-" else os.path.dirname(paths[0])
    return load_project(
        DiskFiles(),
        paths,
        env,
        project_name=project_name,
        profiles=profiles,
        strict=strict,
        project_dir=os.path.abspath(project_directory) if project_directory else first,
        env_files=[os.path.abspath(path) for path in env_files] if env_files else None,
        resolve_paths=resolve_paths,
    )
