"""TLS connections on the controller's loop, for thousands of them: a non-blocking socket each, little kept while it is quiet.

Rules: mutual TLS 1.2 or newer, HTTP/2 by ALPN. OpenSSL works on the socket itself and gives its buffers back when they are
empty: 25 kB a connection. Only so many have a turn in one round of the loop: who renews a lease must not wait for a thousand
heartbeats, and only so many shake hands at the same time. Whoever does not do so in time is cut off. A peer that is gone
without a word is found by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from controller.api.server import tls_context
from controller.pki import Pki

log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
PAUSE_S: Final = 1.0
ACCEPTED_AT_ONCE: Final = 16
TURNS_AT_ONCE: Final = 64
SHAKING_TURNS: Final = 16
"""A step of a handshake takes 0.7 ms, as long as so many heartbeats."""
SHAKING_MAX: Final = 256
"""Of a thousand that come at once the first ones are done while the last ones wait, where they cost nothing: all of them at the
same time would take so long that each begins again."""
READ_BYTES: Final = 65_536
UNSENT_BYTES_MAX: Final = 256 << 20
"""A peer that asks and asks and reads nothing."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
SILENT_MS: Final = 30_000
"""So long what was sent may stay without an answer of the peer's kernel."""
_LATER: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_buffer: Final = bytearray(READ_BYTES)
"""Of all connections: what is read is taken out at once."""
_view: Final = memoryview(_buffer)


def context_of(pki: Pki) -> ssl.SSLContext:
    """Of a server whose clients all have a certificate of the cluster's CA."""
    context = tls_context(pki)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    context.num_tickets = 0  # nobody resumes a session: a broken one is dialled anew
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return context


class Links:
    """The sockets of all connections, watched as one by the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._links: dict[int, Link] = {}
        self._begun: set[Link] = set()
        """Those that have not shaken hands."""
        self._waiting: Callable[[], None] | None = None
        self._read_until = self._marked = self._loop.time()
        self._handled = self._settling = 0
        """Sockets that had a turn since `_marked`; turns whose words may not have reached who waits for them."""
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, number: int, link: Link, *, out: bool = False) -> None:
        """`out`: also until there is room to send."""
        events = select.EPOLLIN | select.EPOLLRDHUP | (select.EPOLLOUT if out else 0)
        if number in self._links:
            self._epoll.modify(number, events)
        else:
            self._links[number] = link
            self._epoll.register(number, events)

    def forget(self, number: int) -> None:
        if self._links.pop(number, None) is not None:
            self._epoll.unregister(number)

    def begun(self, link: Link) -> None:
        """It is going to shake hands."""
        self._begun.add(link)

    def settled(self, link: Link) -> None:
        """It has, or is closed."""
        self._begun.discard(link)
        act = self._waiting
        if act is not None and not self.full:
            self._waiting = None
            act()

    @property
    def full(self) -> bool:
        return len(self._begun) >= SHAKING_MAX

    def when_not_full(self, act: Callable[[], None] | None) -> None:
        """`act()` as soon as another one can begin; None: never mind."""
        self._waiting = act

    def read_until(self) -> float:
        """A moment, in monotonic seconds: what had come by then was read, and whoever waits for it has had a turn."""
        if not self._settling and not self._epoll.poll(0, 1):
            self._read_until = self._loop.time()
        return self._read_until

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """`act()` in so many seconds."""
        return self._loop.call_later(seconds, act)

    def close(self) -> None:
        """When all connections are closed."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        began, left = self._loop.time(), TURNS_AT_ONCE
        found = self._epoll.poll(0, TURNS_AT_ONCE)
        for number, events in found:
            self._handled += 1
            link = self._links.get(number)
            if link is None:
                continue
            if events & select.EPOLLRDHUP and not link.shaken:
                link.close()  # it has waited for too long already: shaking hands would be for nobody
                continue
            if events & select.EPOLLOUT:
                link.writable()
            left -= 1 if link.shaken else SHAKING_TURNS
            if events & ~select.EPOLLOUT:
                link.readable()
            if left <= 0:
                break  # the kernel names the others again in the next round
        else:
            if len(found) < TURNS_AT_ONCE:
                self._has_read(began)
                return
        if self._handled > 2 * len(self._links):  # the kernel names in turn who is always ready: everybody was named meanwhile
            self._has_read(self._marked)

    def _has_read(self, until: float) -> None:
        self._marked, self._handled = self._loop.time(), 0
        self._settling += 1
        self._loop.call_soon(self._loop.call_soon, self._settled_until, until)  # who waits for it is called in the next round

    def _settled_until(self, moment: float) -> None:
        self._settling -= 1
        self._read_until = moment


