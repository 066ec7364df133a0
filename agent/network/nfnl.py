"""Netfilter's netlink socket: the generation of the rules, and connections of the network namespace it was made in.

Rules: synchronous and short, called in threads, several at a time (each socket has its lock). Every request is answered; the
first refusal raises after all answers were read.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

from agent.network.dumps import RECEIVE_BYTES, datagrams, error_code
from agent.plan import netlink, netlink_read, nfnl
from agent.plan.balance_rules import OPEN
from agent.plan.netlink import Request
from agent.plan.nfnl import Connection, Side
from model.errors import RuntimeFailed

NETLINK_NETFILTER: Final = 12
_BATCH: Final = 200


class Nfnetlink:
    """One socket."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        self._socket.close()

    def generation(self) -> int:
        """The number that every change of nftables rules by anybody increases."""
        request = nfnl.get_generation()
        with self._lock:
            self._begin([request])
            while True:
                for kind, sequence, payload in netlink_read.messages(self._socket.recv(RECEIVE_BYTES)):
                    if sequence == self._sequence:
                        _refused(request, kind, payload)
                        return nfnl.parse_generation(payload)

    def dump(self, request: Request) -> list[bytes]:
        """Payloads of all answers."""
        return [payload for data in self.datagrams(request) for _, _, payload in netlink_read.messages(data)]

    def datagrams(self, request: Request) -> list[bytes]:
        """All answers to a dump as they come: many in each, with their heads."""
        with self._lock:
            self._sequence += 1
            return datagrams(self._socket, request, self._sequence, "netfilter")

    def send(self, requests: Sequence[Request]) -> int:
        """Perform all of them; gives how many the kernel carried out (the others had nothing to do)."""
        done = 0
        for start in range(0, len(requests), _BATCH):
            done += self._exchange(requests[start : start + _BATCH])
        return done

    def _exchange(self, batch: Sequence[Request]) -> int:
        with self._lock:
            waiting = self._begin(batch)
            done, problems = 0, []
            while waiting:
                for kind, sequence, payload in netlink_read.messages(self._socket.recv(RECEIVE_BYTES)):
                    request = waiting.pop(sequence, None) if kind == netlink.NLMSG_ERROR else None
                    if request is None:
                        continue
                    code = error_code(payload)
                    done += not code
                    if code and code not in request.ignore:
                        problems.append(f"{request.what}: {os.strerror(code)}")
        if problems:
            raise RuntimeFailed(f"netfilter: {problems[0]}")
        return done

    def _begin(self, batch: Sequence[Request]) -> dict[int, Request]:
        waiting = {self._sequence + 1 + place: request for place, request in enumerate(batch)}
        self._sequence += len(batch)
        self._socket.send(b"".join(netlink.seal(request, sequence) for sequence, request in waiting.items()))
        return waiting


class Conntrack:
    """The connections the node's kernel tracks. Addresses are IPv4 or IPv6, without prefix length."""

    def __init__(self) -> None:
        self._socket = Nfnetlink()
        self._passing = Nfnetlink()  # a pass takes long: others need not wait for it

    def delete(
        self,
        protocol: int,
        *,
        reply_source: str,
        reply_source_port: int = 0,
        original_target: str = "",
        original_target_port: int = 0,
    ) -> int:
        """Forget the connections that go to `reply_source` (after translation), of them only those that were addressed to
        `original_target`; gives how many. UDP has no end of its own: without this a client that keeps its port stays with a
        replica that is gone."""
        original = Side(target=original_target, target_port=original_target_port)
        reply = Side(source=reply_source, source_port=reply_source_port)
        return self._socket.send([nfnl.delete_connection(found) for found in self._found(protocol, original, reply)])

    def delete_where(self, protocol: int, original: Side, chosen: Callable[[Connection], bool], *, six: bool = False) -> int:
        """Forget those that `chosen` says of all that were addressed like `original`; gives how many."""
        payloads = self._socket.dump(nfnl.dump_connections(protocol, original, six=six))
        found = [c for c in map(nfnl.parse_connection, payloads) if nfnl.concerns(c, original, Side()) and chosen(c)]
        return self._socket.send([nfnl.delete_connection(connection) for connection in found])

    def open_connections(self, addresses: Iterable[str]) -> dict[str, int]:
        """How many TCP connections to each of these addresses are open, whether it was connected to itself or by a service's
        address. Those the replica has already closed on its side do not count."""
        return {address: self._open(address) for address in dict.fromkeys(addresses)}

    def _open(self, address: str) -> int:
        found = self._found(nfnl.TCP, Side(target=address), Side()) + self._found(nfnl.TCP, Side(), Side(source=address))
        return len({connection.original for connection in found if connection.open})

    def balanced(self, *, six: bool) -> dict[str, int]:
        """How many open TCP connections this node's balancer has sent to each address, in one pass over the kernel's table, of
        those that its table has marked as open. `six`: IPv6 ones, too."""
        answers = self._passing.datagrams(nfnl.dump_balanced(OPEN, six=six))
        return dict(Counter(chain.from_iterable(map(nfnl.parse_balanced, answers))))

    def _found(self, protocol: int, original: Side, reply: Side) -> list[Connection]:
        payloads = self._socket.dump(nfnl.dump_connections(protocol, original, reply))
        found = map(nfnl.parse_connection, payloads)
        return [connection for connection in found if nfnl.concerns(connection, original, reply)]

    def close(self) -> None:
        self._socket.close()
        self._passing.close()


def _refused(request: Request, kind: int, payload: bytes) -> None:
    if kind == netlink.NLMSG_ERROR:
        raise RuntimeFailed(f"netfilter: {request.what}: {os.strerror(error_code(payload))}")
