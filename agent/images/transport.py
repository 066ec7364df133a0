"""HTTP to registries: kept connections, TLS always, plain http only where it is allowed and the server does not want TLS.

Rules: synchronous, called from worker threads, safe from several at once. One call is one exchange (redirects included),
retrying is the caller's. Credentials are never sent to another host than the one asked, nor over a redirect. No redirect leads
from TLS to plain http, nor from another machine to this one.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from agent.images.errors import RegistryRefused
from agent.images.records import RegistryConfig
from model.registry_auth import is_loopback, may_lead, wants_tls

_REDIRECTS_MAX = 5
_IDLE_MAX = 4
_REFUSAL_BYTES_MAX = 1024
_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and headers (lower-case names) of one exchange; `read` gives the body piece by piece, b"" at its end."""

    url: str
    status: int
    headers: Mapping[str, str]
    response: http.client.HTTPResponse

    def read(self, size: int) -> bytes:
        return self.response.read(size)

    def text(self, size_max: int) -> bytes:
        """The whole body, at most `size_max` + 1 bytes of it, so that the caller can see it is too long."""
        return self.response.read(size_max + 1)


def joined(url: str, location: str) -> str:
    """Where a `Location` leads; raises RegistryRefused."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise RegistryRefused(f"registry answers with an address that is none: {location[:120]!r}") from None


class Transport:
    """A small pool of connections for each (scheme, host)."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._tls: dict[str, ssl.SSLContext] = {}
        self._want_tls: set[str] = set()
        """Loopback endpoints that answered plain http with the wish for TLS."""

    def allows_plain(self, endpoint: str) -> bool:
        """Named insecure, or loopback without a CA file of its own."""
        if endpoint in self._config.ca_files:
            return False
        return endpoint in self._config.insecure or is_loopback(endpoint)

    def base_url(self, endpoint: str) -> str:
        return f"{'http' if self.allows_plain(endpoint) else 'https'}://{endpoint}"

    @contextlib.contextmanager
    def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: Body = None, *, follow: bool = True
    ) -> Iterator[Reply]:
        """One request and its reply; the connection is kept when the body was read to its end.

        Raises OSError or http.client.HTTPException when the exchange broke.
        """
        for _ in range(_REDIRECTS_MAX + 1):
            key = self._key(url)
            try:
                connection, response = self._send(key, method, url, headers, body)
            except ssl.SSLError as error:
                if key[1] not in self._want_tls or isinstance(error, ssl.SSLCertVerificationError):
                    raise
                self._want_tls.discard(key[1])  # it was started again without
                continue
            if key[0] == "http" and self._says_tls(key, response):
                self._give(key, connection, response)
                self._want_tls.add(key[1])
                if body is None or isinstance(body, bytes):
                    continue
                raise ConnectionResetError(f"{key[1]} wants TLS")  # what came piece by piece is gone: all of it once more
            names = {name.lower(): value for name, value in response.getheaders()}
            location = names.get("location")
            if follow and response.status in _REDIRECT_CODES and location and method in ("GET", "HEAD"):
                try:
                    response.read(64 << 10)
                finally:
                    self._give(key, connection, response)
                target = joined(url, location)
                self.check_step(url, target)
                if self._key(target) != key:
                    headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
                url = target
                continue
            try:
                yield Reply(url, response.status, names, response)
            finally:
                self._give(key, connection, response)
            return
        raise RegistryRefused(f"registry {urlsplit(url).netloc}: more than {_REDIRECTS_MAX} redirects")

    def close(self) -> None:
        with self._lock:
            connections = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _says_tls(self, key: tuple[str, str], refusal: http.client.HTTPResponse) -> bool:
        """Whether plain http itself is refused; it is asked again, since the answer to a HEAD has no words."""
        if refusal.status != 400 or not is_loopback(key[1]) or "json" in refusal.getheader("Content-Type", ""):
            return False
        try:
            connection, response = self._send(key, "GET", f"http://{key[1]}/v2/", {}, None)
        except (OSError, http.client.HTTPException):
            return False
        try:
            return wants_tls(response.status, response.read(_REFUSAL_BYTES_MAX))
        finally:
            self._give(key, connection, response)

    def _send(
        self, key: tuple[str, str], method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        while True:
            connection, reused = self._take(key)
            try:
                connection.request(method, target, body=body, headers=dict(headers))
                return connection, connection.getresponse()
            except BaseException as error:  # a body that comes piece by piece may end in anything
                connection.close()
                if not isinstance(error, (OSError, http.client.HTTPException)):
                    raise
                if not reused or method == "PATCH" or not (body is None or isinstance(body, bytes)):
                    raise  # a kept connection may have died of age: that is worth one fresh try, but not of what appends

    def check_step(self, url: str, target: str) -> None:
        """Raise when a registry at `url` may not send this node to `target`."""
        here, there = self._key(url), self._key(target)
        if not may_lead(*here, *there):
            raise RegistryRefused(f"registry {here[1]} leads to {there[0]}://{there[1]}, which is refused")

    def is_same_host(self, url: str, target: str) -> bool:
        """Whether both are one (scheme, host, port)."""
        (scheme, here), (other, there) = self._key(url), self._key(target)
        port = f":{_PORTS[scheme]}"
        return scheme == other and here.lower().removesuffix(port) == there.lower().removesuffix(port)

    def _key(self, url: str) -> tuple[str, str]:
        """(scheme, host and port); raises RegistryRefused for what is no address or may not be spoken to."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise RegistryRefused(f"registry answers with an address that is none: {url[:120]!r}") from None
        if not url.isascii() or not url.isprintable() or " " in url:
            raise RegistryRefused(f"registry answers with an address that is none: {url[:120]!r}")
        if parts.scheme == "http" and not self.allows_plain(parts.netloc):
            raise RegistryRefused(
                f"registry {parts.netloc}: plain http is refused: use TLS, or name it in the insecure registries"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryRefused(f"registry answers with an address that is not http(s): {url[:120]!r}")
        host = parts.netloc.rpartition("@")[2]
        return ("https" if host in self._want_tls else parts.scheme), host

    def _take(self, key: tuple[str, str]) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(key)
            if idle:
                return idle.pop(), True
        scheme, netloc = key
        if scheme == "http":
            return http.client.HTTPConnection(netloc, timeout=self._config.timeout_s), False
        context = self._context(netloc)
        return http.client.HTTPSConnection(netloc, timeout=self._config.timeout_s, context=context), False

    def _context(self, netloc: str) -> ssl.SSLContext:
        with self._lock:
            if netloc not in self._tls:
                ca_file = self._config.ca_files.get(netloc)
                self._tls[netloc] = context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
                if ca_file is None and self._config.cluster_ca is not None:
                    context.load_verify_locations(cafile=str(self._config.cluster_ca))
            return self._tls[netloc]

    def _give(self, key: tuple[str, str], connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        keep = response.isclosed() and not response.will_close
        with self._lock:
            idle = self._idle.setdefault(key, [])
            if keep and len(idle) < _IDLE_MAX:
                idle.append(connection)
                return
        response.close()
        connection.close()
