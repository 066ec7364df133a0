"""What the command line itself asks a registry: whether it takes a login, and its search.

Rules: http.client only. TLS always; plain http with this very machine only. A password goes to the registry, or to the token
server that it names, over TLS; it is in no message.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from cli.client import reason
from cli.docker_config import Login
from model.errors import RuntimeFailed, Unauthorized, Unavailable

HUB: Final = "https://index.docker.io/v1/"
"""Docker's name for its own registry, where credentials are kept."""
ANSWER_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 4 << 20
_REDIRECTS_MAX: Final = 5
_PARAMETER: Final = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')


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
        scheme, _, rest = first.challenge.partition(" ")
        parameters = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)}
        header = _basic(login) if scheme.lower() == "basic" else f"Bearer {_token(url, parameters, login)}"
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
    return f"{'http' if _is_loopback(host) else 'https'}://{host}"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def get(url: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One answer; redirects are followed, without credentials to another host. Raises Unavailable."""
    sent = dict(headers or {})
    for _ in range(_REDIRECTS_MAX):
        parts = urlsplit(url)
        if parts.scheme == "http" and not _is_loopback(parts.netloc):
            raise Unavailable(f"{parts.netloc}: plain http is refused: it must speak TLS")
        kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
        connection = kind(parts.netloc, timeout=ANSWER_S)
        try:
            connection.request("GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", headers=sent)
            response = connection.getresponse()
            body, target = response.read(ANSWER_BYTES_MAX), response.getheader("Location")
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            raise Unavailable(f'Get "{url.partition("?")[0]}": {reason(error)}') from None
        finally:
            connection.close()
        if response.status not in (301, 302, 303, 307, 308) or not target:
            return Reply(url, response.status, response.getheader("WWW-Authenticate") or "", body)
        url = urljoin(url, target)
        if urlsplit(url).netloc != parts.netloc:
            sent.pop("Authorization", None)
    raise Unavailable(f"{urlsplit(url).netloc}: more than {_REDIRECTS_MAX} redirects")


def _token(url: str, parameters: Mapping[str, str], login: Login) -> str:
    """Of the token server that the registry names."""
    realm = parameters.get("realm", "")
    if not realm.startswith(("https://", "http://") if url.startswith("http://") else "https://"):
        raise Unavailable(f'Get "{url}": it says nothing about how to log in')
    query = {"account": login.username, "client_id": "shoal"}
    query |= {name: parameters[name] for name in ("service", "scope") if name in parameters}
    reply = get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", {"Authorization": _basic(login)})
    if reply.status in (400, 401, 403):
        raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password')
    try:
        found = json.loads(reply.body)
        token = found.get("token") or found.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Unavailable(f"{urlsplit(realm).netloc}: it answers {reply.status} and gives no token")
    return token


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.username}:{login.password}'.encode()).decode()}"
