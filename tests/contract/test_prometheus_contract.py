"""What `Prometheus` promises: one number, or one line why there is none; the twin in memory, and the real one over HTTP.

The server is one of ours that says what Prometheus says, and worse things; Debian's own Prometheus answers too, where it is
installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from controller.prometheus.http import BYTES_MAX, HttpPrometheus
from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.port import NoAnswer, Prometheus
from tests.contract.controller_harness import eventually

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


class Server(ThreadingHTTPServer):
    """Answers `/base/api/v1/query`: by query the elements of a vector or an error, or what `raw` writes itself."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[float] | str] = {}
        self.raw: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.paths: list[str] = []
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/base/"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.paths.append(self.path)
        if server.raw is not None:
            server.raw(self)
            return
        answer = server.answers.get(parse_qs(urlsplit(self.path).query)["query"][0], [])
        if isinstance(answer, str):
            say(self, 400, {"status": "error", "errorType": "bad_data", "error": answer})
        else:
            rows = [{"metric": {"number": str(at)}, "value": [time.time(), repr(value)]} for at, value in enumerate(answer)]
            say(self, 200, {"status": "success", "data": {"resultType": "vector", "result": rows}})

    def log_message(self, *_: Any) -> None:
        """The test's output is not theirs."""


def say(handler: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"content-length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.ending.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
async def real() -> AsyncIterator[HttpPrometheus]:
    made = HttpPrometheus(answer_s=1.0)
    yield made
    made.close()


@pytest.fixture(params=["memory", "http"])
def pair(request: pytest.FixtureRequest, server: Server, real: HttpPrometheus) -> tuple[Prometheus, Any]:
    """The implementation, and what takes its answers."""
    if request.param == "http":
        return real, server
    memory = MemoryPrometheus()
    return memory, memory


async def why(prometheus: Prometheus, url: str, query: str = "q") -> str:
    with pytest.raises(NoAnswer) as caught:
        await prometheus.ask(url, query)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    return line


async def test_one_number_or_one_line(pair: tuple[Prometheus, Any], server: Server) -> None:
    prometheus, told = pair
    told.answers.update({"one": [12.5], "none": [], "two": [1.0, 2.0], "sum(a{b='c&d'}[1m])": [3.0], "nan": [float("nan")]})
    told.answers.update({"minus": [-1.0], "inf": [float("inf")], "bad(": "parse error:\n unclosed \x1b[31m paren" + "!" * 500})
    assert await prometheus.ask(server.url, "one") == 12.5
    assert await prometheus.ask(server.url, "sum(a{b='c&d'}[1m])") == 3.0
    assert "gives nothing" in await why(prometheus, server.url, "none")
    assert "gives 2 series" in await why(prometheus, server.url, "two")
    assert "no finite number" in await why(prometheus, server.url, "nan")
    assert "no finite number" in await why(prometheus, server.url, "inf")
    assert "a negative number" in await why(prometheus, server.url, "minus")
    if prometheus is not told:
        assert (await why(prometheus, server.url, "bad(")).startswith(
            "Prometheus refuses the query: parse error: unclosed ?[31m"
        )
        assert server.paths[0].startswith("/base/api/v1/query?query=one")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, "7"]}}, ""),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "no vector and no scalar"),
        ({"status": "success"}, "no vector and no scalar"),
        ({"status": "success", "data": {"resultType": "vector", "result": [7]}}, "no finite number"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, "x"]}}, "no finite number"),
        ({"status": "error"}, "Prometheus refuses the query"),
        ([1], "is no Prometheus (HTTP 200)"),
        (b"<html>secret</html>", "is no Prometheus (HTTP 200)"),
        (b"[" * 100_000, "is no Prometheus (HTTP 200)"),
        (b"1" * (BYTES_MAX + 10), "more than 1 MiB"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_whatever_a_server_answers(server: Server, real: HttpPrometheus, body: Any, said: str) -> None:
    server.raw = lambda handler: say(handler, 200, body)
    if not said:
        assert await real.ask(server.url, "q") == 7.0
        return
    line = await why(real, server.url)
    assert said in line
    assert "secret" not in line


async def test_no_redirect_is_followed(server: Server, real: HttpPrometheus) -> None:
    server.raw = lambda handler: say(handler, 302, b"", location=f"{server.url}elsewhere")
    assert "sends elsewhere (HTTP 302)" in await why(real, server.url)
    assert len(server.paths) == 1


def _silence(handler: BaseHTTPRequestHandler) -> None:
    server = handler.server
    assert isinstance(server, Server)
    server.ending.wait(20)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """What never ends, a byte at a time."""
    server = handler.server
    assert isinstance(server, Server)
    with contextlib.suppress(OSError):
        while not server.ending.wait(0.05):
            handler.wfile.write(b"H")


def _drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    _drip(handler)


@pytest.mark.parametrize("raw", [_silence, _drip, _drip_body])
async def test_who_does_not_answer_in_time_holds_up_nobody(
    server: Server, real: HttpPrometheus, raw: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.raw = raw
    began = time.monotonic()
    lines = await asyncio.gather(*(why(real, server.url) for _ in range(4)))
    assert set(lines) == {f"{urlsplit(server.url).hostname} does not answer within 1 s"}
    assert time.monotonic() - began < 10
    server.raw, server.answers["q"] = None, [1.0]
    assert await real.ask(server.url, "q") == 1.0  # the four threads are free again


async def test_what_is_no_web_server(real: HttpPrometheus) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert "connection refused" in await why(real, f"http://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as speaker:

        def babble() -> None:
            line, _ = speaker.accept()
            with line:
                line.recv(1000)
                line.sendall(b"SSH-2.0-nothing\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        assert "does not speak HTTP" in await why(real, f"http://127.0.0.1:{speaker.getsockname()[1]}")
        thread.join()
    assert (await why(real, "http://nowhere.invalid")).startswith("nowhere.invalid: ")


async def test_https_must_be_of_somebody_known(server: Server, real: HttpPrometheus) -> None:
    assert "TLS: " in await why(real, server.url.replace("http:", "https:"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/", "http://", "http://u:p@a", "http://a/?x=1", "//a"])
async def test_other_urls_are_not_even_tried(real: HttpPrometheus, url: str) -> None:
    assert (await why(real, url)).startswith("its url: found")


@pytest.fixture
def debians(tmp_path: Path) -> Iterator[str]:
    """The URL of Debian's own Prometheus."""
    if shutil.which("prometheus") is None:
        pytest.skip("Debian's prometheus is not installed")
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "prometheus", "--config.file=prometheus.yml",
         f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={url.removeprefix('http://')}"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: _ready(url))
        yield url
    finally:
        process.kill()
        process.wait()


async def test_debians_prometheus_answers(real: HttpPrometheus, debians: str) -> None:
    assert await real.ask(debians, "vector(12.5) * 2") == 25.0
    assert await real.ask(debians, "scalar(vector(3))") == 3.0
    assert "refuses the query: " in await why(real, debians, "sum(")
    assert "gives nothing" in await why(real, debians, "no_such_metric")


def _ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
        return bool(answer.status == 200)
    return False
