"""The demo web service answers as its file says. Run as a plain process, on loopback."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "deploy" / "images" / "web" / "app.py"


@dataclass
class Web:
    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()


@pytest.fixture
def web() -> Iterator[Web]:
    env = {"PORT": "0", "SHOAL_REPLICA": "shop_web.3", "SHOAL_NODE": "n2", "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-I", "-S", str(APP)], stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"port (\d+)", process.stdout.readline())
            assert found is not None
            yield Web(process, int(found[1]))
        finally:
            if process.poll() is None:
                process.kill()


def metric(web: Web, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (.+)$", web.get("/metrics")[1], re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_it_says_who_it_is_and_counts(web: Web) -> None:
    assert web.get("/") == (200, "shop_web.3 on n2 (version dev)\n")
    facts = json.loads(web.get("/?format=json")[1])
    assert (facts["replica"], facts["node"], facts["requests"]) == ("shop_web.3", "n2", 1)
    assert metric(web, 'web_requests_total{path="/",status="200"}') == 2
    assert metric(web, "web_request_seconds_count") == 3
    assert metric(web, "process_resident_memory_bytes") > 1 << 20
    assert metric(web, 'web_info{replica="shop_web.3",node="n2",version="dev"}') == 1


def test_it_burns_what_it_is_told(web: Web) -> None:
    before = metric(web, "process_cpu_seconds_total")
    assert web.get("/burn?ms=150") == (200, "shop_web.3 burned 150 ms\n")
    assert 0.1 < metric(web, "process_cpu_seconds_total") - before < 0.6
    before = metric(web, "process_cpu_seconds_total")
    assert web.get("/wait?ms=100")[0] == 200
    assert metric(web, "process_cpu_seconds_total") - before < 0.05


def test_small_answers(web: Web) -> None:
    assert web.get("/healthz") == (200, "ok\n")
    assert "SHOAL_NODE=n2\n" in web.get("/env")[1]
    assert web.get("/nothing")[0] == 404
    assert web.get("/crash?code=x")[0] == 400
    assert web.get("/burn?ms=x")[0] == 200


def test_one_connection_serves_many_requests(web: Web) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    for _ in range(50):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
    connection.close()


def test_crash_ends_it_with_that_code(web: Web) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        web.get("/crash?code=42")
    assert web.process.wait(10) == 42


def test_sigterm_lets_requests_end(web: Web) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
    connection.request("GET", "/wait?ms=400")
    end = time.monotonic() + 10
    while metric(web, "web_requests_running") < 2:  # the waiting one and this one
        assert time.monotonic() < end
    web.process.send_signal(signal.SIGTERM)
    assert connection.getresponse().read() == b"shop_web.3 waited 400 ms\n"
    connection.close()
    assert web.process.wait(10) == 0
