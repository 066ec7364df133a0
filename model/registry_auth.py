"""Who may be told a registry's password, and how a registry asks for it. Pure; the nodes and the command line go by it.

Rules: a password goes to the registry itself, or to a token server of its own domain (or one that was named for it). Nobody
leads from TLS to plain http, nor from another machine to this one.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

_WANTS_TLS: Final = (b"HTTP request to an HTTPS server", b"plain HTTP request was sent to HTTPS port")
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""OpenSSL's words for an answer that is none of TLS; which one depends on its version."""
_PARAMETER: Final = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """`Bearer realm="..",service=".."` as (`bearer`, parameters)."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)}


def basic_header(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def token_in(raw: bytes) -> str | None:
    """The token in a token server's answer."""
    try:
        doc = json.loads(raw)
        token = doc.get("token") or doc.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else None


def wants_tls(status: int, body: bytes) -> bool:
    """Whether that is how a server that speaks TLS answers plain http (Go's own server, nginx)."""
    return status == 400 and any(words in body for words in _WANTS_TLS)


def speaks_no_tls(reason: str | None) -> bool:
    """Whether OpenSSL's `reason` of a failed handshake is that plain text came back."""
    return reason in _NO_TLS


def host_of(url: str) -> str:
    """`host[:port]` of an address, without a name and password before it."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def may_be_told(registry: str, realm: str, named: Collection[str] = ()) -> bool:
    """Whether the token server at the address `realm` may be told the password for `registry` (`host[:port]`).

    `named`: the `host[:port]` of servers that somebody trusts for this registry.
    """
    where = host_of(realm)
    return where in named or of_one_domain(registry, where)


def may_lead(scheme: str, here: str, to_scheme: str, there: str) -> bool:
    """Whether a server at `here` (`host[:port]`) may send who asks it to `there`."""
    return not (scheme == "https" and to_scheme == "http") and (is_loopback(here) or not is_loopback(there))


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


def is_loopback(endpoint: str) -> bool:
    """Whether `host[:port]` is this machine by its very name."""
    host = urlsplit(f"//{endpoint}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
