"""Where the agent tells its metrics, and those of its replicas: a small HTTP server that knows GET.

    /metrics                   the agent's and the node's
    /replicas/NAME/metrics     what the replica itself says where its `x-metrics` points

Rules: on a loopback address it speaks plain HTTP, and of itself only; on any other it speaks TLS, with who shows a certificate
of the cluster's CA that may read metrics. Everything a caller sends has a limit in size and time.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

from agent.core.metrics_replica import Page, read_replica
from agent.core.runner import Runner
from agent.plan.networks import HOST
from agent.plan.records import Life
from model.autoscale import MetricsPort
from model.errors import BadInput, NotFound, ShoalError, Unavailable
from model.pki_names import ROLE_CONTROLLER, ROLE_METRICS, ROLE_OPERATOR

log = logging.getLogger(__name__)

HEAD_BYTES_MAX: Final = 16 << 10
HEAD_S: Final = 120.0
"""A scraper keeps its connection from one scrape to the next."""
CONNECTIONS_MAX: Final = 256
READERS: Final = (ROLE_METRICS, ROLE_OPERATOR, ROLE_CONTROLLER)
_PLAIN: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    status: str
    content_type: str
    body: bytes


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_context(pki: Path) -> ssl.SSLContext:
    """From the node's DIR/pki: only callers with a certificate of the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki / "node.pem", pki / "node.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class MetricsServer:
    """`start`, then `close`. `page`: the text of /metrics."""

    def __init__(self, page: Callable[[], Awaitable[bytes]], runner: Runner) -> None:
        self._page, self._runner = page, runner
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """The port. Raises Unavailable."""
        more: dict[str, Any] = {"ssl_handshake_timeout": 10.0} if tls is not None else {}
        try:
            self._server = await asyncio.start_server(self._serve, host, port, ssl=tls, limit=HEAD_BYTES_MAX, **more)
        except OSError as error:
            raise Unavailable(f"--metrics {host}:{port}: {error.strerror or error}: choose another address") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                role = role_of(writer.get_extra_info("peercert"))
                while await self._request(reader, writer, role):
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            log.debug("metrics: a caller's connection ended: %s", error)
        finally:
            self._open -= 1
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, role: str | None) -> bool:
        """Answers one; whether another may follow."""
        async with asyncio.timeout(HEAD_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, version = head[0].split(" ")
        answer = await self._answer(method, target, role)
        fields = {name.lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in head[1:])}
        stays = (version, method) == ("HTTP/1.1", "GET") and fields.keys().isdisjoint(("content-length", "transfer-encoding"))
        stays = stays and fields.get("connection") != "close"
        lines = [
            f"HTTP/1.1 {answer.status}", f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body)}",
            f"Connection: {'keep-alive' if stays else 'close'}",
        ]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + answer.body)
        async with asyncio.timeout(HEAD_S):
            await writer.drain()
        return stays

    async def _answer(self, method: str, target: str, role: str | None) -> Answer:
        if role is not None and role not in READERS:
            return _said("403 Forbidden", f"a {role or 'nameless'} certificate may not read metrics")
        if method != "GET":
            return _said("405 Method Not Allowed", "only GET is known here")
        try:
            return await self._found(target, secure=role is not None)
        except NotFound as error:
            return _said("404 Not Found", str(error))
        except BadInput as error:
            return _said("400 Bad Request", str(error))
        except ShoalError as error:
            return _said("502 Bad Gateway", str(error))
        except Exception:
            log.exception("metrics: GET %s failed", target)
            return _said("500 Internal Server Error", "the agent failed on this: see its log")

    async def _found(self, target: str, secure: bool) -> Answer:
        url = urlsplit(target)
        words = url.path.strip("/").split("/")
        if words == ["metrics"]:
            return Answer("200 OK", CONTENT_TYPE_LATEST, await self._page())
        if secure and len(words) == 3 and (words[0], words[2]) == ("replicas", "metrics"):
            page = await self._replica(unquote(words[1]), parse_qs(url.query))
            return Answer("200 OK", page.content_type, page.body)
        raise NotFound(f"there is no {url.path[:200]}: ask for /metrics{' or /replicas/NAME/metrics' if secure else ''}")

    async def _replica(self, name: str, query: dict[str, list[str]]) -> Page:
        core = self._runner.core
        life = next((life for life in core.lives.values() if life.name == name and life.stage == "running"), None)
        if life is None:
            raise NotFound(f"no replica {name[:200]} runs on node {core.node}")
        told = next((row.metrics for row in core.desired.services if row.id == life.id.service_id), None)
        where = place_of(life, query, told)
        try:
            return await read_replica(self._runner, life, where)
        except Unavailable as error:
            raise Unavailable(f"{life.name}: {error}") from None


def place_of(life: Life, query: dict[str, list[str]], told: MetricsPort | None = None) -> MetricsPort:
    """What the caller says (the controller told it, and knows the service's newest `x-metrics`), else what the controller has
    told this node (it does for a policy that scrapes), else the replica's own spec. On the node's own network the caller has no
    say: there other programs listen too. Raises BadInput, NotFound."""
    said = query.get("port", [""])[-1]
    if said and life.netns != HOST:
        path = query.get("path", ["/metrics"])[-1]
        if not said.isdigit() or not 0 < int(said) < 65536 or not path.startswith("/") or not path.isprintable() or " " in path:
            raise BadInput("port and path: expected a port's number and a path that begins with /")
        return MetricsPort(int(said), path)
    known = told or life.spec.metrics
    if known is None:
        raise NotFound(f"{life.name} began without x-metrics: ask with ?port=PORT&path=PATH")
    return known


def role_of(certificate: dict[str, Any] | None) -> str | None:
    """The OU of what TLS has verified; empty unless there is exactly one; None without TLS."""
    if certificate is None:
        return None
    units = [value for part in certificate.get("subject", ()) for name, value in part if name == "organizationalUnitName"]
    return str(units[0]) if len(units) == 1 else ""


def _said(status: str, text: str) -> Answer:
    return Answer(status, _PLAIN, f"{text}\n".encode())
