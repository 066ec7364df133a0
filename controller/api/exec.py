"""Exec and attach: a websocket on one side, the agent's stream on the other.

Rules: refusals before the process starts answer the handshake with the usual error shape; later ones are a text frame `error`.
Binary frames begin with the stream's number (0 stdin, 1 stdout, 2 stderr). When either side goes away the other is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from grpc import aio
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from controller.agents import error_of
from controller.api.context import Api
from controller.api.replicas import placed_replica, replica_key
from controller.api.routing import authorize, error_response
from model.errors import BadInput, ShoalError
from protos import node_pb2 as pb

STDOUT: Final = b"\x01"
STDERR: Final = b"\x02"
ARGS_MAX: Final = 1_000


def exec_routes(api: Api) -> list[WebSocketRoute]:
    return [
        WebSocketRoute("/v1/replicas/{name}/exec", _endpoint(api, "Exec")),
        WebSocketRoute("/v1/replicas/{name}/attach", _endpoint(api, "Attach")),
    ]


def _endpoint(api: Api, method: str) -> Callable[[WebSocket], Awaitable[None]]:
    async def handle(socket: WebSocket) -> None:
        try:
            authorize(socket)
            row = placed_replica(api, socket.path_params["name"])
            start = start_of(socket.query_params, replica_key(row), command_needed=method == "Exec")
            stub = await api.agents.stub(row["node"])
        except ShoalError as error:
            await socket.send_denial_response(error_response(error))
            return
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await _join(socket, row["node"], getattr(stub, method), start)

    return handle


def start_of(query: Any, key: pb.ReplicaKey, *, command_needed: bool) -> pb.ExecStart:
    """Raises BadInput."""
    command, env = query.getlist("cmd"), query.getlist("env")
    if command_needed and not command:
        raise BadInput("exec: no command: give at least one `cmd`")
    if len(command) + len(env) > ARGS_MAX:
        raise BadInput(f"exec: more than {ARGS_MAX} arguments and variables")
    start = pb.ExecStart(
        key=key,
        command=command,
        tty=_flag(query, "tty"),
        stdin=_flag(query, "stdin"),
        user=query.get("user", ""),
        working_dir=query.get("workdir", ""),
        env=env,
        privileged=_flag(query, "privileged"),
    )
    rows, columns = query.get("rows", ""), query.get("cols", "")
    if rows or columns:
        start.size.CopyFrom(resize_of([rows, columns]))
    return start


def _flag(query: Any, name: str) -> bool:
    return str(query.get(name, "")).lower() in ("1", "true", "yes", "on")


def resize_of(size: Any) -> pb.Resize:
    """Raises BadInput."""
    try:
        rows, columns = (int(number) for number in size)
    except (TypeError, ValueError):
        raise BadInput("resize: expected [rows, columns]") from None
    if not (0 < rows < 65_536 and 0 < columns < 65_536):
        raise BadInput("resize: rows and columns go from 1 to 65535")
    return pb.Resize(rows=rows, columns=columns)


async def _join(socket: WebSocket, node: str, method: Any, start: pb.ExecStart) -> None:
    call = method()
    feeding = asyncio.create_task(_feed(socket, call, start))
    try:
        async for output in call:
            await _send(socket, output)
    except aio.AioRpcError as error:
        await socket.send_text(json.dumps({"error": str(error_of(node, error))}))
    except asyncio.CancelledError:
        # The call was ended by _feed, because the person went away, or we are being ended ourselves.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return
    finally:
        feeding.cancel()
        call.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    await socket.close()


async def _send(socket: WebSocket, output: pb.ExecOutput) -> None:
    kind = output.WhichOneof("kind")
    if kind == "stdout":
        await socket.send_bytes(STDOUT + output.stdout)
    elif kind == "stderr":
        await socket.send_bytes(STDERR + output.stderr)
    elif kind == "started":
        await socket.send_text('{"started":true}')
    elif kind == "exit_code":
        await socket.send_text(json.dumps({"exit_code": output.exit_code}))


async def _feed(socket: WebSocket, call: Any, start: pb.ExecStart) -> None:
    """Passes on what the person sends; when they go away the call is ended, and with it the process's terminal."""
    with contextlib.suppress(aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError):
        await call.write(pb.ExecInput(start=start))
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                call.cancel()
                return
            data = message.get("bytes")
            if data:
                if data[:1] == b"\0":
                    await call.write(pb.ExecInput(stdin=data[1:]))
            elif message.get("text") and (found := read_text(message["text"])) is not None:
                await call.write(found)


def read_text(text: str) -> pb.ExecInput | None:
    """What a text frame asks for; None: nothing that is known."""
    try:
        message = json.loads(text)
        if message.get("stdin_closed"):
            return pb.ExecInput(stdin_closed=True)
        if "resize" in message:
            return pb.ExecInput(resize=resize_of(message["resize"]))
        if "signal" in message:
            return pb.ExecInput(signal=int(message["signal"]))
    except (ValueError, TypeError, AttributeError, BadInput):
        return None
    return None
