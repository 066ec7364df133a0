"""Reading the metrics that a replica exposes itself, from its node.

Rules: asked is its own loopback, inside its network namespace: no network, firewall or load balancer lies between, and it works
for every network, also `none` and `host`. Where nobody listens there, its own addresses, from that very address: what the
namespace does not hold itself cannot be bound in it, so nothing but the replica is reached this way. On the node's own network
there is loopback only. HTTP/1.0, so that the answer ends with the connection. Whoever answers may be hostile: time and size are
bounded, by whoever asks if it wants less.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from agent.core.runner import Runner
from agent.network import namespaces
from agent.plan.networks import HOST
from agent.plan.records import Life
from model.autoscale import MetricsPort
from model.errors import RuntimeFailed, Unavailable

LOOPBACK: Final = "127.0.0.1"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Page(NamedTuple):
    """What a replica answered."""

    content_type: str
    body: bytes


class Limits(NamedTuple):
    """What an answer may take and be."""

    timeout_s: float = 5.0
    size_bytes: int = 8 << 20


LIMITS: Final = Limits()


async def read_replica(runner: Runner, life: Life, where: MetricsPort, limits: Limits = LIMITS) -> Page:
    """Of one that runs on this node. Raises Unavailable with one line."""
    pid = runner.performer.pids.get(life.container_id, 0)
    if not pid:
        raise Unavailable("it does not run")
    own = [address.partition("/")[0] for _, address in life.addresses] if life.netns != HOST else []
    return await read_metrics(f"/proc/{pid}/ns/net", where, limits, own)


async def read_metrics(netns: str, where: MetricsPort, limits: Limits = LIMITS, own: Sequence[str] = ()) -> Page:
    """`netns`: path of a network namespace; `own`: IPv4 addresses in it. Raises Unavailable with one line."""
    port, timeout_s = where.port, limits.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(await _connected(netns, port, own), where, limits.size_bytes)
    except TimeoutError:
        raise Unavailable(f"port {port}: no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise Unavailable(f"port {port}: {os.strerror(error.errno) if error.errno else error}") from None
    except RuntimeFailed as error:
        raise Unavailable(f"port {port}: {error}") from None


async def _connected(netns: str, port: int, own: Sequence[str]) -> socket.socket:
    """To who listens on loopback, else on the first of `own` where somebody does. Raises OSError: that of loopback."""
    refused: OSError | None = None
    for address in (LOOPBACK, *own):
        inside = namespaces.enter(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            inside.setblocking(False)
            inside.bind((address, 0))
            await asyncio.get_running_loop().sock_connect(inside, (address, port))
        except BaseException as error:
            inside.close()
            if not isinstance(error, OSError) or error.errno not in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL):
                raise
            refused = refused or error
        else:
            return inside
    assert refused is not None
    raise refused


async def _ask(inside: socket.socket, where: MetricsPort, most: int) -> Page:
    port = where.port
    with contextlib.closing(inside):
        reader, writer = await asyncio.open_connection(sock=inside)
        try:
            writer.write(f"GET {where.path} HTTP/1.0\r\nHost: localhost:{port}\r\nAccept: text/plain\r\n\r\n".encode())
            return await _answer(reader, port, most)
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader, port: int, most: int) -> Page:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Unavailable(f"port {port}: what answers does not speak HTTP") from None
    status = head[0].split(" ")
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or status[1] != "200":
        raise Unavailable(f"port {port}: it answers {head[0][:100]!r}")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return Page(fields.get("content-type", TEXT), await _body(reader, fields.get("content-length", ""), port, most))


async def _body(reader: asyncio.StreamReader, length: str, port: int, most: int) -> bytes:
    """Up to the length that was said, else to the end."""
    wanted = int(length) if length.isdigit() else most + 1
    body = bytearray()
    while len(body) < wanted and (piece := await reader.read(min(wanted - len(body), 1 << 16))):
        body += piece
        if len(body) > most:
            raise Unavailable(f"port {port}: more than {most:,} bytes of metrics")
    return bytes(body)
