"""The server's side of HTTP/2 and gRPC, fed byte by byte: what a peer may do, and what costs it the connection."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.dispatch.hpack import Decoder, HpackError, literal, unpacked
from controller.dispatch.http2 import PREFACE, WINDOW_BYTES, Connection, Http2Error, Stream, frame

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
BEGIN = literal(b":path", b"/a/B")
OPENED = frame(HEADERS, END_HEADERS, 1, BEGIN)


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


def connection(*frames: bytes, bytes_max: int = 1 << 26) -> Connection:
    found = Connection(bytes_max)
    found.receive(PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames))
    found.out.clear()
    return found


def opened() -> tuple[Connection, Stream]:
    found = connection(OPENED)
    return found, found.streams[1]


def frames(found: Connection) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream, body of what is to be sent; it is taken away."""
    data, rows = b"".join(found.out), []
    found.out.clear()
    while data:
        size = int.from_bytes(data[:3])
        rows.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]))
        data = data[9 + size :]
    return rows


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("25a849e95ba97d7f", b"custom-key"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
    ],
)
def test_huffman_as_the_standard_shows_it(packed: str, text: bytes) -> None:
    assert unpacked(bytes.fromhex(packed)) == text


def test_headers_as_the_standard_shows_them() -> None:
    """RFC 7541, C.4: three lists on one connection, each leaning on what the ones before left in the table."""
    decoder = Decoder()
    first = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
    assert decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")) == first
    assert decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf")) == [*first, (b"cache-control", b"no-cache")]
    third = decoder.decode(bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))
    assert third[1:3] == [(b":scheme", b"https"), (b":path", b"/index.html")]
    assert third[3:] == [(b":authority", b"www.example.com"), (b"custom-key", b"custom-value")]


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_what_is_written_is_read(name: bytes, value: bytes) -> None:
    assert Decoder().decode(literal(name, value)) == [(name, value)]


@pytest.mark.parametrize("block", ["80", "ff", "be", "0005", "3fffff7f", "400a", "00ffffffffffffff0f"])
def test_header_blocks_that_are_none(block: str) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(bytes.fromhex(block))


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 40), max_size=60))
def test_however_it_is_cut_the_same_messages_come(messages: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(message, messages))
    parts = [body[at : at + 97] for at in range(0, len(body), 97)]
    wire = PREFACE + frame(SETTINGS, 0, 0) + OPENED + b"".join(frame(DATA, 0, 1, part) for part in parts)
    found, at = Connection(1 << 20), 0
    for size in [*cuts, len(wire)]:
        found.receive(wire[at : at + size])
        at += size
    stream = found.streams[1]
    assert stream.path == "/a/B"
    assert [found.next(stream) for _ in messages] == messages
    assert found.next(stream) is None


def test_a_message_of_many_frames_and_padding() -> None:
    found, stream = opened()
    data = message(bytes(40_000))
    for at in range(0, len(data), 10_000):
        part = data[at : at + 10_000]
        found.receive(frame(DATA, PADDED, 1, b"\3" + part + bytes(3)))
    assert found.next(stream) == bytes(40_000)


def test_who_is_not_read_gets_no_room_and_who_is_read_gets_it_back() -> None:
    found, stream = opened()
    one = message(bytes(10_000))
    for _ in range(100):
        found.receive(frame(DATA, 0, 1, one))
    assert not [row for row in frames(found) if row[0] == WINDOW_UPDATE and row[2] == 1]
    while found.next(stream) is not None:
        pass
    given_back = [
        struct.unpack(">I", body)[0] for kind, _, number, body in frames(found) if (kind, number) == (WINDOW_UPDATE, 1)
    ]
    assert sum(given_back) == 100 * len(one)


