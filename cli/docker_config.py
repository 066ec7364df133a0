"""Credentials for registries, kept as Docker keeps them: `config.json` below $DOCKER_CONFIG, else below our own folder.

Rules: a password stands there only as Docker writes it (base64, mode 0600), or in a `docker-credential-*` program that the file
names. What others wrote into the file stays. A file that cannot be read is one clear line, never overwritten.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli.context import config_dir
from model.errors import BadInput, RuntimeFailed

HELPER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str = field(repr=False)


def path() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or config_dir()) / "config.json"


def read() -> dict[str, Any]:
    try:
        found = json.loads(path().read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("auths", {}), dict):
        raise BadInput(f"{path()}: it is not Docker's config.json: correct it, or take it away")
    return found


def known(registry: str) -> Login | None:
    """What is kept for a registry, under the name Docker has for it."""
    config = read()
    if program := _helper(config, registry):
        return _asked(program, registry)
    entry = config.get("auths", {}).get(registry)
    return _decoded(entry, registry) if isinstance(entry, dict) and entry.get("auth") else None


def keep(registry: str, login: Login) -> str:
    """Remember it; the file where the password now stands as it is, empty when a program has it."""
    config = read()
    program = _helper(config, registry)
    if program:
        _call(program, "store", json.dumps({"ServerURL": registry, "Username": login.username, "Secret": login.password}))
        entry = {}
    else:
        entry = {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
    _write({**config, "auths": {**config.get("auths", {}), registry: entry}})
    return "" if program else str(path())


def forget(registry: str) -> bool:
    """Whether there was anything to forget."""
    config = read()
    auths = dict(config.get("auths", {}))
    program = _helper(config, registry)
    there = registry in auths or bool(program and _asked(program, registry))
    if program and there:
        _call(program, "erase", registry)
    if auths.pop(registry, None) is not None:
        _write({**config, "auths": auths})
    return there


def _helper(config: dict[str, Any], registry: str) -> str:
    helpers = config.get("credHelpers")
    named = helpers.get(registry) if isinstance(helpers, dict) else None
    name = str(named or config.get("credsStore") or "")
    if "/" in name:
        raise BadInput(f"{path()}: {name!r} is not the name of a docker-credential program")
    return f"docker-credential-{name}" if name else ""


def _asked(program: str, registry: str) -> Login | None:
    try:
        found = json.loads(_call(program, "get", registry))
        return Login(str(found["Username"]), str(found["Secret"]))
    except (ValueError, KeyError, TypeError):
        raise RuntimeFailed(f"{program}: its answer is not understood") from None
    except _Missing:
        return None


class _Missing(Exception):
    """The program knows nothing of this registry."""


def _call(program: str, verb: str, text: str) -> str:
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, text=True, timeout=HELPER_S, check=False)
    except (FileNotFoundError, PermissionError):
        raise RuntimeFailed(f"{program}: {path()} names it, and it cannot be run: install it, or take the name away") from None
    except subprocess.TimeoutExpired:
        raise RuntimeFailed(f"{program} {verb}: no answer within {HELPER_S:.0f} s") from None
    if done.returncode:
        said = " ".join((done.stdout or done.stderr).split())
        if verb == "get" and "not found" in said:
            raise _Missing
        raise RuntimeFailed(f"{program} {verb}: {said[:200] or f'exit code {done.returncode}'}")
    return done.stdout


def _decoded(entry: dict[str, Any], registry: str) -> Login:
    try:
        username, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise BadInput(f"{path()}: what it has for {registry} is damaged: `shoal login {registry}` writes it anew")
    return Login(username, password.rstrip("\0"))


def _write(config: dict[str, Any]) -> None:
    """In one step."""
    target = path().resolve()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".config-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(config, indent="\t"))
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
