"""Answers to a registry's 401: bearer tokens and basic credentials.

Rules: secrets go only to the registry itself, or to a token server of its own domain (or one named for it), over TLS (plain
http where the registry is allowed plain http). A token is asked for what is needed, whatever scope the registry names;
tokens live in memory only and are asked again when refused.
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

    def __init__(self, transport: Transport, token_servers: Mapping[str, tuple[str, ...]]) -> None:
        self._transport = transport
        self._token_servers = token_servers
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], str] = {}

    def headers(self, endpoint: str, scope: str, credentials: Credentials | None) -> dict[str, str]:
        with self._lock:
            known = self._known.get(_key(endpoint, scope, credentials))
        return {"Authorization": known} if known else {}

    def answer(
        self, endpoint: str, scope: str, credentials: Credentials | None, challenge: str, refused: str | None
    ) -> bool:
        """Find another header than the `refused` one for this challenge; False when there is none to try."""
        scheme, parameters = parse_challenge(challenge)
        if scheme == "basic" and credentials is not None:
            header = basic_header(credentials)
        elif scheme == "bearer" and parameters.get("realm"):
            header = f"Bearer {self._token(endpoint, scope, credentials, parameters)}"
        else:
            return False
        with self._lock:
            self._known[_key(endpoint, scope, credentials)] = header
        return header != refused

    def _token(self, endpoint: str, scope: str, credentials: Credentials | None, parameters: Mapping[str, str]) -> str:
        realm = parameters["realm"]
        where = self._checked(endpoint, realm, credentials)
        query = [("scope", part) for part in scope.split(" ")]
        if "service" in parameters:
            query.append(("service", parameters["service"]))
        headers = {"Authorization": basic_header(credentials)} if credentials is not None else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        with self._transport.exchange("GET", url, headers) as reply:
            raw = reply.text(_TOKEN_REPLY_BYTES_MAX)
        if reply.status in (400, 401, 403):
            name = scope.partition(" ")[0].removeprefix("repository:").rpartition(":")[0]
            detail = f"token server {where} says {reply.status}; "
            raise unauthorized(endpoint, name, given=credentials is not None, detail=detail)
        if reply.status != 200:
            raise RegistryUnavailable(f"registry {endpoint}: token server {where} answers {reply.status}")
        try:
            doc = json.loads(raw)
            token = doc.get("token") or doc.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryRefused(f"registry {endpoint}: token server {where} gives no token")
        return token

    def _checked(self, endpoint: str, realm: str, credentials: Credentials | None) -> str:
        """The token server's host; raises RegistryRefused when it may not be asked, or not be told these credentials."""
        self._transport.check_step(f"{self._transport.base_url(endpoint)}/", realm)
        where = urlsplit(realm).netloc.rpartition("@")[2].lower()
        is_own = where in self._token_servers.get(endpoint, ()) or of_one_domain(endpoint, where)
        if credentials is not None and not is_own:
            raise RegistryRefused(
                f"registry {endpoint}: its token server {where} is of another domain: it is not told the registry's credentials"
            )
        return where


def of_one_domain(registry: str, server: str) -> bool:
    """Whether `host[:port]` of a token server is the registry's host, or both stand below one domain of their own.

    `auth.docker.io` and `registry-1.docker.io` do. What is below `com` or `co.uk` is not of one domain.
    """
    own, other = ((urlsplit(f"//{text}").hostname or "").rstrip(".") for text in (registry, server))
    if own == other:
        return True
    if ":" in own + other or own.replace(".", "").isdigit() or other.replace(".", "").isdigit():
        return False
    labels = own.split(".")
    is_long = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3  # co.uk, com.au
    count = 3 if is_long else 2
    domain = ".".join(labels[-count:])
    return len(labels) >= count and (other == domain or other.endswith(f".{domain}"))


def _key(endpoint: str, scope: str, credentials: Credentials | None) -> tuple[str, str, str]:
    secret = basic_header(credentials) if credentials is not None else ""
    return endpoint, scope, secret
