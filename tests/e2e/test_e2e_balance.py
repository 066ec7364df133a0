"""Services' addresses and published ports under way: nothing is lost while replicas come and go."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from bench.callers import Callers
from tests.e2e.harness import LabUnderTest, eventually
from tests.e2e.test_e2e_networks import fetched, node_address

REQUESTS = 10_000
STACK = """
services:
  web:
    image: shoal/web:VERSION
    init: true
    ports: ["8091:8080"]
    healthcheck:
      test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/healthz"]
      interval: 1s
      start_period: 20s
      start_interval: 200ms
    deploy: {replicas: 4, update_config: {parallelism: 1, monitor: 100ms}}
  client:
    image: shoal/web:1.0
    entrypoint: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
"""
ASK = """
import http.client, json, sys, threading
count, threads, host, port, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
seen, failed, lock = {}, [], threading.Lock()
def ask():
    for _ in range(count // threads):
        try:
            connection = http.client.HTTPConnection(host, port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode().split()[0]
            connection.close()
            assert answer.status == 200, answer.status
            with lock: seen[text] = seen.get(text, 0) + 1
        except Exception as error:
            with lock: failed.append(repr(error))
workers = [threading.Thread(target=ask) for _ in range(threads)]
[w.start() for w in workers]; [w.join() for w in workers]
print(json.dumps({"seen": seen, "failed": failed}))
"""


def ask(lab: LabUnderTest, replica: str, count: int, host: str, port: int = 8080, path: str = "/", threads: int = 4) -> Any:
    """What `count` requests from inside a container saw: {"seen": {replica: answers}, "failed": [reasons]}."""
    words = ("python3", "-c", ASK, str(count), str(threads), host, str(port), path)
    return json.loads(lab("exec", replica, *words, timeout=200))


def test_a_rolling_restart_under_ten_thousand_requests_fails_none(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK.replace("VERSION", "1.0"), "shop")
    nodes = [node_address(lab, name) for name in ("n1", "n2", "n3")]
    for node in nodes:
        eventually(lambda node=node: fetched(f"http://{node}:8091/") != "", f"published on {node}", 10)  # type: ignore[misc]
    before = {row["name"]: row["container_id"] for row in lab.running("shop_web")}
    box: list[Any] = []
    inside = threading.Thread(target=lambda: box.append(ask(lab, "shop_client.1", REQUESTS // 2, "web")))
    inside.start()
    versions = iter(("2.0", "1.0", "2.0", "1.0", "2.0", "1.0", "2.0", "1.0"))
    rounds = 0
    with Callers(nodes, 8091, threads=1, pause_s=0.0, total=REQUESTS // 2) as outside:
        while (inside.is_alive() or outside.busy()) and (version := next(versions, None)):
            lab.apply(tmp_path, STACK.replace("VERSION", version), "shop")
            rounds += 1
        outside.join()
    inside.join()
    after = {row["name"]: row["container_id"] for row in lab.running("shop_web")}
    assert rounds >= 1
    assert set(before) == set(after)
    assert rounds > 1 or not set(before.values()) & set(after.values())
    assert (box[0]["failed"], outside.failed) == ([], [])
    assert sum(box[0]["seen"].values()) == REQUESTS // 2


def waiting(lab: LabUnderTest) -> int:
    """Established connections of the client that are under way."""
    return lab("exec", "shop_client.1", "netstat", "-tn").count("ESTABLISHED")


def test_spread_counts_and_an_open_request_survives_its_replicas_end(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK.replace("VERSION", "1.0"), "shop")
    eventually(lambda: ask(lab, "shop_client.1", 4, "web")["failed"] == [], "web answers", 10)
    seen = ask(lab, "shop_client.1", 400, "web")["seen"]
    assert set(seen) == {f"shop_web.{slot}" for slot in range(1, 5)}
    assert min(seen.values()) > 50
    told = lab.json("service", "traffic", "shop_web")
    assert sum(row["connections"] for row in told["replicas"]) >= 400

    box: list[Any] = []
    slow = threading.Thread(target=lambda: box.append(ask(lab, "shop_client.1", 8, "web", path="/wait?ms=3000", threads=8)))
    slow.start()
    eventually(lambda: waiting(lab) > 0, "requests under way", 5)
    lab("service", "scale", "shop_web=1")
    slow.join()
    assert box[0]["failed"] == []


def test_the_clients_address_is_kept_where_the_replica_is_local(lab: LabUnderTest, tmp_path: Path) -> None:
    program = (
        "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n def do_GET(s):\n"
        "  s.send_response(200); s.end_headers(); s.wfile.write(s.client_address[0].encode())\n"
        "h.HTTPServer(('', 8080), H).serve_forever()"
    )
    text = f"""
services:
  seen:
    image: shoal/web:1.0
    init: true
    entrypoint: {json.dumps(["python3", "-c", program])}
    ports: [{{target: 8080, published: 8092, mode: host}}, {{target: 8080, published: 8093, x-ingress: local}}]
    stop_grace_period: 1s
    deploy: {{placement: {{constraints: ["node.hostname == n2"]}}}}
"""
    lab.apply(tmp_path, text, "who")
    here = node_address(lab, "n2")
    machine = ".".join(here.split(".")[:3]) + ".1"
    for port in (8092, 8093):
        eventually(lambda port=port: fetched(f"http://{here}:{port}/") == machine, f"own address seen on {port}", 10)  # type: ignore[misc]
        assert fetched(f"http://{node_address(lab, 'n1')}:{port}/") == ""


def test_large_datagrams_cross_whole_and_udp_ports_are_published(lab: LabUnderTest, tmp_path: Path) -> None:
    echo = (
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('',9000))\n"
        "while True:\n d,a=s.recvfrom(65535)\n s.sendto(d,a)"
    )
    ping = (
        "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(3)\n"
        "d=bytes(60000); s.sendto(d,(sys.argv[1],int(sys.argv[2]))); assert s.recvfrom(65535)[0]==d"
    )
    text = f"""
services:
  echo:
    image: shoal/web:1.0
    init: true
    entrypoint: {json.dumps(["python3", "-c", echo])}
    ports: ["9053:9000/udp"]
    stop_grace_period: 1s
    deploy: {{placement: {{constraints: ["node.hostname == n1"]}}}}
  client:
    image: shoal/web:1.0
    entrypoint: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
    deploy: {{mode: global}}
"""
    lab.apply(tmp_path, text, "big")
    for node in ("n1", "n2", "n3"):
        client = f"big_client.{node}"
        for name, port in (("echo", 9000), ("echo.1", 9000), (node_address(lab, node), 9053)):
            eventually(
                lambda c=client, n=name, p=port: lab.call("exec", c, "python3", "-c", ping, n, str(p)).code == 0,  # type: ignore[misc]
                f"60,000 bytes from {client} to {name}", 10,
            )
