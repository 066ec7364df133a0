"""Ethernet frames by hand, to send what no honest program would."""

from __future__ import annotations

import ipaddress
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ether(target: str, source: str, kind: int, payload: bytes, tag: int | None = None) -> bytes:
    vlan = struct.pack(">HH", 0x8100, tag) if tag is not None else b""
    return mac(target) + mac(source) + vlan + struct.pack(">H", kind) + payload


def udp(source: str, target: str, port: int, payload: bytes) -> tuple[int, bytes]:
    """(ethertype, packet) of one datagram, IPv4 or IPv6."""
    length = 8 + len(payload)
    body = struct.pack(">HHHH", 40_000, port, length, 0) + payload
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if ":" in source:
        check = _sum(ends + struct.pack(">II", length, socket.IPPROTO_UDP) + body) or 0xFFFF
        body = body[:6] + struct.pack(">H", check) + body[8:]
        return 0x86DD, struct.pack(">IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + ends + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0) + ends
    return 0x0800, head[:10] + struct.pack(">H", _sum(head)) + head[12:] + body


def reset(source: str, target: str) -> tuple[int, bytes]:
    """(ethertype, packet) that resets a connection nobody has; IPv4."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack(">HHIIBBHHH", 40_000, 80, 7, 7, 5 << 4, 0x04, 0, 0, 0)
    tcp = tcp[:16] + struct.pack(">H", _sum(ends + struct.pack(">HH", socket.IPPROTO_TCP, len(tcp)) + tcp)) + tcp[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, socket.IPPROTO_TCP, 0) + ends
    return 0x0800, head[:10] + struct.pack(">H", _sum(head)) + head[12:] + tcp


def icmp6(kind: int, source: str, target: str, rest: bytes) -> tuple[int, bytes]:
    """(ethertype, packet); `rest` follows type, code and checksum."""
    body = bytes([kind, 0, 0, 0]) + rest
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    check = _sum(ends + struct.pack(">II", len(body), socket.IPPROTO_ICMPV6) + body)
    body = body[:2] + struct.pack(">H", check) + body[4:]
    return 0x86DD, struct.pack(">IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + ends + body


def arp(operation: int, sender_mac: str, sender: str, target: str) -> bytes:
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return head + mac(sender_mac) + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)


def vxlan(vni: int, frame: bytes) -> bytes:
    return struct.pack(">II", 0x08 << 24, vni << 8) + frame


def _sum(data: bytes) -> int:
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
