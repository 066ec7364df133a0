"""The server's side of one HTTP/2 connection that carries gRPC: bytes in, streams with whole messages and bytes out. Pure.

Rules: `receive` takes what the wire gave and says which streams have something new; whoever looks finds the newest state in
the stream itself. Whoever does not read his messages gets no room for more. A peer that breaks the rules loses the connection.
Numbers are those of RFC 9113 and of gRPC's own description of its wire.
"""

from __future__ import annotations

import struct
from typing import Final
from urllib.parse import quote

from controller.dispatch.hpack import Decoder, Header, HpackError, literal

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES: Final = 1 << 20
"""So much a peer may send that nobody has read."""
STREAMS_MAX: Final = 8
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _FRAME_SIZE_ERROR, _REFUSED_STREAM, _COMPRESSION_ERROR = 1, 3, 6, 7, 9
_INITIAL_WINDOW, _FRAME_MAX = 4, 5
_FRAME_BYTES: Final = 16_384
_WINDOW_FIRST: Final = 65_535
_WINDOW_MAX: Final = (1 << 31) - 1
_ANSWER: Final = b"\x88" + literal(b"content-type", b"application/grpc")
"""`:status 200`, which every answer of gRPC has."""
_PLAIN: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Http2Error(Exception):
    """The peer breaks the rules: nothing more can be said on this connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame of a stream; of stream 0 it concerns the connection."""
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream) + body


def _greeting() -> bytes:
    settings = struct.pack(">HIHI", 3, STREAMS_MAX, _INITIAL_WINDOW, WINDOW_BYTES)
    more = struct.pack(">I", WINDOW_BYTES - _WINDOW_FIRST)
    return frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, more)


_GREETING: Final = _greeting()


class Stream:
    """One call. `path`: what is called; `messages`: whole ones that nobody has taken yet (Connection.next); `ended`: no more
    will come; `broken`: it is over, nothing can be sent; `unsent`: what the peer has no room for yet."""

    __slots__ = (
        "answered", "broken", "ended", "held", "incoming", "messages", "needed", "number", "path", "trailers", "unsent",
        "window",
    )  # fmt: skip

    def __init__(self, number: int, path: str, window: int) -> None:
        self.number = number
        self.path = path
        self.window = window
        self.messages: list[bytes] = []
        self.unsent = b""
        self.trailers = b""
        self.answered = self.ended = self.broken = False
        self.held = 0
        self.incoming: bytearray | None = None
        self.needed = 0

    def take(self, data: bytes, bytes_max: int) -> None:
        """Messages of gRPC: not compressed (we offer nothing), four bytes of size, itself."""
        if self.incoming is not None:
            self.incoming += data
            if len(self.incoming) < self.needed:
                return
            data, self.incoming = bytes(self.incoming), None
        at, end, needed = 0, len(data), 5
        while end - at >= 5:
            if data[at]:
                raise Http2Error(_PROTOCOL_ERROR, "a compressed message")
            needed = 5 + int.from_bytes(data[at + 1 : at + 5])
            if needed > bytes_max:
                raise Http2Error(_PROTOCOL_ERROR, f"a message of {needed} bytes, {bytes_max} are allowed")
            if end - at < needed:
                break
            self.messages.append(data[at + 5 : at + needed])
            at, needed = at + needed, 5
        if at < end:
            self.incoming, self.needed = bytearray(data[at:]), needed


