"""A person's terminal joined to a process in a container, over one websocket.

Rules: the terminal is put back as it was, whatever happens. Frames as docs/api.md says: binary with the stream's number first
(0 stdin, 1 stdout, 2 stderr), text for everything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cli.client import path_of, reason, tls
from cli.context import Context
from model.errors import RuntimeFailed, Unavailable
from model.pki_names import CONTROLLER_SERVER_NAME

_CHUNK_BYTES = 65_536


def join(context: Context, path: str, *, tty_wanted: bool, stdin_wanted: bool, **query: Any) -> int:
    """Run until the process ends or the connection breaks; gives the exit code."""
    size = shutil.get_terminal_size()
    if tty_wanted:
        query |= {"rows": size.lines, "cols": size.columns}
    target = path_of(path, {"tty": tty_wanted, "stdin": stdin_wanted, **query})
    with _open(context, target) as socket, _raw(tty_wanted and stdin_wanted), _resizes(socket, tty_wanted):
        if stdin_wanted:
            threading.Thread(target=_feed, args=(socket,), daemon=True).start()
        return _receive(socket)


def _open(context: Context, target: str) -> Any:
    from websockets.exceptions import InvalidStatus, WebSocketException
    from websockets.sync.client import connect

    problem = "no address in the context"
    for api in context.apis:
        try:
            return connect(
                f"wss://{urlsplit(api).netloc}{target}",
                ssl=tls(context),
                server_hostname=CONTROLLER_SERVER_NAME,
                max_size=None,
                compression=None,
                proxy=None,
            )
        except InvalidStatus as error:
            raise RuntimeFailed(_refusal(error.response)) from None
        except (OSError, WebSocketException) as error:
            problem = reason(error)
    raise Unavailable(f"cluster {context.name} cannot be reached ({problem}): is its controller running?")


def _refusal(response: Any) -> str:
    try:
        return str(json.loads(response.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the controller refused with {response.status_code}"


def _receive(socket: Any) -> int:
    from websockets.exceptions import ConnectionClosed

    try:
        for frame in socket:
            if isinstance(frame, bytes):
                stream = sys.stderr.buffer if frame[:1] == b"\x02" else sys.stdout.buffer
                stream.write(frame[1:])
                stream.flush()
                continue
            message = json.loads(frame)
            if "exit_code" in message:
                return int(message["exit_code"])
            if "error" in message:
                raise RuntimeFailed(str(message["error"]))
    except ConnectionClosed as error:
        raise Unavailable(f"the connection broke ({reason(error)}): the process may still run") from None
    raise Unavailable("the connection ended without an exit code: the process may still run")


def _feed(socket: Any) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed, OSError, ValueError):
        while data := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
            socket.send(b"\x00" + data)
        socket.send(json.dumps({"stdin_closed": True}))


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes(socket: Any, wanted: bool) -> Iterator[None]:
    """Tell the other side about new window sizes, from a thread, since a signal handler must not send."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def changed(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(write, b".")

    before = signal.signal(signal.SIGWINCH, changed)
    threading.Thread(target=_tell_sizes, args=(socket, read), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(write)


def _tell_sizes(socket: Any, read: int) -> None:
    with contextlib.suppress(Exception), os.fdopen(read, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [])[0] and pipe.read(1024):
            size = shutil.get_terminal_size()
            socket.send(json.dumps({"resize": [size.lines, size.columns]}))
