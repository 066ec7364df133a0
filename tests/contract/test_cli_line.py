"""The command line's websocket against a real TLS server: `shoal exec` must neither lose its request nor get stuck."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import json
import os
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cli import context, terminal
from controller.api import server as api_server
from controller.api.routing import error_response
from controller.pki import ensure_pki, write_admin_context
from controller.wiring import listen
from model.errors import Conflict, RuntimeFailed, Unavailable

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]

FED_BYTES = 24 << 20
Talk = Callable[[WebSocket], Awaitable[None]]


async def _ends_at_once(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text('{"started":true}')
    await socket.send_text('{"exit_code":7}')
    await socket.close()


async def _refuses(socket: WebSocket) -> None:
    await socket.send_denial_response(error_response(Conflict("it does not run")))


async def _hangs_up(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close(1011)


async def _echoes(socket: WebSocket) -> None:
    """What `cat` does: it takes no more while nobody takes what it gives."""
    await socket.accept()
    while (message := await socket.receive()).get("bytes"):
        await socket.send_bytes(b"\1" + message["bytes"][1:])
    assert json.loads(message["text"]) == {"stdin_closed": True}
    await socket.send_text('{"exit_code":0}')
    await socket.close()


async def _ends_unfed(socket: WebSocket) -> None:
    """What `head -c 1` does."""
    await socket.accept()
    await socket.receive()
    await socket.send_text('{"exit_code":3}')
    await socket.close()


async def _replicas(request: Request) -> JSONResponse:
    return JSONResponse([{"name": "x", "service": "x", "state": "running"}])


@contextlib.asynccontextmanager
async def served(folder: Path, talk: Talk) -> AsyncIterator[context.Context]:
    """A controller's HTTPS server whose every exec is `talk`; gives the context, which is also the configured one."""
    pki = ensure_pki(folder / "pki", "c1", [])
    listener = listen("--api", "127.0.0.1", 0)
    app = Starlette(routes=[Route("/v1/replicas", _replicas), WebSocketRoute("/v1/replicas/x/exec", talk)])
    server = api_server.ApiServer(app, pki, listener)
    serving = asyncio.create_task(server.serve())
    (folder / "contexts").mkdir()
    write_admin_context(folder / "contexts" / "t.json", "t", [f"https://127.0.0.1:{listener.getsockname()[1]}"], pki)
    try:
        yield context.read(folder / "contexts" / "t.json", "t")
    finally:
        server.stop()
        await serving
        listener.close()


def _join(cluster: context.Context) -> int:
    return terminal.join(cluster, "/v1/replicas/x/exec", tty_wanted=False, stdin_wanted=False, cmd=["true"])


async def test_one_thread_uses_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lose about one request in a thousand on a busy machine: it is written while the session tickets are read."""
    users: dict[str, set[int]] = {name: set() for name in ("recv", "send", "sendall")}

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(tls_socket: ssl.SSLSocket, *arguments: Any) -> Any:
            users[name].add(threading.get_ident())
            return method(tls_socket, *arguments)

        return call

    for name in users:
        monkeypatch.setattr(ssl.SSLSocket, name, watched(name, getattr(ssl.SSLSocket, name)))
    async with served(tmp_path, _ends_at_once) as cluster:
        assert await asyncio.to_thread(_join, cluster) == 7
    assert users["recv"]
    assert len(set.union(*users.values())) == 1, users


async def _exec_fed(folder: Path, talk: Talk) -> int:
    """`shoal exec -i` with the file `fed` as its input and `got` as its output; gives the exit code."""
    environment = {**os.environ, "SHOAL_CONFIG_DIR": str(folder), "SHOAL_CONTEXT": "t"}
    with (folder / "fed").open("rb") as fed, (folder / "got").open("wb") as got:
        async with served(folder, talk), asyncio.timeout(60):
            command = [sys.executable, "-m", "shoal", "exec", "-i", "x", "cat"]
            child = await asyncio.create_subprocess_exec(*command, stdin=fed, stdout=got, env=environment)
            try:
                return await child.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


async def test_what_answers_while_it_is_fed_gets_everything(tmp_path: Path) -> None:
    (tmp_path / "fed").write_bytes(os.urandom(FED_BYTES))
    assert await _exec_fed(tmp_path, _echoes) == 0
    assert filecmp.cmp(tmp_path / "fed", tmp_path / "got", shallow=False)


async def test_what_ends_before_it_took_everything_gives_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "fed").write_bytes(os.urandom(FED_BYTES))
    assert await _exec_fed(tmp_path, _ends_unfed) == 3


async def test_a_refusal_is_told_in_the_controllers_words(tmp_path: Path) -> None:
    async with served(tmp_path, _refuses) as cluster:
        with pytest.raises(RuntimeFailed, match="it does not run"):
            await asyncio.to_thread(_join, cluster)


async def test_a_line_that_ends_without_an_exit_code_says_so(tmp_path: Path) -> None:
    async with served(tmp_path, _hangs_up) as cluster:
        with pytest.raises(Unavailable, match="may still run"):
            await asyncio.to_thread(_join, cluster)


async def test_a_controller_that_hangs_up_before_it_answers_cannot_be_reached(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", "c1", [])
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=api_server.tls_context(pki))
    async with server:
        write_admin_context(tmp_path / "t.json", "t", [f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"], pki)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await asyncio.to_thread(_join, context.read(tmp_path / "t.json", "t"))
