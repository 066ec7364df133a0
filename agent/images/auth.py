"""Answers to a registry's 401: bearer tokens and basic credentials.

Rules: secrets go only to the registry itself, or to the token server it names, over TLS (plain http where the registry
is allowed plain http). Tokens live in memory only and are asked again when refused.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from agent.images.errors import RegistryRefused, RegistryUnavailable, unauthorized
from agent.images.records import Credentials
from agent.images.transport import Transport

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_TOKEN_REPLY_BYTES_MAX = 1 << 20


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """`Bearer realm="..",service=".."` as (`bearer`, parameters)."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)}


def basic_header(credentials: Credentials) -> str:
    raw = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(raw).decode()}"


class Authorizer:
    """Remembers the Authorization header that worked for (endpoint, scope, user)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], str] = {}

    def headers(self, endpoint: str, scope: str, credentials: Credentials | None) -> dict[str, str]:
        with self._lock:
            known = self._known.get(_key(endpoint, scope, credentials))
        return {"Authorization": known} if known else {}

    def answer(self, endpoint: str, scope: str, credentials: Credentials | None, challenge: str) -> bool:
        """Find a new header for this challenge; False when there is none to try."""
        scheme, parameters = parse_challenge(challenge)
        if scheme == "basic" and credentials is not None:
            header = basic_header(credentials)
        elif scheme == "bearer" and parameters.get("realm"):
            header = f"Bearer {self._token(endpoint, scope, credentials, parameters)}"
        else:
            return False
        with self._lock:
            before = self._known.get(_key(endpoint, scope, credentials))
            self._known[_key(endpoint, scope, credentials)] = header
        return before != header

    def _token(self, endpoint: str, scope: str, credentials: Credentials | None, parameters: Mapping[str, str]) -> str:
        realm = parameters["realm"]
        query = {"scope": parameters.get("scope", scope)}
        if "service" in parameters:
            query["service"] = parameters["service"]
        headers = {"Authorization": basic_header(credentials)} if credentials is not None else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        with self._transport.exchange("GET", url, headers) as reply:
            raw = reply.text(_TOKEN_REPLY_BYTES_MAX)
        where = urlsplit(realm).netloc
        if reply.status in (400, 401, 403):
            name = scope.removeprefix("repository:").rpartition(":")[0]
            detail = f"token server {where} says {reply.status}; "
            raise unauthorized(endpoint, name, given=credentials is not None, detail=detail)
        if reply.status != 200:
            raise RegistryUnavailable(f"registry {endpoint}: token server {where} answers {reply.status}")
        try:
            doc = json.loads(raw)
            token = doc.get("token") or doc.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryRefused(f"registry {endpoint}: token server {where} gives no token")
        return token


def _key(endpoint: str, scope: str, credentials: Credentials | None) -> tuple[str, str, str]:
    secret = basic_header(credentials) if credentials is not None else ""
    return endpoint, scope, secret