def test_more_than_there_was_room_for_costs_the_connection() -> None:
    found, _ = opened()
    parts = [frame(DATA, 0, 1, message(bytes(10_000)))] * (WINDOW_BYTES // 10_000 + 1)
    with pytest.raises(Http2Error, match="room"):
        found.receive(b"".join(parts))
    assert frames(found)[-1][0] == GOAWAY


def test_what_the_peer_has_no_room_for_waits_for_its_window() -> None:
    found, stream = opened()
    found.send(stream, bytes(100_000))
    assert stream.unsent
    sent = b"".join(body for kind, _, _, body in frames(found) if kind == DATA)
    assert len(sent) == 65_535
    found.finish(stream, 0)
    assert not frames(found), "the last word comes last"
    found.receive(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 20)))
    assert not frames(found), "the connection has a window too"
    found.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    rows = frames(found)
    assert sent + b"".join(body for kind, _, _, body in rows if kind == DATA) == message(bytes(100_000))
    assert [row[0] for row in rows][-2:] == [HEADERS, RST_STREAM]
    assert stream.broken
    assert not found.streams


def test_settings_move_the_windows_of_streams_that_are_open() -> None:
    found, stream = opened()
    found.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 10)))
    assert frames(found) == [(SETTINGS, ACK, 0, b"")]
    found.send(stream, bytes(20))
    assert [body for kind, _, _, body in frames(found) if kind == DATA] == [message(bytes(20))[:10]]
    found.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 100)))
    assert [body for kind, _, _, body in frames(found) if kind == DATA] == [message(bytes(20))[10:]]


def test_a_refusal_without_an_answer_is_one_list_of_headers() -> None:
    found, stream = opened()
    found.finish(stream, 7, "nein, 100 % nicht: ü")
    kind, flags, number, block = frames(found)[0]
    assert (kind, flags, number) == (HEADERS, END_STREAM | END_HEADERS, 1)
    assert dict(Decoder().decode(block)) == {
        b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": b"7",
        b"grpc-message": b"nein, 100 %25 nicht: %C3%BC",
    }  # fmt: skip


def test_a_ping_is_answered_and_a_reset_ends_a_stream() -> None:
    found, stream = opened()
    found.receive(frame(PING, 0, 0, b"12345678"))
    assert frames(found) == [(PING, ACK, 0, b"12345678")]
    assert found.receive(frame(RST_STREAM, 0, 1, bytes(4))) == [stream]
    assert stream.broken
    found.receive(frame(DATA, 0, 1, message(b"late")) + frame(HEADERS, END_HEADERS, 3, BEGIN))
    assert list(found.streams) == [3]


def test_headers_may_come_in_pieces_and_nothing_in_between() -> None:
    pieces = frame(HEADERS, END_STREAM, 1, BEGIN[:3]) + frame(CONTINUATION, END_HEADERS, 1, BEGIN[3:])
    found = connection(pieces)
    assert found.streams[1].path == "/a/B"
    assert found.streams[1].ended
    with pytest.raises(Http2Error, match="interrupted"):
        connection(frame(HEADERS, 0, 1, BEGIN[:3]), frame(PING, 0, 0, bytes(8)))


@pytest.mark.parametrize(
    "broken",
    [
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, END_HEADERS, 2, BEGIN),
        frame(HEADERS, END_HEADERS, 1, b"\xff"),
        frame(PING, 0, 0, b"short"),
        frame(WINDOW_UPDATE, 0, 0, b""),
        frame(CONTINUATION, END_HEADERS, 1, BEGIN),
        OPENED + frame(DATA, 0, 1, b"\1" + bytes(4)),
        OPENED + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"),
        OPENED + frame(DATA, PADDED, 1, b"\5abc"),
        b"\xff" * 9,
    ],
)
def test_who_breaks_the_rules_loses_the_connection(broken: bytes) -> None:
    found = connection()
    with pytest.raises(Http2Error):
        found.receive(broken)
    assert frames(found)[-1][0] == GOAWAY


def test_who_speaks_something_else_is_not_listened_to() -> None:
    with pytest.raises(Http2Error):
        Connection(100).receive(b"GET / HTTP/1.1\r\n")
