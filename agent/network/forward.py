"""Questions about other names: asked of resolvers, their answer as it came.

Rules: a resolver that is slow is not waited for: the next one is asked beside it, and the first useful answer counts; it is
asked last for a while. Every question is given up after a time below what libraries wait for. One asker cannot use up what all
share.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Final

PORT: Final = 53
FORWARD_S: Final = 4.0
NEXT_AFTER_S: Final = 0.5
SLOW_FOR_S: Final = 30.0
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_USELESS: Final = frozenset({2, 4, 5})
"""SERVFAIL, NOTIMP, REFUSED: another resolver may know better."""


def host_resolvers(path: Path = _RESOLV_CONF) -> tuple[str, ...]:
    """The machine's own name servers."""
    with contextlib.suppress(OSError):
        rows = [line.split() for line in path.read_text(errors="replace").splitlines()]
        return tuple(row[1] for row in rows if len(row) > 1 and row[0] == "nameserver")
    return ()


class Quota:
    """How many may be at work at once, all together and for one asker."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._used: Counter[str] = Counter()

    def full(self, asker: str) -> bool:
        return self._used.total() >= self._total or self._used[asker] >= self._each

    @contextlib.contextmanager
    def use(self, asker: str) -> Iterator[None]:
        self._used[asker] += 1
        try:
            yield
        finally:
            self._used[asker] -= 1
            if not self._used[asker]:
                del self._used[asker]


class Forwarder:
    """Asks several resolvers until one answers."""

    def __init__(self, wait_s: float = FORWARD_S, next_after_s: float = NEXT_AFTER_S) -> None:
        self._wait_s, self._next_after_s = wait_s, next_after_s
        self._slow_until: dict[str, float] = {}

    async def ask(self, resolvers: Sequence[str], question: bytes, *, udp: bool) -> bytes | None:
        """The first useful answer; one that is of no use when there is no other; None when nobody answers."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = now + self._wait_s
        waiting = sorted(resolvers, key=lambda name: self._slow_until.get(name, 0.0) > now)
        asked: dict[asyncio.Task[bytes | None], str] = {}
        useless: bytes | None = None
        try:
            while (waiting or asked) and loop.time() < end:
                if waiting:
                    resolver = waiting.pop(0)
                    asked[asyncio.ensure_future(_quiet((_ask_udp if udp else _ask_tcp)(resolver, question)))] = resolver
                patience = min(self._next_after_s if waiting else self._wait_s, max(0.0, end - loop.time()))
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._slow_until = {name: until for name, until in self._slow_until.items() if until > loop.time()}
                    self._slow_until.update(dict.fromkeys(asked.values(), loop.time() + SLOW_FOR_S))
                for task in done:
                    self._slow_until.pop(asked.pop(task), None)
                    answer = task.result()
                    if answer is not None and answer[3] & 15 not in _USELESS:
                        return answer
                    useless = answer or useless
            return useless
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def _quiet(asking: Awaitable[bytes]) -> bytes | None:
    with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
        return await asking
    return None


async def _ask_udp(resolver: str, data: bytes) -> bytes:
    host, port = _target(resolver)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        await loop.sock_connect(channel, (host, port))
        await loop.sock_sendall(channel, data)
        while True:
            answer = await loop.sock_recv(channel, 65_535)
            if len(answer) >= 12 and answer[:2] == data[:2]:
                return answer


async def _ask_tcp(resolver: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*_target(resolver))
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if len(answer) < 12:
            raise ValueError("not a DNS answer")
        return answer
    finally:
        writer.close()


def _target(resolver: str) -> tuple[str, int]:
    """`192.0.2.1` or, for tests, `127.0.0.1#5353`."""
    host, _, port = resolver.partition("#")
    return host, int(port or PORT)
