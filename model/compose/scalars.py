"""Units and numbers of the Compose Specification: durations, byte sizes, and how Docker writes them back.

Rules: pure text functions; a parse function returns None for what it cannot read, its caller words the error. Durations
are whole nanoseconds inside, so that `1.5s` and `100ms` come back exactly.
"""

from __future__ import annotations

import re

_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
    "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_DURATION = re.compile(rf"[-+]?(?:{_PART.pattern})+\Z")
_BYTES = re.compile(r"(-?\d+(?:\.\d+)?|\.\d+) ?(?:([kmgtpKMGTP])(?:i?[bB])?|[bB])?\Z")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = frozenset(("true", "t", "1", "yes", "y", "on"))
_FALSE = frozenset(("false", "f", "0", "no", "n", "off"))
_TEXT_MAX = 64


def parse_duration_ns(text: str) -> int | None:
    """`1m30s` -> 90_000_000_000; None when it is no duration."""
    if text == "0":
        return 0
    if len(text) > _TEXT_MAX or not _DURATION.match(text):
        return None
    total = 0
    for amount, unit in _PART.findall(text):
        whole, _, part = amount.partition(".")
        scale = _NS[unit]
        total += int(whole or "0") * scale + (int(part) * scale // 10 ** len(part) if part else 0)
    return -total if text[0] == "-" else total


def duration_s(text: str) -> float:
    """Seconds of a duration that was already checked."""
    return (parse_duration_ns(text) or 0) / 1e9


def format_duration(nanoseconds: int) -> str:
    """The way Go writes a duration: `1h30m0s`, `1m30s`, `500ms`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < 10**9:
        unit, scale = next((u, s) for u, s in (("ms", 10**6), ("µs", 10**3), ("ns", 1)) if left >= s)
        return sign + _fraction(left, scale) + unit
    minutes, rest = divmod(left, 60 * 10**9)
    text = _fraction(rest, 10**9) + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _fraction(amount: int, scale: int) -> str:
    whole, part = divmod(amount, scale)
    if not part:
        return str(whole)
    digits = str(part).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def parse_bytes(text: str) -> int | None:
    """`128M` -> 134217728 (powers of 1024, as Docker reads them); a bare number is bytes; None when it is no size."""
    found = _BYTES.match(text.strip()) if len(text) <= _TEXT_MAX else None
    if not found:
        return None
    scale: int = 1024 ** _POWER[(found[2] or "").lower()]
    return int(float(found[1]) * scale) if "." in found[1] else int(found[1]) * scale


def parse_bool(text: str) -> bool | None:
    word = text.lower()
    return True if word in _TRUE else False if word in _FALSE else None


def parse_number(text: str) -> float | None:
    """A finite decimal number, or None."""
    if len(text) > _TEXT_MAX or not re.match(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\Z", text.strip()):
        return None
    number = float(text)
    return number if abs(number) < 1e300 else None


def parse_int(text: str) -> int | None:
    """A whole number in decimal, `0x`, `0o` or old-style octal form, or None."""
    word = text.strip()
    if len(word) > _TEXT_MAX or not re.match(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0|[1-9]\d*)\Z", word):
        return None
    if re.match(r"[-+]?0\d", word):
        return int(word, 8)
    return int(word, 0)


def number(value: float) -> int | float:
    """A whole float as int: JSON shows `1`, not `1.0`."""
    return int(value) if value == int(value) else value


def to_text(value: str | float | bool) -> str:
    """How Docker turns a scalar into text: `1.10` -> `1.1`, `true` -> `true`, `1e3` -> `1000`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float_text(value) if isinstance(value, float) else str(value)


def _float_text(value: float) -> str:
    """Go's shortest `%g`: an exponent below 1e-4 and from 1e6 (`1.234567e+06`)."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    from decimal import Decimal

    exact = Decimal(repr(value)).normalize()
    sign, digits, exponent = exact.as_tuple()
    power = len(digits) + int(exponent) - 1
    if value == 0 or -4 <= power < 6:
        return format(exact, "f")
    head = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{head}e{'-' if power < 0 else '+'}{abs(power):02d}"
