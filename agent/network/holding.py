"""Callers of sleeping services: noticed in netfilter's log, counted, told.

Rules: the kernel drops what they send (agent/plan/balance_rules.py), and they send again: a TCP client every second at first.
Nothing is answered in a service's name by this node, so a client sees its replica only, as the replica sees the client.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from agent.network.dumps import error_code
from agent.network.nfnl import NETLINK_NETFILTER
from agent.plan import netlink, netlink_read, nflog
from agent.plan.held import HeldBook
from model.ports import Clock

log = logging.getLogger(__name__)
_RECEIVE_BYTES: Final = 1 << 17
_PACKET_BYTES: Final = 80
_READS: Final = 100


class CallLog:
    """The packets that the rules log, from its making in the running loop until `close`. `called(link, call)`: `link` is the
    name of the interface, empty for this node's own."""

    def __init__(self, group: int, called: Callable[[str, nflog.Call], None]) -> None:
        self._called = called
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, 0))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._socket.send(netlink.seal(nflog.listen(group, _PACKET_BYTES), 1))

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_READS):
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # too many at once: they send again
                log.debug("log of packets: %s", error.strerror)
                return
            for kind, _, payload in netlink_read.messages(data):
                if kind == netlink.NLMSG_ERROR and (code := error_code(payload)):
                    log.warning("who calls a sleeping service is not noticed: netfilter's log: error %d", code)
                elif kind == nflog.MSG_PACKET and (call := nflog.parse(payload)) is not None:
                    self._called(_name(call.link), call)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return ""


class Holding:
    """Counts those who wait. `sleeps(service id)`: whether it still does."""

    def __init__(self, sleeps: Callable[[str], bool], clock: Clock) -> None:
        self._sleeps = sleeps
        self._clock = clock
        self._book = HeldBook()
        self._news = asyncio.Event()

    def called(self, service_id: str, caller: Hashable) -> None:
        """A packet of `caller`; of no service when the id is empty."""
        if service_id:
            self._book.took(service_id, caller, self._clock.monotonic())
            self._news.set()

    def look(self) -> None:
        """Some service may have woken."""
        for service_id in self._book.services():
            if not self._sleeps(service_id):
                self._book.released(service_id)
                self._news.set()

    async def changed(self, beyond: Mapping[str, int]) -> dict[str, int]:
        """The next numbers that are not those of `beyond`."""
        while (waiting := self._book.waiting(self._clock.monotonic())) == beyond:
            self._news.clear()
            until_s = self._book.wake_at_s()
            timer = None
            if until_s is not None:
                in_s = max(0.0, until_s - self._clock.monotonic())
                timer = asyncio.get_running_loop().call_later(in_s, self._news.set)
            try:
                await self._news.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        return waiting