class Link:
    """One connection. What inherits from it says what happens then: `opened`, `received`, `drained`, `lost`."""

    __slots__ = ("_closed", "_handshake", "_links", "_number", "_socket", "_unsent")

    def __init__(self, wrapped: ssl.SSLSocket, links: Links) -> None:
        """The socket does not block and has not shaken hands."""
        self._socket = wrapped
        self._number = wrapped.fileno()
        self._links = links
        self._unsent: deque[bytes] | None = None
        self._closed = False
        self._handshake: asyncio.TimerHandle | None = links.later(HANDSHAKE_S, self.close)
        links.begun(self)
        links.watch(self._number, self)

    # ---- for whoever inherits

    def opened(self) -> None:
        """The peer is who its certificate says."""

    def received(self, data: bytes) -> None:
        """Something came."""

    def drained(self) -> None:
        """Everything that was sent is on its way."""

    def lost(self) -> None:
        """It is over, whoever ended it."""

    # ---- for whoever uses it

    @property
    def shaken(self) -> bool:
        """Hands were shaken: something can be sent."""
        return self._handshake is None

    @property
    def quiet(self) -> bool:
        """Nothing waits to be sent."""
        return self._unsent is None

    def certificate(self) -> bytes:
        """The peer's, DER."""
        return self._socket.getpeercert(binary_form=True) or b""

    def where(self) -> str:
        with contextlib.suppress(OSError):
            host, port, *_ = self._socket.getpeername()
            return f"{host}:{port}"
        return "gone"

    def send(self, data: bytes) -> None:
        if self._closed:
            return
        if self._unsent is not None:
            self._unsent.append(data)
            if sum(map(len, self._unsent)) > UNSENT_BYTES_MAX:
                self.close()
            return
        try:
            self._socket.send(data)
        except _LATER:
            self._unsent = deque((data,))  # OpenSSL wants the same bytes again
            self._links.watch(self._number, self, out=True)
        except OSError:
            self.close()

    def end(self) -> None:
        """Says that nothing more comes: the peer reads what was sent and closes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._links.forget(self._number)
        self._settled()
        self._unsent = None
        self._socket.close()
        self.lost()

    # ---- the socket

    def readable(self) -> None:
        """One record, and what OpenSSL has read beside it: for more there is another turn."""
        if self._handshake is not None and not self._shaken():
            return
        while self._read() and self._socket.pending():
            pass

    def writable(self) -> None:
        if self._handshake is not None:
            self.readable()
            return
        while self._unsent:
            try:
                self._socket.send(self._unsent[0])
            except _LATER:
                return
            except OSError:
                self.close()
                return
            self._unsent.popleft()
        if not self._closed:
            self._unsent = None
            self._links.watch(self._number, self)
            self.drained()

    def _shaken(self) -> bool:
        try:
            self._socket.do_handshake()
        except _LATER as error:
            self._links.watch(self._number, self, out=isinstance(error, ssl.SSLWantWriteError))
            return False
        except (OSError, ValueError):
            self.close()
            return False
        self._settled()
        self._links.watch(self._number, self)
        self.opened()
        return not self._closed

    def _settled(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
            self._links.settled(self)

    def _read(self) -> bool:
        try:
            size = self._socket.recv_into(_buffer)
        except _LATER:
            return False
        except (OSError, ValueError):
            size = 0
        if size:
            self.received(bytes(_view[:size]))
        else:
            self.close()
        return not self._closed


def taken_in(plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection that was accepted, as a Link wants it. Raises OSError."""
    plain.setblocking(False)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS)
    for option, value in KEEPALIVE:
        plain.setsockopt(socket.IPPROTO_TCP, option, value)
    return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)


class Listener:
    """Takes in connections, as many as can shake hands now. `made(socket)` makes a Link of `links` of each; it may raise
    OSError."""

    def __init__(self, listening: socket.socket, links: Links, made: Callable[[socket.socket], object]) -> None:
        self._socket = listening
        self._links = links
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._go_on()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._links.when_not_full(None)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._links.full:
                self._loop.remove_reader(self._socket.fileno())
                self._links.when_not_full(self._go_on)
                return
            try:
                plain, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or memory left: who waits is taken in when there is
                log.warning("no connection can be taken in: %s: trying again in %g s", error.strerror, PAUSE_S)
                self._loop.remove_reader(self._socket.fileno())
                self._pause = self._loop.call_later(PAUSE_S, self._go_on)
                return
            try:
                self._made(plain)
            except OSError:
                plain.close()
