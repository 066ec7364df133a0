"""What a container must not reach or pretend: other networks, the cluster's own daemons, somebody else's address."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness import LabUnderTest, addresses, eventually

STACK = """
services:
  inside:
    image: shoal/web:1.0
    user: root
    init: true
    stop_grace_period: 1s
    networks: [one]
    deploy: {mode: global}
  other:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 1s
    networks: [two]
    deploy: {mode: global}
  shut:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 1s
    networks: [closed]
networks: {one: {}, two: {}, closed: {internal: true}}
"""
CONNECT = """
import json, socket, sys
def reaches(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1.5).close()
        return True
    except OSError:
        return False
print(json.dumps([target for target in sys.argv[1:] if reaches(target)]))
"""
SPOOF = """
import socket, struct, sys
own, wrong, target, gateway_mac = sys.argv[1:5]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
mine = s.getsockname()[4]
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def packet(source, port):
    udp = struct.pack("!HHHH", 9, port, 13, 0) + b"spoof"
    ends = socket.inet_aton(source), socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *ends)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return head + udp
gateway = bytes.fromhex(gateway_mac.replace(":", ""))
for _ in range(20):
    s.send(gateway + mine + b"\\x08\\x00" + packet(wrong, 7001))
    s.send(gateway + b"\\x0a\\xff\\xff\\xff\\xff\\xfe" + b"\\x08\\x00" + packet(own, 7002))
s.send(gateway + mine + b"\\x08\\x00" + packet(own, 7003))
"""
LISTEN = """
import select, socket, json, sys
found = {}
socks = []
for port in (7001, 7002, 7003):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", port)); s.settimeout(20); socks.append(s)
print("listening", flush=True)
socks[2].recv(100)
for number, s in enumerate(socks[:2]):
    s.setblocking(False)
    try:
        while True: s.recv(100); found[number] = found.get(number, 0) + 1
    except BlockingIOError: pass
print(json.dumps(found), flush=True)
"""


def reached(lab: LabUnderTest, replica: str, *targets: str) -> list[str]:
    found: list[str] = json.loads(lab("exec", replica, "python3", "-c", CONNECT, *targets))
    return found


def own(lab: LabUnderTest, service: str, node: str) -> dict[str, Any]:
    return next(row for row in lab.running(service) if row["node"] == node)


def test_containers_reach_neither_other_networks_nor_the_cluster_itself(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "iso")
    status = lab.json("lab", "status", "--name", lab.name)
    nodes = {row["name"]: row["address"] for row in status["nodes"]}
    controller = next(row["address"] for row in status["machines"] if row["role"] == "controller")
    mine, near, far = own(lab, "iso_inside", "n1"), own(lab, "iso_inside", "n2"), own(lab, "iso_other", "n1")
    allowed = [f"{addresses(near)}:8080", "inside:8080"]
    eventually(lambda: reached(lab, mine["name"], *allowed) == allowed, "the own network is reached", 10)
    gateway = lab("exec", far["name"], "cat", "/etc/resolv.conf").split()[1]
    vip = next(iter(lab.json("service", "inspect", "iso_other")[0]["vips"].values()))
    forbidden = [f"{addresses(far)}:8080", f"{gateway}:53", f"{vip}:8080", f"{controller}:7443", f"{controller}:7444"]
    forbidden += [f"{address}:7445" for address in nodes.values()]
    assert reached(lab, mine["name"], *forbidden) == []
    shut = lab.running("iso_shut")[0]["name"]
    eventually(lambda: reached(lab, shut, "shut:8080") == ["shut:8080"], "the internal network itself works", 10)
    assert reached(lab, shut, *forbidden, f"{status['registry']}", *(f"{a}:8080" for a in nodes.values())) == []
    assert reached(lab, mine["name"], f"{status['registry']}") == [f"{status['registry']}"]


def test_spoofed_senders_are_not_delivered(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, STACK, "iso")
    sender, target, neighbour = own(lab, "iso_inside", "n1"), own(lab, "iso_inside", "n2"), own(lab, "iso_inside", "n3")
    words = [sys.executable, "-m", "shoal", "exec", target["name"], "python3", "-c", LISTEN]
    listening = subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    try:
        assert listening.stdout.readline().strip() == "listening"
        gateway = lab("exec", sender["name"], "cat", "/etc/resolv.conf").split()[1]
        lab("exec", sender["name"], "ping", "-c", "1", gateway)
        rows = lab("exec", sender["name"], "ip", "neigh").splitlines()
        mac = next(row.split()[4] for row in rows if row.startswith(f"{gateway} "))
        lab("exec", sender["name"], "python3", "-c", SPOOF, addresses(sender), addresses(neighbour), addresses(target), mac)
        assert json.loads(listening.stdout.readline()) == {}
    finally:
        listening.kill()
        listening.wait()
        listening.stdout.close()
