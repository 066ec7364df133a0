"""The HTTPS server itself: who says nothing, or not enough, does not keep a connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from controller.api.server import ApiServer
from controller.pki import ensure_pki
from controller.wiring import listen

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Wire]:
    """A connection without a client certificate to a server that waits 0.3 s for a head."""
    pki = ensure_pki(folder / "pki", "c1", [])

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    listener = listen("--api", "127.0.0.1", 0)
    server = ApiServer(Starlette(routes=[Route("/", hello)]), pki, listener, head_s=0.3)
    serving = asyncio.create_task(server.serve())
    context = ssl.create_default_context(cadata=pki.authority.pem.decode())
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1], ssl=context)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
    finally:
        server.stop()
        await serving
        listener.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_who_does_not_finish_a_head_is_hung_up_on(tmp_path: Path, said: bytes) -> None:
    async with connected(tmp_path) as (reader, writer), asyncio.timeout(20):
        writer.write(said)
        assert await reader.read() == b""


async def test_a_kept_connection_outlives_the_time_for_a_head(tmp_path: Path) -> None:
    async with connected(tmp_path) as (reader, writer), asyncio.timeout(20):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"hello")
            with pytest.raises(TimeoutError):  # nothing comes, not even the end
                await asyncio.wait_for(reader.read(1), 0.5)


async def test_no_session_tickets_follow_the_handshake(tmp_path: Path) -> None:
    async with connected(tmp_path) as (reader, writer), asyncio.timeout(20):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"hello")
        tls = writer.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.3"
        assert not tls.session.has_ticket
