"""Netfilter's log as bytes: asking for the packets of a group, and who a packet is from and for.

Rules: pure. Shapes from linux/netfilter/nfnetlink_log.h. A packet that cannot be understood is nobody's.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final, NamedTuple

from agent.plan.netlink import F_ACK, F_REQUEST, Request, attr
from agent.plan.netlink_read import attributes

MSG_PACKET: Final = 4 << 8
_MSG_CONFIG: Final = 4 << 8 | 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_THRESHOLD = 1, 2, 4, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_INDEV, _PAYLOAD = 4, 9
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp"}


class Call(NamedTuple):
    """The first packet of somebody. `link`: index of the interface it came in by, 0: from this node itself."""

    link: int
    protocol: str
    source: str
    source_port: int
    target: str
    target_port: int


def listen(group: int, length: int) -> Request:
    """Asks for the first `length` bytes of each packet of the group, at once."""
    body = attr(_CFG_CMD, bytes([_CMD_BIND])) + attr(_CFG_MODE, struct.pack(">IBB", length, _COPY_PACKET, 0))
    body += attr(_CFG_THRESHOLD, struct.pack(">I", 1)) + attr(_CFG_TIMEOUT, struct.pack(">I", 1))
    return Request(_MSG_CONFIG, F_REQUEST | F_ACK, struct.pack(">BBH", 0, 0, group) + body, (), "log of packets")


def parse(payload: bytes) -> Call | None:
    """From the body of a MSG_PACKET."""
    try:
        found = attributes(payload[4:])
        packet, link = found[_PAYLOAD], int.from_bytes(found.get(_INDEV, b""), "big")
        if packet[0] >> 4 == 4:
            number, start, source, target = packet[9], 4 * (packet[0] & 15), packet[12:16], packet[16:20]
        else:
            number, start, source, target = packet[6], 40, packet[8:24], packet[24:40]
        source_port, target_port = struct.unpack(">HH", packet[start : start + 4])
        return Call(link, _PROTOCOLS[number], str(ip_address(source)), source_port, str(ip_address(target)), target_port)
    except (KeyError, IndexError, ValueError, struct.error):
        return None