class Connection:
    """`receive` and the rest put what has to be sent into `out`."""

    __slots__ = ("_block", "_decoder", "_first_window", "_frame_max", "_greeted", "_held", "_last", "_message_max", "_rest",
                 "_window", "out", "streams")  # fmt: skip

    def __init__(self, message_bytes_max: int) -> None:
        self._message_max = message_bytes_max
        self._decoder = Decoder()
        self._first_window = self._window = _WINDOW_FIRST
        self._frame_max = _FRAME_BYTES
        self._greeted = False
        self._held = 0
        self._last = 0
        self._rest = b""
        self._block: tuple[int, int, bytes] | None = None
        """Number, flags and begin of a header list that is not complete."""
        self.streams: dict[int, Stream] = {}
        self.out: list[bytes] = [_GREETING]

    # ---- in

    def receive(self, data: bytes) -> list[Stream]:
        """The streams that have something new. Raises Http2Error: then send `out` and close."""
        touched: dict[Stream, None] = {}
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise self._error(_PROTOCOL_ERROR, "this is no HTTP/2")
            if end >= len(PREFACE):
                self._greeted, at = True, len(PREFACE)
        while self._greeted and end - at >= 9:
            size = int.from_bytes(data[at : at + 3])
            if size > _FRAME_BYTES:
                raise self._error(_FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if end - at - 9 < size:
                break
            kind, flags, number = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9]) & _WINDOW_MAX
            body = data[at + 9 : at + 9 + size]
            at += 9 + size
            try:
                stream = self._frame(kind, flags, number, body)
            except (struct.error, IndexError):
                raise self._error(_FRAME_SIZE_ERROR, f"a frame of kind {kind} with {size} bytes") from None
            except HpackError as error:
                raise self._error(_COMPRESSION_ERROR, str(error)) from error
            except Http2Error as error:
                raise self._error(error.code, str(error)) from error
            if stream is not None:
                touched[stream] = None
        self._rest = data[at:]
        return list(touched)

    def _frame(self, kind: int, flags: int, number: int, body: bytes) -> Stream | None:
        if self._block is not None and (kind != _CONTINUATION or number != self._block[0]):
            raise Http2Error(_PROTOCOL_ERROR, "a header list that is interrupted")
        if kind == _DATA:
            return self._data(flags, number, body)
        if kind == _WINDOW_UPDATE:
            return self._more_window(number, struct.unpack(">I", body)[0] & _WINDOW_MAX)
        if kind == _PING:
            if not flags & _ACK:
                self.out.append(frame(_PING, _ACK, 0, *struct.unpack("8s", body)))
        elif kind == _HEADERS:
            return self._headers(number, flags, _unpadded(flags, body)[5 if flags & _PRIORITY else 0 :])
        elif kind == _CONTINUATION:
            if self._block is None:
                raise Http2Error(_PROTOCOL_ERROR, "a header list that has not begun")
            _, first, begin = self._block
            return self._headers(number, first & ~_END_HEADERS | flags & _END_HEADERS, begin + body)
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._settings(body)
        elif kind == _RST_STREAM:
            return self._drop(number)
        elif kind == _PUSH_PROMISE:
            raise Http2Error(_PROTOCOL_ERROR, "a client that pushes")
        return None  # what else there is (priorities, their farewell, extensions) asks nothing of us

    def _settings(self, body: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", body):
            if name == _INITIAL_WINDOW:
                if value > _WINDOW_MAX:
                    raise Http2Error(_FLOW_CONTROL_ERROR, "a window that is too large")
                for stream in self.streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
            elif name == _FRAME_MAX:
                self._frame_max = min(max(value, _FRAME_BYTES), WINDOW_BYTES)
        self.out.append(frame(_SETTINGS, _ACK, 0))
        self._send_all()

    def _more_window(self, number: int, size: int) -> Stream | None:
        if not number:
            self._window += size
            if self._window > _WINDOW_MAX:
                raise Http2Error(_FLOW_CONTROL_ERROR, "a window that is too large")
            self._send_all()
            return None
        stream = self.streams.get(number)
        if stream is not None:
            stream.window += size
            if stream.window > _WINDOW_MAX:
                raise Http2Error(_FLOW_CONTROL_ERROR, "a window that is too large")
            self._send(stream)
        return stream

    def _headers(self, number: int, flags: int, block: bytes) -> Stream | None:
        if len(block) > WINDOW_BYTES:
            raise Http2Error(_PROTOCOL_ERROR, "a header list that is too long")
        if not flags & _END_HEADERS:
            self._block = (number, flags, block)
            return None
        self._block = None
        headers = self._decoder.decode(block)
        stream = self.streams.get(number)
        if stream is not None:  # their trailers
            stream.ended = stream.ended or bool(flags & _END_STREAM)
            return stream
        if number <= self._last or not number % 2:
            if number <= self._last and number % 2:
                return None  # of a stream that is over
            raise Http2Error(_PROTOCOL_ERROR, f"a stream with the number {number}")
        self._last = number
        return self._open(number, flags, headers)

    def _open(self, number: int, flags: int, headers: list[Header]) -> Stream | None:
        if len(self.streams) >= STREAMS_MAX:
            self.out.append(frame(_RST_STREAM, 0, number, struct.pack(">I", _REFUSED_STREAM)))
            return None
        path = next((value for name, value in headers if name == b":path"), b"")
        stream = self.streams[number] = Stream(number, path.decode("ascii", "replace"), self._first_window)
        stream.ended = bool(flags & _END_STREAM)
        return stream

    def _data(self, flags: int, number: int, body: bytes) -> Stream | None:
        stream = self.streams.get(number)
        if stream is None:
            if number > self._last or not number % 2:
                raise Http2Error(_PROTOCOL_ERROR, f"data on stream {number}, which has not begun")
            self._give_back(len(body))
            return None
        stream.held += len(body)
        if stream.held > WINDOW_BYTES:
            raise Http2Error(_FLOW_CONTROL_ERROR, "more than there was room for")
        stream.take(_unpadded(flags, body), self._message_max)
        if flags & _END_STREAM:
            stream.ended = True
        if not stream.messages:
            self._give_room(stream)
        return stream

    def _give_room(self, stream: Stream) -> None:
        """Nothing waits to be read, so what came may come again."""
        if stream.held < WINDOW_BYTES // 2:
            return
        size, stream.held = stream.held, 0
        if not stream.ended:
            self.out.append(frame(_WINDOW_UPDATE, 0, stream.number, struct.pack(">I", size)))
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        self._held += size
        if self._held >= WINDOW_BYTES // 2:
            self.out.append(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._held)))
            self._held = 0

    def _drop(self, number: int) -> Stream | None:
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.broken = stream.ended = True
            stream.unsent = b""
            self._give_back(stream.held)
        return stream

    def _error(self, code: int, text: str) -> Http2Error:
        """Says goodbye."""
        self.out.append(frame(_GOAWAY, 0, 0, struct.pack(">II", self._last, code) + text.encode()[:200]))
        return Http2Error(code, text)

    # ---- what is read

    def next(self, stream: Stream) -> bytes | None:
        """The oldest message that came; None: there is none now."""
        if not stream.messages:
            return None
        message = stream.messages.pop(0)
        if not stream.messages:
            self._give_room(stream)
        return message

    # ---- out

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of gRPC; `stream.unsent` keeps what there is no room for."""
        if stream.broken:
            return
        if not stream.answered:
            stream.answered = True
            self.out.append(frame(_HEADERS, _END_HEADERS, stream.number, _ANSWER))
        stream.unsent += b"\0" + len(message).to_bytes(4) + message
        self._send(stream)

    def finish(self, stream: Stream, status: int, text: str = "") -> None:
        """The last word: the numeric status of gRPC and a text for people."""
        if stream.broken or stream.trailers:
            return
        block = literal(b"grpc-status", b"%d" % status)
        if text:
            block += literal(b"grpc-message", quote(text, _PLAIN).encode())
        stream.trailers = block if stream.answered else _ANSWER + block
        self._send(stream)

    def leave(self) -> None:
        """No new streams."""
        self.out.append(frame(_GOAWAY, 0, 0, struct.pack(">II", self._last, 0)))

    def _send_all(self) -> None:
        for stream in list(self.streams.values()):
            self._send(stream)

    def _send(self, stream: Stream) -> None:
        data, at = stream.unsent, 0
        while at < len(data):
            size = min(len(data) - at, self._window, stream.window, self._frame_max)
            if size <= 0:
                break
            self.out.append(frame(_DATA, 0, stream.number, data[at : at + size]))
            self._window -= size
            stream.window -= size
            at += size
        stream.unsent = data[at:]
        if stream.trailers and not stream.unsent:
            self.out.append(frame(_HEADERS, _END_HEADERS | _END_STREAM, stream.number, stream.trailers))
            if not stream.ended:
                self.out.append(frame(_RST_STREAM, 0, stream.number, struct.pack(">I", 0)))
            self._drop(stream.number)


def _unpadded(flags: int, body: bytes) -> bytes:
    if not flags & _PADDED:
        return body
    size = body[0]
    if size >= len(body):
        raise Http2Error(_PROTOCOL_ERROR, "more padding than frame")
    return body[1 : len(body) - size]
