"""What people see of what is measured: a busy container, a load of connections, top and stats."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

from lab.cluster import Lab
from tests.e2e.harness import ROOT, LabUnderTest, eventually
from tests.e2e.test_e2e_networks import fetched, node_address
from tests.patience import PATIENCE

STACK = """
services:
  web:
    image: shoal/web:1.0
    init: true
    ports: ["8093:8080"]
    deploy: {replicas: 2}
  client:
    image: shoal/web:1.0
    entrypoint: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
"""
LOAD = """
import json, socket, sys, time
host, per_s, seconds, held = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
kept = [socket.create_connection((host, 8080)) for _ in range(held)]
begin, made = time.time(), 0
while time.time() < begin + seconds:
    with socket.create_connection((host, 8080)) as one:
        one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while one.recv(65536): pass
    made += 1
    time.sleep(max(0.0, begin + made / per_s - time.time()))
print(json.dumps({"begin": begin, "end": time.time(), "made": made}))
"""
PER_S, SECONDS, HELD = 20.0, 8.0, 5
SEEN_WITHIN_S = 2.0
BACK = "\x1b[?1049l"
"""How a terminal is put back."""


def history(lab: LabUnderTest, path: str, since_s: float = 0.0) -> Any:
    """Without the start of a process: how soon something is seen is part of the test."""
    with Lab(lab.name).client() as client:
        return client.get(f"{path}/history", since=int(since_s * 1000))


def test_a_load_of_connections_is_seen_within_two_seconds_and_is_right(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "shop")
    eventually(lambda: fetched(f"http://{node_address(lab, 'n1')}:8093/") != "", "web answers", 10)
    path = "/v1/services/shop_web"
    eventually(lambda: history(lab, path)["replicas"][-1:] == [2], "both replicas speak", 10)
    box: list[Any] = []
    words = ("exec", "shop_client.1", "python3", "-c", LOAD, "web", str(PER_S), str(SECONDS), str(HELD))
    load = threading.Thread(target=lambda: box.append(json.loads(lab(*words))))
    before_s = time.time()
    load.start()
    seen = eventually(lambda: first_seen(lab, path, before_s), "the load in the history", 20)
    load.join()
    made = box[0]
    assert seen - made["begin"] < (SEEN_WITHIN_S + 1.0) * PATIENCE, "a second that is over is told within two"
    eventually(lambda: history(lab, path)["at_ms"][-1] > 1000 * made["end"] + 1000, "the end of the load is told", 10)
    told = history(lab, path, made["begin"] - 1.0)
    whole = [row for at, row in zip(told["at_ms"], told["connections_per_s"], strict=True) if inside(at, made)]
    rate = made["made"] / (made["end"] - made["begin"])
    assert abs(sum(whole) / len(whole) - rate) < 0.2 * rate, (whole, made)
    assert abs(sum(told["connections_per_s"]) - made["made"] - HELD) < 0.2 * made["made"], told["connections_per_s"]
    still_open = [row for at, row in zip(told["at_ms"], told["open"], strict=True) if inside(at, made)]
    assert HELD <= min(still_open) <= max(still_open) <= HELD + 2, still_open  # one at a time
    eventually(lambda: history(lab, path)["open"][-1] == 0, "every connection has ended", 10)
    rows = [history(lab, f"/v1/replicas/shop_web.{slot}", made["begin"])["connections_per_s"] for slot in (1, 2)]
    assert all(sum(row) > 0 for row in rows), "both replicas were called"


def inside(at_ms: int, made: Any) -> bool:
    """A second in which the load was on all the time, whatever two nodes' pace."""
    return bool(1000 * (made["begin"] + 2) <= at_ms <= 1000 * (made["end"] - 1))


def first_seen(lab: LabUnderTest, path: str, since_s: float) -> float:
    """When the history first shows the load; 0: not yet."""
    told = history(lab, path, since_s)
    return time.time() if any((row or 0) > PER_S / 4 for row in told["connections_per_s"]) else 0.0


def test_a_busy_container_shows_what_it_burns(lab: LabUnderTest) -> None:
    lab("run", "-d", "--name", "busy", "--cpus", "0.25", "busybox", "sh", "-c", "while :; do :; done")
    lab("run", "-d", "--name", "idle", "busybox", "sleep", "100000")
    found = eventually(lambda: steady(lab, "busy"), "three seconds of full speed", 20 * PATIENCE)
    assert all(0.15 < row < 0.35 for row in found), found
    told = history(lab, "/v1/services/busy")
    assert told["throttled"][-1] > 0.5, "it is held back in most periods"
    assert told["pids"][-1] == 1
    assert max(row or 0.0 for row in history(lab, "/v1/services/idle")["cpu_cores"]) < 0.2
    node = lab.replicas("busy")[0]["node"]
    used = history(lab, f"/v1/nodes/{node}")
    assert used["cpu_cores"][-1] > 0.1, "the node's own figure has it too"
    assert used["memory_bytes"][-1] > 0
    assert 0 < used["disk_used_bytes"][-1] <= used["disk_bytes"][-1]

    table = lab("stats", "--no-stream")
    assert table.split("\n")[0].split()[:3] == ["CONTAINER", "ID", "NAME"]
    rows = {row["name"]: row for row in lab.json("stats")}
    assert set(rows) == {"busy", "idle"}
    assert 5 < rows["busy"]["cpu_percent"] < 40
    assert rows["idle"]["pids"] == 1
    assert lab.call("stats", "--no-stream", "nobody").err.startswith("shoal: no container of nobody runs")

    top = lab.json("top")
    [busy] = [row for row in top["services"] if row["name"] == "busy"]
    assert (busy["running"], busy["wanted"], 0.05 < busy["cpu_cores"] < 0.35) == (1, 1, True)
    assert [row["name"] for row in top["nodes"]] == ["n1", "n2", "n3"]
    text = lab("top", "--once")
    assert "CONN/S" in text
    assert "busy" in text
    live, after, code = on_a_terminal(lab, "busy", "RX/S")
    assert (code, after) == (0, ""), live


def on_a_terminal(lab: LabUnderTest, first: str, second: str) -> tuple[str, str, int]:
    """`shoal top` until it shows `first`, then nodes until `second`, then quit: what it wrote, what after the terminal was put
    back, and its exit code."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "shoal", "top"]
    with subprocess.Popen(command, cwd=ROOT, env=lab.environment, stdin=follower, stdout=follower, stderr=follower) as top:
        os.close(follower)
        try:
            text = until_shown(leader, first)
            os.write(leader, b"n")
            text += until_shown(leader, second)
            os.write(leader, b"q")
            text += until_shown(leader, BACK)
            code = top.wait(10 * PATIENCE)
            with contextlib.suppress(OSError):  # nobody writes any more
                text += os.read(leader, 65536).decode()
        finally:
            top.kill()
            os.close(leader)
    return text, text.rpartition(BACK)[2], code


def until_shown(terminal: int, word: str) -> str:
    text = ""
    end = time.monotonic() + 20 * PATIENCE
    while word not in text:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"waited in vain for {word!r}: {text[-500:]}"
        text += os.read(terminal, 65536).decode()
    return text


def steady(lab: LabUnderTest, name: str) -> list[float]:
    """The newest three seconds, once it runs as fast as it may."""
    with contextlib.suppress(IndexError):
        rows: list[float] = [row or 0.0 for row in history(lab, f"/v1/services/{name}")["cpu_cores"][-3:]]
        return rows if len(rows) == 3 and min(rows) > 0.15 else []
    return []
