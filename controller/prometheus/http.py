"""A real Prometheus, asked over HTTP or HTTPS.

Rules: whoever writes a policy chooses the URL, so this is as tight as can be: http and https only, GET only, no redirect is
followed, no proxy, no credentials, a short answer within a short time. A few threads of its own, and a line that is cut when
the time is over: a server that does not answer must not hold up anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from controller.prometheus.answer import read
from controller.prometheus.port import NoAnswer
from model.autoscale_check import url_problem

ANSWER_S: Final = 4.0
BYTES_MAX: Final = 1 << 20
THREADS: Final = 4


class HttpPrometheus:
    """Implements controller.prometheus.port.Prometheus. `close` when nobody asks any more."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._threads = ThreadPoolExecutor(THREADS, "prometheus")

    async def ask(self, url: str, query: str) -> float:
        if problem := url_problem(url):
            raise NoAnswer(f"its url: {problem}")
        request = request_of(url, query, self._answer_s)
        asking = asyncio.get_running_loop().run_in_executor(self._threads, fetch, request)
        try:
            async with asyncio.timeout(self._answer_s):
                return read(*await asking)
        except TimeoutError:
            raise NoAnswer(f"{request.connection.host} does not answer within {self._answer_s:g} s") from None
        finally:
            _cut(request)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Request:
    """`line`: once it is open, also when the connection has given it up to the answer."""

    connection: http.client.HTTPConnection
    target: str
    line: socket.socket | None = None


def request_of(url: str, query: str, answer_s: float) -> _Request:
    parts = urlsplit(url)
    target = f"{parts.path.rstrip('/')}/api/v1/query?{urlencode({'query': query, 'timeout': f'{answer_s:g}s'})}"
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        secure = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=answer_s, context=tls)
        return _Request(secure, target)
    return _Request(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=answer_s), target)


def fetch(request: _Request) -> tuple[int, bytes]:
    """Status and body. Raises NoAnswer, TimeoutError."""
    connection, where = request.connection, request.connection.host
    try:
        connection.connect()
        request.line = connection.sock
        connection.request("GET", request.target, headers={"Accept": "application/json", "User-Agent": "shoal"})
        with connection.getresponse() as response:  # it may hold the socket after the connection gave it up
            if 300 <= response.status < 400:
                raise NoAnswer(f"{where} sends elsewhere (HTTP {response.status}): name the address it sends to")
            data = response.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise NoAnswer(f"{where} answers with more than {BYTES_MAX >> 20} MiB: make the query give one number")
        return response.status, data
    except TimeoutError:
        raise
    except ssl.SSLError as error:
        raise NoAnswer(f"{where}: TLS: {error.reason or 'failed'}") from None
    except OSError as error:
        raise NoAnswer(f"{where}: {(error.strerror or 'cannot be reached').lower()}") from None
    except (http.client.HTTPException, ValueError):
        raise NoAnswer(f"{where} does not speak HTTP") from None
    finally:
        connection.close()


def _cut(request: _Request) -> None:
    """Whoever still reads from it stops at once."""
    if request.line is not None:
        with contextlib.suppress(OSError):  # it is closed
            request.line.shutdown(socket.SHUT_RDWR)
