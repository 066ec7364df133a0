"""Credentials for registries that come with a request, and what of them is kept with a service.

Rules: they come in the header that Docker's clients have for several registries. They are in no answer, no event and no log.
With a service only those of its image's registry are kept, sealed; who sends none changes nothing, as long as the registry is
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controller.api.headers import decoded
from controller.decide.registry_auth import Keep, as_before
from controller.sealing import Login, Seals
from model.documents import ServiceDoc
from model.errors import BadInput
from model.image_ref import DEFAULT_REGISTRY, parse_image_ref

CONFIG_HEADER: Final = "X-Registry-Config"
_HUB_HOSTS: Final = ("index.docker.io", "registry-1.docker.io")
Logins = Mapping[str, Login]
"""By registry, as references name it."""


def logins_of(request: Any) -> Logins:
    """Raises BadInput, which never repeats them."""
    header = getattr(request, "headers", {}).get(CONFIG_HEADER, "")
    if not header:
        return {}
    try:
        rows = decoded(header)
        found = {_registry(name): _login(row) for name, row in rows.items()}
    except (ValueError, AttributeError, TypeError):
        raise BadInput(
            f"{CONFIG_HEADER}: expected base64url of a JSON object: registry -> object with username and password"
        ) from None
    return {name: login for name, login in found.items() if login is not None}


def _login(row: Any) -> Login | None:
    username, password = row.get("username", ""), row.get("password", "")
    if not isinstance(username, str) or not isinstance(password, str):
        raise TypeError
    return Login(username, password) if username else None


def _registry(name: str) -> str:
    """Docker's hub has several names."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_REGISTRY if host in _HUB_HOSTS else host


def login_for(logins: Logins, image: str) -> Login | None:
    return logins.get(parse_image_ref(image).registry)


def keeping(seals: Seals, logins: Logins) -> Keep:
    """What is kept with services when these credentials came."""

    def keep(service_id: str, image: str, before: ServiceDoc | None) -> str:
        login = login_for(logins, image)
        return seals.seal(service_id, login) if login is not None else as_before(service_id, image, before)

    return keep
