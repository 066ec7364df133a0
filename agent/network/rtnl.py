"""A route netlink socket: sends batches of requests, reads their answers. Synchronous and short: called in a thread.

Rules: a socket belongs to the network namespace it was made in. Every request is acknowledged; the first refusal raises,
after all answers were read, so that the next batch starts clean.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final

from agent.network.dumps import RECEIVE_BYTES, datagrams, error_code
from agent.plan import netlink, netlink_read
from agent.plan.netlink import Request
from agent.plan.netlink_read import Link, NeighbourRow, RouteRow
from model.errors import RuntimeFailed

_BATCH_BYTES: Final = 32_000


class Netlink:
    """`with Netlink() as nl: nl.send([...])` in the namespace of the calling thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Perform all of them, in order. Raises RuntimeFailed naming the first that was refused."""
        batch: list[tuple[int, Request]] = []
        size = 0
        problems: list[str] = []
        for request in requests:
            self._sequence += 1
            batch.append((self._sequence, request))
            size += 16 + len(request.payload)
            if size > _BATCH_BYTES:
                problems += self._exchange(batch)
                batch, size = [], 0
        if batch:
            problems += self._exchange(batch)
        if problems:
            raise RuntimeFailed(f"network: {problems[0]}")

    def _exchange(self, batch: Sequence[tuple[int, Request]]) -> list[str]:
        self._socket.send(b"".join(netlink.seal(request, sequence) for sequence, request in batch))
        waiting = dict(batch)
        problems = []
        while waiting:
            for kind, sequence, payload in netlink_read.messages(self._socket.recv(RECEIVE_BYTES)):
                if kind != netlink.NLMSG_ERROR:
                    continue
                request = waiting.pop(sequence, None)
                code = error_code(payload)
                if request is not None and code and code not in request.ignore:
                    problems.append(f"{request.what}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
        return problems

    def dump(self, request: Request) -> list[bytes]:
        """Payloads of all answers of a dump."""
        self._sequence += 1
        self._socket.send(netlink.seal(request, self._sequence))
        found: list[bytes] = []
        while True:
            for kind, sequence, payload in netlink_read.messages(self._socket.recv(RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                if kind == netlink.NLMSG_DONE:
                    return found
                if kind == netlink.NLMSG_ERROR:
                    code = error_code(payload)
                    raise RuntimeFailed(f"network: {request.what}: {os.strerror(code)}")
                found.append(payload)

    def link_counts(self) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """Indexes of all links, and of each the bytes that it received and sent. Raises RuntimeFailed when the kernel cannot
        say that, or says it in another shape."""
        self._sequence += 1
        answers = datagrams(self._socket, netlink.dump_link_counts(), self._sequence, "network")
        try:
            return netlink_read.parse_link_counts(b"".join(answers))
        except ValueError as error:
            raise RuntimeFailed(f"network: {error}") from None

    def links(self) -> dict[str, Link]:
        """Every link of the namespace, by name."""
        parsed = (netlink_read.parse_link(payload) for payload in self.dump(netlink.dump_links()))
        return {link.name: link for link in parsed}

    def addresses(self, family: int = netlink.AF_INET) -> list[tuple[int, str]]:
        """(link index, address/prefix) of the namespace; AF_UNSPEC gives both families."""
        return [netlink_read.parse_address(payload) for payload in self.dump(netlink.dump_addresses(family))]

    def routes(self, family: int = netlink.AF_INET) -> list[RouteRow]:
        """Every route, of all tables."""
        return [netlink_read.parse_route(payload) for payload in self.dump(netlink.dump_routes(family))]

    def neighbours(self, family: int = netlink.AF_INET) -> list[NeighbourRow]:
        """Neighbour entries; with AF_BRIDGE the forwarding tables."""
        return [netlink_read.parse_neighbour(payload) for payload in self.dump(netlink.dump_neighbours(family))]

    def index(self, name: str) -> int:
        """A link's index in the calling thread's namespace; 0 when there is none."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return 0
