"""The HTTPS client of the command line: http.client and JSON, nothing heavy, since every command pays for its imports.

Rules: one connection, kept alive; another controller is tried when one cannot be reached, the leader is asked what only it can
answer; every failure is a ShoalError of one line. Reads may be repeated after a broken connection, writes are not.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode, urlsplit

from cli.context import Context
from model import errors
from model.errors import BadInput, ShoalError, Unauthorized, Unavailable
from model.pki_names import CONTROLLER_SERVER_NAME

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
DEFAULT_PORT: Final = 7443
PIECE_BYTES: Final = 1 << 20
READ_BYTES: Final = 256 << 10
"""Of a body that is sent from a file or as it is made."""
_ELSEWHERE: Final = 307


def tls(context: Context) -> ssl.SSLContext:
    """Trusts the cluster's CA only, shows the operator's certificate."""
    try:
        made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=context.ca)
    except (ssl.SSLError, ValueError) as error:
        raise BadInput(f"context {context.name}: its CA is no certificate: copy the controller's admin.json again") from error
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=True) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(context.certificate.rstrip() + "\n" + context.key)
        file.flush()
        try:
            made.load_cert_chain(file.name)
        except ssl.SSLError as error:
            what = f"context {context.name}: certificate and key do not fit"
            raise BadInput(f"{what}: copy the controller's admin.json again") from error
    return made


class _Connection(http.client.HTTPSConnection):
    """Addresses change: what must be right is the server's role, which its certificate carries as a name."""

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock.settimeout(self.timeout)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=CONTROLLER_SERVER_NAME)  # type: ignore[attr-defined]


class Client:
    """`Client(context.load()).get("/v1/nodes")`. Not for several threads at once."""

    def __init__(self, context: Context, *, answer_s: float = ANSWER_S) -> None:
        self.context = context
        self._tls = tls(context)
        self._answer_s = answer_s
        self._connection: http.client.HTTPSConnection | None = None
        self._leader = ""
        self.index = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.call("POST", path, body, query=query)

    def put(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.call("PUT", path, body, query=query)

    def patch(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.call("PATCH", path, body, query=query)

    def delete(self, path: str, **query: Any) -> Any:
        return self.call("DELETE", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> Any:
        """The answer's JSON; `patient`: it may take as long as it takes. `index` is the store revision it was read at, for
        blocking queries."""
        timeout_s = None if patient else -1
        response = self._send(method, path, body, query or {}, timeout_s=timeout_s, more=headers or {})
        data = response.read()
        if index := response.getheader("X-Shoal-Index"):
            self.index = int(index)
        return parse(response.status, data)

    def download(self, path: str, file: BinaryIO, **query: Any) -> None:
        """Write the answer's bytes to a file, as they come."""
        response = self._send("GET", path, None, query, timeout_s=None)
        if response.status >= 400:
            parse(response.status, response.read())
        try:
            while piece := response.read(PIECE_BYTES):
                file.write(piece)
        except http.client.HTTPException as error:
            raise Unavailable("the controller broke off the answer: try again") from error
        finally:
            self.close()

    def lines(
        self, path: str, *, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Iterator[Any]:
        """The objects of an NDJSON stream, as they come."""
        response = self._send(method, path, body, query, timeout_s=None, more=headers or {})
        if response.status >= 400:
            parse(response.status, response.read())
        try:
            while line := response.readline():
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the controller broke off the answer ({error}): try again") from error
        finally:
            self.close()

    def events(self, path: str, **query: Any) -> Iterator[Any]:
        """The data of server-sent events, as they come."""
        response = self._send("GET", path, None, query, timeout_s=None)
        if response.status >= 400:
            parse(response.status, response.read())
        try:
            while line := response.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[len(b"data: ") :])
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the controller broke off the answer ({error}): try again") from error
        finally:
            self.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any],
        *,
        timeout_s: float | None = -1,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> http.client.HTTPResponse:
        """`more`: further headers."""
        target = path_of(path, query)
        raw = isinstance(body, (bytes, bytearray)) or hasattr(body, "read")
        data = body if raw or body is None else json.dumps(body).encode()
        headers = dict(more)
        if data is not None:
            headers["Content-Type"] = "application/x-tar" if raw else "application/json"
        fresh = self._connection is None
        connection = self._connect(self._answer_s if timeout_s == -1 else timeout_s)
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            self.close()
            if not fresh and (method == "GET" or isinstance(error, http.client.RemoteDisconnected)) and not raw:
                return self._send(method, path, body, query, timeout_s=timeout_s, more=more)
            raise Unavailable(
                f"the controller at {connection.host} does not answer ({reason(error)}): is it running?"
            ) from error
        if response.status != _ELSEWHERE:
            return response
        if self._leader:
            raise Unavailable("the lead goes from one controller to another: try again")
        return self._at_leader(response, lambda: self._send(method, path, body, query, timeout_s=timeout_s, more=more))

    def _at_leader(
        self, told: http.client.HTTPResponse, again: Callable[[], http.client.HTTPResponse]
    ) -> http.client.HTTPResponse:
        """Only the leader answers this: it is asked, now and from now on."""
        self.close()
        self._leader = told.getheader("Location", "")
        try:
            return again()
        finally:
            self._leader = ""

    def _connect(self, timeout_s: float | None) -> http.client.HTTPSConnection:
        if self._connection is None:
            self._connection = self._open()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        return self._connection

    def _open(self) -> http.client.HTTPSConnection:
        problems = []
        for api in (self._leader,) if self._leader else self.context.apis:
            parts = urlsplit(api)
            connection = _Connection(
                parts.hostname or "", parts.port or DEFAULT_PORT, timeout=CONNECT_S, context=self._tls, blocksize=READ_BYTES
            )
            try:
                connection.connect()
            except OSError as error:
                problems.append(f"{parts.netloc}: {reason(error)}")
                continue
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        where = "; ".join(problems) or "no address in the context"
        raise Unavailable(f"cluster {self.context.name} cannot be reached ({where}): is its controller running?")


def path_of(path: str, query: Mapping[str, Any]) -> str:
    """Path and query as they go on the wire; None and False are left out, lists repeat their name."""
    pairs = []
    for name, value in query.items():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if item is not None and item is not False:
                pairs += [(name.rstrip("_"), "true" if item is True else str(item))]
    target = quote(path, safe="/:@%")
    return f"{target}?{urlencode(pairs)}" if pairs else target


def parse(status: int, data: bytes) -> Any:
    """The JSON of an answer; raises the error that a failed one describes."""
    try:
        body = json.loads(data) if data.strip() else None
    except ValueError:
        body = None
    if status < 400:
        return body
    row = body.get("error", {}) if isinstance(body, dict) else {}
    message = row.get("message") or f"the controller answered {status}"
    if row.get("code") == BadInput.code:
        raise BadInput(message, row.get("problems") or ())
    raise _ERRORS.get(row.get("code", ""), ShoalError)(message)


_ERRORS: Final[dict[str, type[ShoalError]]] = {
    error.code: error
    for error in (errors.NotFound, errors.Conflict, Unauthorized, Unavailable, errors.StoreError, errors.RuntimeFailed)
}


def reason(error: BaseException) -> str:
    """What a person can use of a connection error."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not of this cluster"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
