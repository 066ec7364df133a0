"""Sockets that hold the node's published ports, so that no other program takes them and a taken one is found.

Rules: nobody listens on them, packets are translated before they would arrive here. A socket is bound without SO_REUSEADDR,
else a program that sets it could bind beside it. A protocol without sockets in this kernel (SCTP) and an address this node does
not have are not held.
"""

from __future__ import annotations

import errno
import logging
import socket
from dataclasses import dataclass
from typing import Final

from model.errors import Conflict

log = logging.getLogger(__name__)
_IPPROTO_SCTP: Final = 132
_KINDS: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, _IPPROTO_SCTP),
}
OTHER: Final = "another program on this node"

Port = tuple[str, str, int]
"""(protocol, host address or empty, number)"""


@dataclass(slots=True)
class _Hold:
    owner: str
    name: str
    socket: socket.socket | None


class PortHolder:
    """Holds ports for owners; `name` is what a person calls one."""

    def __init__(self) -> None:
        self._holds: dict[Port, _Hold] = {}

    def hold(self, port: Port, owner: str, name: str, *, must_exist: bool = False) -> None:
        """Raises Conflict naming who has it; `must_exist`: also when this node has no such address."""
        held = self._holds.get(port)
        if held is not None and held.owner == owner:
            return
        if (other := self._holder_of(port)) is not None:
            raise Conflict(f"{text(port)} of this node is taken by {other}")
        self._holds[port] = _Hold(owner, name, _bound(port, must_exist))

    def release(self, port: Port, owner: str) -> None:
        held = self._holds.get(port)
        if held is not None and held.owner == owner:
            del self._holds[port]
            if held.socket is not None:
                held.socket.close()

    def close(self) -> None:
        for port, held in list(self._holds.items()):
            self.release(port, held.owner)

    def _holder_of(self, port: Port) -> str | None:
        """Who of ours has the port, on the same address or on all."""
        protocol, host_ip, number = port
        rows = [port, (protocol, "", number)] if host_ip else [p for p in self._holds if (p[0], p[2]) == (protocol, number)]
        return next((self._holds[row].name for row in rows if row in self._holds), None)


def text(port: Port) -> str:
    """As people write it."""
    protocol, host_ip, number = port
    return f"port {f'{host_ip}:' if host_ip else ''}{number}/{protocol}"


def _bound(port: Port, must_exist: bool) -> socket.socket | None:
    protocol, host_ip, number = port
    kind, proto = _KINDS[protocol]
    made = None
    try:
        made = _open(host_ip, kind, proto)
        made.bind((host_ip or ("::" if made.family == socket.AF_INET6 else ""), number))
    except OSError as error:
        if made is not None:
            made.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"{text(port)} of this node is taken by {OTHER}") from None
        if error.errno == errno.EADDRNOTAVAIL and must_exist:
            raise Conflict(f"{text(port)} cannot be published: this node has no address {host_ip}") from None
        if error.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EADDRNOTAVAIL):
            log.warning("%s is published, but cannot be held: %s", text(port), error.strerror)
        return None
    return made


def _open(host_ip: str, kind: int, proto: int) -> socket.socket:
    """One socket for both families where there is no particular address."""
    family = socket.AF_INET if host_ip and ":" not in host_ip else socket.AF_INET6
    try:
        made = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    except OSError as error:
        if host_ip or error.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, proto)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host_ip)))
    if kind == socket.SOCK_DGRAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return made
