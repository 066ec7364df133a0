"""What the command line itself asks a registry: whether it takes a login, and its search.

Rules: http.client only. TLS always, with the CAs of this machine and of the cluster in use; plain http with this very machine
only, until it says that it wants TLS. A password goes to the registry, or to the token
server of its own domain that it names, over TLS; it is in no message.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from cli import context
from cli.client import reason
from cli.docker_config import Login
from model import registry_auth as rules
from model.errors import BadInput, NotFound, RuntimeFailed, Unauthorized, Unavailable

HUB: Final = "https://index.docker.io/v1/"
"""Docker's name for its own registry, where credentials are kept."""
ANSWER_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 4 << 20
_REDIRECTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Reply:
    url: str
    status: int
    challenge: str
    body: bytes


def key_of(server: str) -> str:
    """The name credentials of a server are kept under, as Docker has it: its host, its hub's own address."""
    host = re.sub(r"^https?://", "", server).partition("/")[0]
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def check_login(key: str, login: Login) -> None:
    """Returns when the registry takes it. Raises Unauthorized, Unavailable."""
    base = base_url("registry-1.docker.io" if key == HUB else key)
    url = f"{base}/v2/"
    first = get(url)
    if first.status == 401:
        scheme, parameters = rules.parse_challenge(first.challenge)
        url = first.url if first.url == url.replace("http:", "https:", 1) else url
        header = _basic(login) if scheme == "basic" else f"Bearer {_token(url, parameters, login)}"
        first = get(url, {"Authorization": header})
    if first.status in (401, 403):
        raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password')
    if first.status != 200:
        raise Unavailable(f'Get "{url}": it answers {first.status}: is this a registry?')


def search(key: str, term: str, limit: int, login: Login | None) -> list[dict[str, Any]]:
    """Docker's rows: name, description, star_count, is_official, is_automated. Raises RuntimeFailed, Unavailable."""
    host = "index.docker.io" if key == HUB else key
    url = f"{base_url(host)}/v1/search?{urlencode({'q': term, 'n': limit})}"
    reply = get(url, {"Authorization": _basic(login)} if login else {})
    if reply.status == 404:
        raise RuntimeFailed(f"registry {host} has no search: one that only stores images (registry:2) does not offer it")
    if reply.status in (401, 403):
        raise Unauthorized(f"registry {host} refuses to search: unauthorized: `shoal login {key}`")
    try:
        rows = json.loads(reply.body)["results"]
    except (ValueError, KeyError, TypeError):
        rows = None
    if reply.status != 200 or not isinstance(rows, list):
        raise Unavailable(f"registry {host}: its search answers {reply.status}, and nothing that is understood")
    return [row for row in rows if isinstance(row, dict)]


def base_url(host: str) -> str:
    return f"{'http' if rules.is_loopback(host) else 'https'}://{host}"


def get(url: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One answer; redirects are followed, without credentials to another host. Raises Unavailable."""
    sent = dict(headers or {})
    for _ in range(_REDIRECTS_MAX):
        scheme, host = _checked(url)
        connection = http.client.HTTPConnection(host, timeout=ANSWER_S)
        if scheme == "https":
            connection = http.client.HTTPSConnection(host, timeout=ANSWER_S, context=_trusted())
        parts = urlsplit(url)
        try:
            connection.request("GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", headers=sent)
            response = connection.getresponse()
            body, target = response.read(ANSWER_BYTES_MAX), response.getheader("Location")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f'Get "{url.partition("?")[0]}": {_why(error, host)}') from None
        finally:
            connection.close()
        if scheme == "http" and rules.wants_tls(response.status, body):
            url = url.replace("http:", "https:", 1)
            continue
        if response.status not in (301, 302, 303, 307, 308) or not target:
            return Reply(url, response.status, response.getheader("WWW-Authenticate") or "", body)
        to = _led(url, target)
        if _checked(to) != (scheme, host):
            sent.pop("Authorization", None)
        url = to
    raise Unavailable(f"{host}: more than {_REDIRECTS_MAX} redirects")


def _why(error: Exception, host: str) -> str:
    """What is wrong with a connection, and what helps."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted here ({error.verify_message}): see `shoal registry ca`, or set SSL_CERT_FILE"
    if isinstance(error, ssl.SSLError) and rules.speaks_no_tls(error.reason):
        return "it speaks plain http: give it a certificate (`shoal registry up --tls`), or log in on a node as localhost:PORT"
    if isinstance(error, ConnectionRefusedError) and rules.is_loopback(host):
        return f"connection refused: {host} is asked for on this machine: a node's is reached there, or by ssh -L"
    return reason(error)


def _trusted() -> ssl.SSLContext:
    """What this machine trusts, and the CA of the cluster in use, which is that of its registries."""
    made = ssl.create_default_context()
    with contextlib.suppress(NotFound, BadInput, ssl.SSLError, ValueError):  # no cluster, or one that cannot be asked anyway
        made.load_verify_locations(cadata=context.load().ca)
    return made


def _checked(url: str) -> tuple[str, str]:
    """(scheme, host and port) of what may be spoken to. Raises Unavailable."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not url.isascii() or not url.isprintable() or " " in url:
        raise Unavailable(f"the registry answers with an address that is none: {url[:120]!r}")
    host = rules.host_of(url)
    if parts.scheme == "http" and not rules.is_loopback(host):
        raise Unavailable(f"{host}: plain http is refused: it must speak TLS")
    return parts.scheme, host


def _led(url: str, target: str) -> str:
    """Where a server at `url` sends who asks it. Raises Unavailable when it may not."""
    try:
        target = urljoin(url, target)
    except ValueError:
        raise Unavailable(f"{rules.host_of(url)} answers with an address that is none: {target[:120]!r}") from None
    here, there = _checked(url), _checked(target)
    if not rules.may_lead(*here, *there):
        raise Unavailable(f"{here[1]} leads to {there[0]}://{there[1]}, which is refused")
    return target


def _token(url: str, parameters: Mapping[str, str], login: Login) -> str:
    """Of the token server that the registry names, when it may be told the password."""
    realm, host = parameters.get("realm", ""), rules.host_of(url)
    if not realm:
        raise Unavailable(f'Get "{url}": it says nothing about how to log in')
    realm = _led(url, realm)
    where = rules.host_of(realm)
    if not rules.may_be_told(host, realm):
        raise Unauthorized(f"registry {host}: its token server {where} is of another domain: it is not told the password")
    query = {"account": login.username, "client_id": "shoal"}
    query |= {name: parameters[name] for name in ("service", "scope") if name in parameters}
    reply = get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", {"Authorization": _basic(login)})
    if reply.status in (400, 401, 403):
        raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password')
    token = rules.token_in(reply.body)
    if token is None:
        raise Unavailable(f"{where}: it answers {reply.status} and gives no token")
    return token


def _basic(login: Login) -> str:
    return rules.basic_header(login.username, login.password)
