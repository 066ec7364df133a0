"""A DNS client of a few lines that runs inside a container of `shoal/web`: every kind of question, by UDP and by TCP.

Rules: nothing of ours reads the answers, so that a mistake in our own writing of them is not forgiven by our own reading.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.e2e.harness import LabUnderTest

_ASK = """
import json, socket, struct, sys
KINDS = {"A": 1, "PTR": 12, "AAAA": 28, "SRV": 33, "TXT": 16}
def name_at(data, at):
    labels, end = [], 0
    while size := data[at]:
        if size >= 0xC0:
            end, at = end or at + 2, (size & 0x3F) << 8 | data[at + 1]
        else:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
    return ".".join(labels), end or at + 1
def value(data, at, kind, size):
    if kind in (1, 28): return socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data[at : at + size])
    if kind == 12: return name_at(data, at)[0]
    if kind == 33: return "%d %d %d " % struct.unpack_from("!3H", data, at) + name_at(data, at + 6)[0]
    return data[at : at + size].hex()
def read(data):
    number, flags, questions, answers, authorities, more = struct.unpack_from("!6H", data)
    assert (number, questions) == (4711, 1) and flags & 0x8000
    at, rows = name_at(data, 12)[1] + 4, []
    for _ in range(answers + authorities + more):
        name, at = name_at(data, at)
        kind, _, _, size = struct.unpack_from("!HHIH", data, at)
        rows.append(value(data, at + 10, kind, size))
        at += 10 + size
    assert at == len(data)
    return {"code": flags & 15, "cut": bool(flags & 0x200), "rows": sorted(rows[:answers]), "more": sorted(rows[answers:])}
def whole(s, size):
    data = b""
    while len(data) < size: data += s.recv(size - len(data)) or sys.exit("the connection ended")
    return data
def ask(server, way, kind, name):
    words = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    packet = struct.pack("!6H", 4711, 0x100, 1, 0, 0, 0) + words + b"\\0" + struct.pack("!HH", KINDS[kind], 1)
    six = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(six, socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((server, 53))
        if way == "udp":
            s.send(packet)
            return read(s.recv(65535))
        s.sendall(struct.pack("!H", len(packet)) + packet)
        return read(whole(s, struct.unpack("!H", whole(s, 2))[0]))
server = sys.argv[1] or open("/etc/resolv.conf").read().split("nameserver")[1].split()[0]
print(json.dumps([ask(server, *words.split()) for words in sys.argv[2:]]))
"""


class Answer(NamedTuple):
    """`rows` and `more`: values of the answers and of the additional records, sorted."""

    code: int
    cut: bool
    rows: list[str]
    more: list[str]


def asked(lab: LabUnderTest, replica: str, *questions: str, server: str = "") -> list[Answer]:
    """Answers to questions like `udp SRV _80._tcp.web` from inside a replica; of its own name server unless told."""
    found = json.loads(lab("exec", replica, "python3", "-c", _ASK, server, *questions))
    return [Answer(**row) for row in found]
