"""Contexts: which cluster the command line speaks to. Files under $SHOAL_CONFIG_DIR or ~/.config/shoal.

Rules: `contexts/NAME.json` holds addresses, CA, certificate and key (mode 0600: the key is in it); `current` holds a name;
SHOAL_CONTEXT overrides it. A broken or missing context is one clear line.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from model.errors import BadInput, NotFound


@dataclass(frozen=True, slots=True)
class Context:
    """`apis` are base addresses (https://host:port), tried in turn; `ca`, `certificate` and `key` are PEM texts."""

    name: str
    apis: tuple[str, ...]
    ca: str
    certificate: str
    key: str


def config_dir() -> Path:
    return Path(os.environ.get("SHOAL_CONFIG_DIR") or Path.home() / ".config" / "shoal")


def context_path(name: str) -> Path:
    return config_dir() / "contexts" / f"{name}.json"


def current_name() -> str:
    """The name of the context in use; empty when there is none."""
    if name := os.environ.get("SHOAL_CONTEXT"):
        return name
    try:
        return (config_dir() / "current").read_text().strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise BadInput(f"{config_dir() / 'current'}: holds no name: `shoal context use NAME` writes it anew") from None


def load(name: str = "") -> Context:
    """The named context, else the current one."""
    name = name or current_name()
    if not name:
        raise NotFound(
            "no cluster chosen: start one with `shoal lab up`, or `shoal context add FILE` with a controller's admin.json"
        )
    path = context_path(name)
    try:
        return read(path, name)
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise NotFound(
            f"context {name} is not known (known: {known}): choose one with SHOAL_CONTEXT or `shoal context use`"
        ) from None


def read(path: Path, name: str = "") -> Context:
    """A context file, such as a controller's admin.json."""
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path}: not a context file ({error}): copy the controller's admin.json again") from error
    texts = [raw.get(key) for key in ("name", "ca", "certificate", "key")] if isinstance(raw, dict) else [None]
    apis = raw.get("apis") if isinstance(raw, dict) else None
    if not isinstance(apis, list) or not all(isinstance(text, str) for text in (*apis, *texts)):
        want = "name, apis, ca, certificate and key"
        raise BadInput(f"{path}: not a context file (expected {want}): copy the controller's admin.json again")
    return Context(name or raw["name"], tuple(apis), raw["ca"], raw["certificate"], raw["key"])


def names() -> list[str]:
    return sorted(path.stem for path in (config_dir() / "contexts").glob("*.json"))


def save(context: Context, *, make_current: bool = True) -> None:
    """Write the context, readable by its owner only."""
    path = context_path(context.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = {
        "name": context.name,
        "apis": list(context.apis),
        "ca": context.ca,
        "certificate": context.certificate,
        "key": context.key,
    }
    write_private(path, json.dumps(body))
    if make_current:
        use(context.name)


def use(name: str) -> None:
    """Make `name` current; an empty name: none is."""
    path = config_dir() / "current"
    if name:
        write_private(path, name + "\n")
    else:
        path.unlink(missing_ok=True)


def forget(name: str) -> None:
    context_path(name).unlink(missing_ok=True)
    if (config_dir() / "current").exists() and (config_dir() / "current").read_text().strip() == name:
        use("")


def write_private(path: Path, text: str) -> None:
    """Write `text` at once and for the owner's eyes only."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    part.replace(path)
