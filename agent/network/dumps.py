"""A netlink dump as its datagrams come, for who takes many answers apart at once.

Rules: synchronous; the caller sees to it that nobody else uses the socket meanwhile.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from agent.plan import netlink
from agent.plan.netlink import Request
from model.errors import RuntimeFailed

RECEIVE_BYTES: Final = 1 << 18
_HEAD: Final = struct.Struct("=IH2xI4x")
"""Length, kind and sequence number."""
_DONE_BYTES: Final = 20
"""The end of a dump: alone, or behind the last answers."""


def datagrams(opened: socket.socket, request: Request, sequence: int, about: str) -> list[bytes]:
    """All answers: many in each, with their heads. Raises RuntimeFailed, which begins with `about`, when it is refused."""
    opened.send(netlink.seal(request, sequence))
    found: list[bytes] = []
    while True:
        data = opened.recv(RECEIVE_BYTES)
        _, kind, answered = _HEAD.unpack_from(data)
        if answered != sequence:
            continue
        if kind == netlink.NLMSG_ERROR:
            raise RuntimeFailed(f"{about}: {request.what}: {os.strerror(error_code(data[_HEAD.size :]))}")
        if _HEAD.unpack_from(data, len(data) - _DONE_BYTES) == (_DONE_BYTES, netlink.NLMSG_DONE, sequence):
            return [*found, data[:-_DONE_BYTES]]
        found.append(data)


def error_code(payload: bytes) -> int:
    """Of an answer of the kind NLMSG_ERROR; 0: it was carried out."""
    return -int.from_bytes(payload[:4], "little", signed=True)
