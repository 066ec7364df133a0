"""A websocket to a controller that one thread drives: it waits for the socket and for the person's input in one poll.

Rules: one thread, because OpenSSL must not read and write one connection in two at once: a request that is written while the
session tickets behind the TLS handshake are read may vanish. Reading never waits for writing, so a process that answers while
it is fed cannot stop us. What was taken from the person is sent before more is taken.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

_READ_BYTES: Final = 65_536
_PING_S: Final = 20.0
_CLOSE_S: Final = 2.0


class Line:
    """`open_line` makes one. Once `problem` is set it says why nothing more comes."""

    def __init__(self, tls_socket: ssl.SSLSocket, uri: str) -> None:
        tls_socket.setblocking(False)
        self._socket = tls_socket
        self._protocol = ClientProtocol(parse_uri(uri), max_size=None)
        self._unsent = bytearray()
        self._parts: list[bytes] = []
        self._is_text = False
        self._messages: deque[str | bytes] = deque()
        self._heard_s = time.monotonic()
        self._pinged_s = 0.0
        self.answered = False
        self.problem: Exception | None = None

    def shake_hands(self, answer_s: float) -> None:
        """Ask for the websocket. Raises as `open_line`."""
        self._protocol.send_request(self._protocol.connect())
        self._collect()
        until = time.monotonic() + answer_s
        while not self.answered and self.problem is None:
            if time.monotonic() >= until:
                raise TimeoutError
            self.turn(wait_s=until - time.monotonic())
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc
        if self.problem is not None:
            raise self.problem

    def messages(self) -> Iterator[str | bytes]:
        """Takes what has come."""
        while self._messages:
            yield self._messages.popleft()

    def send(self, message: str | bytes) -> None:
        """For the next turns to write; nothing once the line closes."""
        if self._protocol.state is OPEN:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
            self._collect()

    def turn(self, *inputs: int, wait_s: float = _PING_S) -> list[int]:
        """Wait, read and write once; gives those of `inputs` that can be read, none while something is unsent."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        for fd in () if self._unsent else inputs:
            poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(max(0.0, min(wait_s, _PING_S)) * 1000))
        events = ready.pop(self._socket.fileno(), 0)
        try:
            if events & ~select.POLLOUT:
                self._read()
                while self.problem is None and self._socket.pending():  # poll does not see what is decrypted already
                    self._read()
            if self._unsent and self.problem is None:
                self._write()
        except OSError as error:
            self.problem = error
        self._keep_alive()
        return list(ready)

    def close(self) -> None:
        """Say goodbye, wait for the answer for a moment."""
        if self._protocol.state is OPEN:
            self._protocol.send_close()
            self._collect()
        until = time.monotonic() + _CLOSE_S
        while self.problem is None and (left_s := until - time.monotonic()) > 0:
            self.turn(wait_s=left_s)
            self._messages.clear()
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._heard_s, self._pinged_s = time.monotonic(), 0.0
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            else:
                self.answered = True
        self._collect()
        if not data:
            self.problem = self._protocol.close_exc

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._parts.append(bytes(frame.data))
        if frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._messages.append(whole.decode(errors="replace") if self._is_text else whole)

    def _collect(self) -> None:
        for data in self._protocol.data_to_send():
            self._unsent += data

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            self._unsent.clear()  # nobody takes it any more: the exit code may still be there to read, then the end

    def _keep_alive(self) -> None:
        """Ask whether somebody is there when nothing was heard; nobody answering is the end."""
        now_s = time.monotonic()
        if self.problem is not None or self._protocol.state is not OPEN or now_s < max(self._heard_s, self._pinged_s) + _PING_S:
            return
        if self._pinged_s:
            self.problem = TimeoutError()
            return
        self._pinged_s = now_s
        self._protocol.send_ping(b"")
        self._collect()


def open_line(
    host: str, port: int, target: str, tls: ssl.SSLContext, server_name: str, *, connect_s: float, answer_s: float
) -> Line:
    """Raises OSError, WebSocketException; of these InvalidStatus when the controller refuses."""
    plain = socket.create_connection((host, port), connect_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = tls.wrap_socket(plain, server_hostname=server_name)
    except BaseException:
        plain.close()
        raise
    try:
        where = f"[{host}]" if ":" in host else host
        line = Line(secure, f"wss://{where}:{port}{target}")
        line.shake_hands(answer_s)
    except BaseException:
        secure.close()
        raise
    return line
