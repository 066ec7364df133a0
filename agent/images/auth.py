"""Answers to a registry's 401: bearer tokens and basic credentials.

Rules: secrets go only to the registry itself, or to a token server of its own domain (or one named for it), over TLS (plain
http where the registry is allowed plain http). A token is asked for what is needed, whatever scope the registry names;
tokens live in memory only and are asked again when refused. No password is kept: each call brings its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from urllib.parse import urlencode

from agent.images.errors import RegistryRefused, RegistryUnavailable, unauthorized
from agent.images.records import Credentials
from agent.images.transport import Transport
from model import registry_auth as rules

_TOKEN_REPLY_BYTES_MAX = 1 << 20
_KNOWN_MAX = 1000
_AS_BASIC = ""
"""What is known of who is to say name and password themselves."""


class Authorizer:
    """Remembers what worked for (endpoint, scope, user): a token's header, or that basic does."""

    def __init__(self, transport: Transport, token_servers: Mapping[str, tuple[str, ...]]) -> None:
        self._transport = transport
        self._token_servers = token_servers
        self._lock = threading.Lock()
        self._salt = os.urandom(16)
        self._known: dict[tuple[str, str, bytes], str] = {}

    def headers(self, endpoint: str, scope: str, credentials: Credentials | None) -> dict[str, str]:
        with self._lock:
            known = self._known.get(self._key(endpoint, scope, credentials))
        if known == _AS_BASIC and credentials is not None:
            known = _basic(credentials)
        return {"Authorization": known} if known else {}

    def answer(
        self, endpoint: str, scope: str, credentials: Credentials | None, challenge: str, refused: str | None
    ) -> bool:
        """Find another header than the `refused` one for this challenge; False when there is none to try."""
        scheme, parameters = rules.parse_challenge(challenge)
        if scheme == "basic" and credentials is not None:
            header = _basic(credentials)
        elif scheme == "bearer" and parameters.get("realm"):
            header = f"Bearer {self._token(endpoint, scope, credentials, parameters)}"
        else:
            return False
        with self._lock:
            self._known[self._key(endpoint, scope, credentials)] = header if scheme == "bearer" else _AS_BASIC
            while len(self._known) > _KNOWN_MAX:
                del self._known[next(iter(self._known))]
        return header != refused

    def _key(self, endpoint: str, scope: str, credentials: Credentials | None) -> tuple[str, str, bytes]:
        secret = _basic(credentials).encode() if credentials is not None else b""
        return endpoint, scope, hashlib.blake2b(secret, key=self._salt).digest()

    def _token(self, endpoint: str, scope: str, credentials: Credentials | None, parameters: Mapping[str, str]) -> str:
        realm = parameters["realm"]
        where = self._checked(endpoint, realm, credentials)
        query = [("scope", part) for part in scope.split(" ")]
        if "service" in parameters:
            query.append(("service", parameters["service"]))
        headers = {"Authorization": _basic(credentials)} if credentials is not None else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        with self._transport.exchange("GET", url, headers) as reply:
            raw = reply.text(_TOKEN_REPLY_BYTES_MAX)
        if reply.status in (400, 401, 403):
            name = scope.partition(" ")[0].removeprefix("repository:").rpartition(":")[0]
            detail = f"token server {where} says {reply.status}; "
            raise unauthorized(endpoint, name, given=credentials is not None, detail=detail)
        if reply.status != 200:
            raise RegistryUnavailable(f"registry {endpoint}: token server {where} answers {reply.status}")
        token = rules.token_in(raw)
        if token is None:
            raise RegistryRefused(f"registry {endpoint}: token server {where} gives no token")
        return token

    def _checked(self, endpoint: str, realm: str, credentials: Credentials | None) -> str:
        """The token server's host; raises RegistryRefused when it may not be asked, or not be told these credentials."""
        self._transport.check_step(f"{self._transport.base_url(endpoint)}/", realm)
        where = rules.host_of(realm)
        if credentials is not None and not rules.may_be_told(endpoint, realm, self._token_servers.get(endpoint, ())):
            raise RegistryRefused(
                f"registry {endpoint}: its token server {where} is of another domain: it is not told the registry's credentials"
            )
        return where


def _basic(credentials: Credentials) -> str:
    return rules.basic_header(credentials.username, credentials.password)
