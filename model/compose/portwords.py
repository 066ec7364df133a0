"""Words for ports, addresses and names that a file, `shoal run` and the API share: `3000-3005/tcp`, `10.1.2.3`, `10.1.0.0/16`.

Rules: pure; what cannot be read raises BadInput with one line that says what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from model.errors import BadInput

PROTOCOLS: Final = ("tcp", "udp", "sctp")
_EXPOSED: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?")
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


def exposed(text: str) -> tuple[str, ...]:
    """`80` -> `80/tcp`; `3000-3002/udp` -> one word a port."""
    found = _EXPOSED.fullmatch(text)
    protocol = ((found and found[3]) or "tcp").lower()
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high <= 65535 or protocol not in PROTOCOLS:
        raise BadInput(f"exposed port {text!r}: expected a port or a range such as 80, 53/udp or 3000-3005")
    return tuple(f"{port}/{protocol}" for port in range(low, high + 1))


def ipv4(text: str) -> str:
    """An IPv4 address as it is written shortest."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise BadInput(f"address {text!r}: expected an IPv4 address such as 10.1.2.3") from None


def address(text: str) -> str:
    """An IPv4 or IPv6 address as it is written shortest."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadInput(f"address {text!r}: expected an IP address such as 10.1.2.3") from None


def dns_name(text: str) -> str:
    """A name that can be asked for: `web`, `my_app.example`."""
    if not _NAME.fullmatch(text):
        raise BadInput(f"name {text[:80]!r}: expected letters, digits, '_', '-' and '.', at most 63 between two dots")
    return text


def subnet_version(text: str) -> int:
    """4 or 6."""
    try:
        return ipaddress.ip_network(text, strict=False).version
    except ValueError:
        raise BadInput(f"subnet {text!r}: expected a subnet such as 10.1.0.0/16 or fd00:1::/64") from None
