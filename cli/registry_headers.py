"""What `shoal login` keeps, as headers of the requests that need it.

Rules: light, since every `run` and `apply` passes here, and mostly nobody is logged in anywhere. Only what is kept for the
registries of the images concerned goes along.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from cli.context import config_dir
from model.errors import BadInput, ShoalError
from model.image_ref import parse_image_ref


def registry_auth(reference: str) -> dict[str, str]:
    """For one image; empty without a login."""
    found = _login(parse_image_ref(reference).registry)
    return _header("X-Registry-Auth", found) if found else {}


def registry_config(references: Iterable[str]) -> dict[str, str]:
    """For several, by registry. What is no reference is left to the controller to refuse; a login that cannot be read is a
    warning: the images may be at hand, or public."""
    registries = dict[str, None]()
    for reference in references:
        with contextlib.suppress(BadInput):
            registries[parse_image_ref(reference).registry] = None
    found = dict[str, dict[str, str]]()
    for registry in registries:
        try:
            found |= {registry: login} if (login := _login(registry)) else {}
        except ShoalError as error:
            import click

            click.echo(f"warning: {error}", err=True)
    return _header("X-Registry-Config", found) if found else {}


def _login(registry: str) -> dict[str, str]:
    if not os.path.exists(os.path.join(os.environ.get("DOCKER_CONFIG") or config_dir(), "config.json")):
        return {}
    from cli.docker_config import known
    from cli.registry import key_of

    login = known(key_of(registry))
    return {} if login is None else {"username": login.username, "password": login.password}


def _header(name: str, content: Mapping[str, Any]) -> dict[str, str]:
    import base64
    import json

    return {name: base64.urlsafe_b64encode(json.dumps(content).encode()).decode()}
