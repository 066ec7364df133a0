"""Header lists of HTTP/2 (HPACK, RFC 7541). Pure.

Rules: a peer may use all of it before it has heard our settings, so all of it is read. What is written is literal, without the
dynamic table: a session has one list of headers and one of trailers in its whole life.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final

from controller.dispatch.encoded import varint

Header = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096
LIST_BYTES_MAX: Final = 65_536
_STATIC: Final[tuple[Header, ...]] = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""), (b"cache-control", b""),
    (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""), (b"content-length", b""),
    (b"content-location", b""), (b"content-range", b""), (b"content-type", b""), (b"cookie", b""), (b"date", b""),
    (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""), (b"host", b""), (b"if-match", b""),
    (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""), (b"if-unmodified-since", b""),
    (b"last-modified", b""), (b"link", b""), (b"location", b""), (b"max-forwards", b""), (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""), (b"range", b""), (b"referer", b""), (b"refresh", b""), (b"retry-after", b""),
    (b"server", b""), (b"set-cookie", b""), (b"strict-transport-security", b""), (b"transfer-encoding", b""),
    (b"user-agent", b""), (b"vary", b""), (b"via", b""), (b"www-authenticate", b""),
)  # fmt: skip
_LENGTHS: Final = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCC"
    "CCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRT"
    "QRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)
"""Of the Huffman code of each octet and of the end, A for 5 bits: the code is canonical, so these say all of it."""
_END: Final = 256


class HpackError(ValueError):
    """The header block breaks the rules."""


class Decoder:
    """Of one connection: `decode` every header block, in order."""

    __slots__ = ("_limit", "_size", "_table")

    def __init__(self) -> None:
        self._table: list[Header] = []
        self._size = 0
        self._limit = TABLE_BYTES

    def decode(self, block: bytes) -> list[Header]:
        """Raises HpackError."""
        headers: list[Header] = []
        at = total = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 7)
                    header = self._entry(index)
                elif first & 0x40:
                    header, at = self._literal(block, at, 6)
                    self._remember(header)
                elif first & 0x20:
                    limit, at = _integer(block, at, 5)
                    self._resize(limit)
                    continue
                else:
                    header, at = self._literal(block, at, 4)
                headers.append(header)
                total += _weight(header)
                if total > LIST_BYTES_MAX:
                    raise HpackError("too many headers")
        except IndexError:
            raise HpackError("a header block that breaks off") from None
        return headers

    def _entry(self, index: int) -> Header:
        if not 0 < index <= len(_STATIC) + len(self._table):
            raise HpackError(f"no header {index}")
        return _STATIC[index - 1] if index <= len(_STATIC) else self._table[len(_STATIC) - index]

    def _literal(self, block: bytes, at: int, bits: int) -> tuple[Header, int]:
        index, at = _integer(block, at, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        return (name, value), at

    def _remember(self, header: Header) -> None:
        self._table.append(_shared(header))
        self._size += _weight(header)
        self._shrink()

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise HpackError("a table larger than was allowed")
        self._limit = limit
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            self._size -= _weight(self._table.pop(0))


def literal(name: bytes, value: bytes) -> bytes:
    """One header as it is written."""
    return b"\x00" + _prefixed(name) + _prefixed(value)


def _prefixed(text: bytes) -> bytes:
    size = len(text)
    return (bytes((size,)) if size < 127 else b"\x7f" + varint(size - 127)) + text


@lru_cache(256)
def _shared(header: Header) -> Header:
    """Thousands of connections begin with the same ones."""
    return header


def _weight(header: Header) -> int:
    return len(header[0]) + len(header[1]) + 32


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 127) << shift
        shift += 7
        if octet < 128:
            return value, at
        if shift > 28:
            raise HpackError("a number that is too large")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    packed = block[at] & 0x80
    size, at = _integer(block, at, 7)
    if at + size > len(block):
        raise HpackError("a header block that breaks off")
    data = block[at : at + size]
    return (unpacked(data) if packed else data), at + size


@cache
def _codes() -> dict[tuple[int, int], int]:
    """(bits, code) -> octet."""
    sizes = [ord(letter) - ord("A") + 5 for letter in _LENGTHS]
    found: dict[tuple[int, int], int] = {}
    code = before = 0
    for size, octet in sorted((size, octet) for octet, size in enumerate(sizes)):
        code <<= size - before
        found[size, code] = octet
        code, before = code + 1, size
    return found


def unpacked(data: bytes) -> bytes:
    """A text in Huffman code. Raises HpackError."""
    codes, out = _codes(), bytearray()
    code = size = 0
    for octet in data:
        for shift in range(7, -1, -1):
            code, size = code << 1 | octet >> shift & 1, size + 1
            found = codes.get((size, code))
            if found == _END or size > 30:
                raise HpackError("a text in no known code")
            if found is not None:
                out.append(found)
                code = size = 0
    if size > 7 or code != (1 << size) - 1:
        raise HpackError("a text that breaks off")
    return bytes(out)
